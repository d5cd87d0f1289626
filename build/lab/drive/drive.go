// Package drive is a disk drive outside the node: a medium (a file of the machine), a volatile write cache in front
// of it, and the physics of a power cut.
//
// Promises: a write is in the cache when it is answered; a flush, or a write with FUA, is on the medium when it is
// answered; a read sees the latest answered write. When the power goes, every 4 KiB block that is only in the cache
// becomes old, new, or torn at 512-byte sectors, as the seed decides, each by itself: no order between unsynced
// writes survives. Requests that wait at the cut are answered EIO, because a process that waits on a silent FUSE
// server cannot be killed (it stayed 6.5 s, lab.md section 5).
//
// It refuses offsets and lengths that are not multiples of a sector, as hardware does and FUSE does not. It never
// loses what it acknowledged as durable; a test that finds such a loss has found a fault of the product or of the
// lab, and the self-tests of this package exclude the latter.
//
// Not imitated: the lab's machine itself losing power. The medium is an ordinary file and is never fsynced.
package drive

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"

	"duet/build/lab/control"
)

// SectorBytes is the logical block: what is written whole or not at all. BlockBytes is the unit of the cache.
const (
	SectorBytes     = 512
	BlockBytes      = 4096
	sectorsPerBlock = BlockBytes / SectorBytes
)

// cacheBlocksMax bounds the volatile cache to 64 MiB, the size of a small disk's DRAM; beyond it the oldest block
// goes to the medium, which a drive may do at any time.
const cacheBlocksMax = 64 << 20 / BlockBytes

// Survival says what a power cut leaves of the cache.
type Survival uint8

// The kinds of survival.
const (
	Random Survival = iota // each block old, new or torn
	Drop                   // every block old
	Keep                   // every block new: a drive with a capacitor
)

// ParseSurvival reads random, drop or keep; empty is random.
func ParseSurvival(s string) (Survival, error) {
	switch s {
	case "", "random":
		return Random, nil
	case "drop":
		return Drop, nil
	case "keep":
		return Keep, nil
	}
	return 0, fmt.Errorf("cache %q: must be random, drop or keep", s)
}

// Drive is the medium with its cache. It outlives its front ends: each power-on attaches a new one.
type Drive struct {
	medium *os.File
	size   int64

	mu     sync.Mutex
	gone   *sync.Cond // broadcast when held requests shall be answered
	held   bool       // power is going: nothing is answered
	dead   int        // front ends below this number are answered EIO
	front  int        // number of the latest front end
	fault  map[Op]*Fault
	blocks map[int64]*block
	order  []int64 // of entry into the cache, oldest first
	count  control.DriveState
}

// block is a cached block: data of the sectors whose bit is set in dirty; the medium has the others.
type block struct {
	dirty uint8
	data  [BlockBytes]byte
}

