package meta

import "sync"

// ackedRunsMax bounds the runs remembered between two syncs of the other leg: the engine asks for one every
// 64 MiB (16,384 blocks, replication.md section 10.2). Beyond it runs are merged over their gaps, which writes too many
// blocks as dirty and never too few.
const ackedRunsMax = 16384

// acked remembers the blocks that the other leg reported written but not yet synced (O6).
type acked struct {
	mu   sync.Mutex
	mark uint64
	runs []ackedRun // by mark
}

type ackedRun struct {
	mark    uint64
	from, n int64
}

// Acked clears blocks in RAM that the other leg reported written; StoreDirty goes on writing them as dirty
// until Covered, because that leg may still lose them with its power (O6).
func (m *Meta) Acked(from, n int64) {
	m.acks.add(from, n) // before the clear: StoreDirty reads the bits first, then the runs
	m.dirty.Clear(from, n)
}

// Mark names the Acked calls made so far; take it before asking the other leg for a sync.
func (m *Meta) Mark() uint64 {
	m.acks.mu.Lock()
	defer m.acks.mu.Unlock()
	m.acks.mark++
	return m.acks.mark - 1
}

// Covered says that the other leg reported a sync that was asked for after Mark.
func (m *Meta) Covered(mark uint64) {
	m.acks.mu.Lock()
	defer m.acks.mu.Unlock()
	kept := m.acks.runs[:0]
	for _, r := range m.acks.runs {
		if r.mark > mark {
			kept = append(kept, r)
			continue
		}
		for g := r.from / blocksPerGroup; g*blocksPerGroup < r.from+r.n; g++ {
			m.dirty.changed[g].Store(true)
		}
	}
	m.acks.runs = kept
}

func (a *acked) add(from, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := len(a.runs); k > 0 {
		last := &a.runs[k-1]
		next := last.mark == a.mark && from == last.from+last.n
		if next || k == ackedRunsMax {
			end := max(last.from+last.n, from+n)
			last.from = min(last.from, from)
			last.n = end - last.from
			last.mark = a.mark
			return
		}
	}
	a.runs = append(a.runs, ackedRun{a.mark, from, n})
}

// addTo sets the remembered blocks in the words of a map page that begins at block first.
func (a *acked) addTo(words []uint64, first int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.runs {
		from, to := max(r.from, first), min(r.from+r.n, first+int64(len(words))*64)
		for b := from; b < to; b++ {
			words[(b-first)/64] |= 1 << ((b - first) % 64)
		}
	}
}