// Open opens or makes a drive of the given size; an existing one keeps its size.
func Open(path string, sizeBytes int64) (*Drive, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("drive: %w", err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() == 0 {
		err = f.Truncate(sizeBytes)
	} else if err == nil {
		sizeBytes = st.Size()
	}
	if err == nil && (sizeBytes <= 0 || sizeBytes%BlockBytes != 0) {
		err = fmt.Errorf("size %d is not a multiple of %d", sizeBytes, BlockBytes)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("drive %s: %w", path, err)
	}
	d := &Drive{medium: f, size: sizeBytes, blocks: map[int64]*block{}, fault: map[Op]*Fault{}}
	d.gone = sync.NewCond(&d.mu)
	d.count.SizeBytes = sizeBytes
	return d, nil
}

// Close closes the medium. What is only in the cache is lost.
func (d *Drive) Close() error { return d.medium.Close() }

// State counts what the drive was asked.
func (d *Drive) State() control.DriveState {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.count
	s.Attached = d.front > d.dead
	s.DirtyBlock = len(d.blocks)
	return s
}

// errMisaligned is what hardware answers to half a sector.
var errMisaligned = syscall.EINVAL

// enter waits while the drive is held and returns EIO to a front end whose power is gone.
func (d *Drive) enter(front int, o Op) syscall.Errno {
	for d.held && front > d.dead {
		d.gone.Wait()
	}
	if front <= d.dead {
		d.count.CutErrors++
		return syscall.EIO
	}
	return d.strike(front, o)
}

func (d *Drive) aligned(off int64, n int) bool {
	if off%SectorBytes == 0 && n%SectorBytes == 0 && off >= 0 && off+int64(n) <= d.size {
		return true
	}
	d.count.Misaligned++
	return false
}

// write puts p into the cache, or with fua on the medium.
func (d *Drive) write(front int, off int64, p []byte, fua bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.enter(front, OpWrite); e != 0 {
		return e
	}
	if !d.aligned(off, len(p)) {
		return errMisaligned
	}
	d.count.Writes++
	d.count.WriteBytes += uint64(len(p))
	if fua {
		d.count.FUA++
		return d.writeThrough(off, p)
	}
	for len(p) > 0 {
		no, at := off/BlockBytes, off%BlockBytes
		n := min(len(p), int(BlockBytes-at))
		b := d.blocks[no]
		if b == nil {
			if e := d.makeRoom(); e != 0 {
				return e
			}
			b = &block{}
			d.blocks[no] = b
			d.order = append(d.order, no)
		}
		copy(b.data[at:], p[:n])
		b.dirty |= sectorMask(at, n)
		off, p = off+int64(n), p[n:]
	}
	return 0
}

// writeThrough writes to the medium and forgets older cached data of the same sectors: it must not come back over
// this write at the next flush.
func (d *Drive) writeThrough(off int64, p []byte) syscall.Errno {
	if _, err := d.medium.WriteAt(p, off); err != nil {
		return errnoOf(err)
	}
	for end := off + int64(len(p)); off < end; {
		no, at := off/BlockBytes, off%BlockBytes
		n := min(end-off, BlockBytes-at)
		if b := d.blocks[no]; b != nil {
			b.dirty &^= sectorMask(at, int(n))
		}
		off += n
	}
	return 0
}

// makeRoom writes the oldest block to the medium when the cache is full.
func (d *Drive) makeRoom() syscall.Errno {
	for len(d.blocks) >= cacheBlocksMax {
		no := d.order[0]
		if e := d.settle(no, d.blocks[no], 0xff); e != 0 {
			return e
		}
		delete(d.blocks, no)
		d.order = d.order[1:]
	}
	return 0
}

// settle writes the dirty sectors of a block that are in mask to the medium.
func (d *Drive) settle(no int64, b *block, mask uint8) syscall.Errno {
	for s := 0; s < sectorsPerBlock; {
		if b.dirty&mask&(1<<s) == 0 {
			s++
			continue
		}
		e := s
		for e < sectorsPerBlock && b.dirty&mask&(1<<e) != 0 {
			e++
		}
		if _, err := d.medium.WriteAt(b.data[s*SectorBytes:e*SectorBytes], no*BlockBytes+int64(s*SectorBytes)); err != nil {
			return errnoOf(err)
		}
		s = e
	}
	return 0
}

// read fills p: the medium, and over it what is cached.
func (d *Drive) read(front int, off int64, p []byte) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.enter(front, OpRead); e != 0 {
		return e
	}
	if !d.aligned(off, len(p)) {
		return errMisaligned
	}
	d.count.Reads++
	if _, err := d.medium.ReadAt(p, off); err != nil {
		return errnoOf(err)
	}
	for len(p) > 0 {
		no, at := off/BlockBytes, off%BlockBytes
		n := min(len(p), int(BlockBytes-at))
		if b := d.blocks[no]; b != nil {
			for i := 0; i < n; i += SectorBytes {
				if s := (int(at) + i) / SectorBytes; b.dirty&(1<<s) != 0 {
					copy(p[i:i+SectorBytes], b.data[s*SectorBytes:])
				}
			}
		}
		off, p = off+int64(n), p[n:]
	}
	return 0
}

// flush puts everything cached on the medium.
func (d *Drive) flush(front int) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.enter(front, OpFlush); e != 0 {
		return e
	}
	d.count.Flushes++
	for _, no := range d.order {
		if e := d.settle(no, d.blocks[no], 0xff); e != 0 {
			return e
		}
	}
	d.forget()
	return 0
}

func (d *Drive) forget() {
	clear(d.blocks)
	d.order = d.order[:0]
}

// Hold stops answering: the first instant of a power cut, before the links go. A write that was not answered before
// is never acknowledged.
func (d *Drive) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
}

// Cut ends all front ends: every held and later request of them is answered EIO, and the cache becomes what the seed
// decides. rng is drawn from in the order of the blocks' entry, so one seed gives one outcome.
func (d *Drive) Cut(s Survival, rng *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.held = d.front, false
	d.gone.Broadcast()
	d.count.Cuts++
	var failed error
	for _, no := range d.order {
		b := d.blocks[no]
		if b.dirty == 0 {
			continue
		}
		mask := survivors(s, rng)
		switch mask & b.dirty {
		case 0:
			d.count.LostBlocks++
		case b.dirty:
			d.count.KeptBlocks++
		default:
			d.count.TornBlocks++
		}
		if e := d.settle(no, b, mask); e != 0 {
			failed = errors.Join(failed, fmt.Errorf("block %d: %w", no, e))
		}
	}
	d.forget()
	return failed
}

// survivors draws which sectors of a block reach the medium: all, none, or any subset.
func survivors(s Survival, rng *rand.Rand) uint8 {
	switch s {
	case Drop:
		return 0
	case Keep:
		return 0xff
	default: // nothing for the others
	}
	switch rng.IntN(3) {
	case 0:
		return 0
	case 1:
		return 0xff
	}
	return uint8(rng.UintN(256))
}

// Reset ends all front ends like Cut, but the drive keeps its power and so its cache: a reset button, a dead kernel.
func (d *Drive) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.held = d.front, false
	d.gone.Broadcast()
}

// sectorMask has the bits of the sectors of [at, at+n) in a block.
func sectorMask(at int64, n int) uint8 {
	first, last := at/SectorBytes, (at+int64(n))/SectorBytes
	return uint8(uint(1)<<last - uint(1)<<first)
}

func errnoOf(err error) syscall.Errno {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return syscall.EIO
}
