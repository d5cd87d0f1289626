package node

import (
	"cmp"
	"context"
	"encoding/hex"
	"log/slog"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/ipmi/fence"
	"duet/ipmi/fence/ledger"
)

// ledgerFile is in the data directory.
const ledgerFile = "fence.ledger"

// ledgerQueue is what may wait for the disk. Fencing never waits: what does not fit is dropped and said in the log.
const ledgerQueue = 32

// history writes the ledger beside everything else: a system disk that hangs must not hold up a takeover.
type history struct {
	book  *ledger.Ledger // nil: it could not be opened
	queue chan ledger.Entry
	told  *faults
	log   *slog.Logger
}

func newHistory(path string, told *faults, log *slog.Logger) *history {
	h := &history{queue: make(chan ledger.Entry, ledgerQueue), told: told, log: log}
	book, err := ledger.Open(path)
	if err != nil {
		h.dead(err)
		return h
	}
	h.book = book
	if damaged, err := book.Damaged(); damaged > 0 || err != nil {
		log.Warn("lines of the fence ledger were left out", "count", damaged, "error", err)
	}
	return h
}

func (h *history) dead(err error) {
	h.log.Error("fence ledger", "error", err.Error())
	h.told.raise(event.New(event.LedgerDead, "reason", err.Error()))
}

func (h *history) add(e ledger.Entry) {
	select {
	case h.queue <- e:
	default:
		h.log.Error("fence ledger: the disk does not keep up, an entry is lost", "what", e.What, "verdict", e.Verdict)
	}
}

func (h *history) run(ctx context.Context) error {
	for {
		select {
		case e := <-h.queue:
			h.write(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-h.queue:
					h.write(e)
				default:
					return nil
				}
			}
		}
	}
}

func (h *history) write(e ledger.Entry) {
	if h.book == nil {
		return
	}
	if err := h.book.Record(e); err != nil {
		h.dead(err)
	}
}

func (h *history) close() error {
	if h.book == nil {
		return nil
	}
	return h.book.Close()
}

// lastFence is the newest attempt; nil: there was none.
func (h *history) lastFence() *api.Evidence {
	if h.book == nil {
		return nil
	}
	for _, e := range h.book.Entries(lastFenceAmong) {
		if e.What == "fence" {
			return &api.Evidence{Node: e.Node, Verdict: e.Verdict, By: cmp.Or(e.Decided, "nothing"), Epoch: e.Epoch, At: e.At, Detail: e.Why}
		}
	}
	return nil
}

const lastFenceAmong = 100 // newest entries; the others are tests and latches

// moment is both clocks, at the beginning of something.
type moment struct {
	wall time.Time
	boot int64
}

func startOf() moment { return moment{time.Now(), boottime.Now()} }

func (m moment) took() int64 { return (boottime.Now() - m.boot) / int64(time.Millisecond) }

// attemptEntry is one run for the ledger.
func attemptEntry(ev fence.Evidence, order membership.Fence, began moment) ledger.Entry {
	e := ledger.Entry{
		What: "fence", Node: ev.Node.String(), By: "core", At: began.wall, BootMS: began.boot / int64(time.Millisecond), TookMS: began.took(),
		Epoch: ev.Epoch, Run: ev.Run, Means: "bmc, outlets", Verdict: ev.Verdict.String(), Decided: ev.Kind.Word(), Why: ev.Why,
		Evidence: map[string]string{}, Raw: hex.EncodeToString(ev.Raw[:]),
	}
	if order.Lost != 0 {
		e.Means = "in turns"
	}
	for word, verdict := range map[string]fence.Verdict{
		"bmc": ev.Seen.BMC, "outlets": ev.Seen.Outlets, "load": ev.Seen.Load, "person": ev.Seen.Person,
	} {
		if verdict != fence.Unknown {
			e.Evidence[word] = verdict.String()
		}
	}
	if ev.Seen.Contradiction {
		e.Evidence["contradiction"] = "seen"
	}
	if ev.Fault != nil {
		e.Code = ev.Fault.Code
	}
	return e
}

// byPerson keeps a person's word, which counts as confirmed (protocol.md R26).
func (n *Node) byPerson(by, reason string) {
	at := startOf()
	ev := fence.ByPerson(fence.Node(n.peer()), uint64(n.driver.View().State.Rec.Ep), fence.Boottime(at.boot), by+": "+reason)
	e := attemptEntry(ev, membership.Fence{}, at)
	e.By, e.Means, e.Raw = by, "", ""
	n.history.add(e)
}

// FenceHistory is what was done to switch the other node off, newest first.
func (n *Node) FenceHistory(_ context.Context, limit int) ([]api.FenceEntry, error) {
	out := []api.FenceEntry{}
	if n.history.book == nil {
		return out, nil
	}
	for _, e := range n.history.book.Entries(limit) {
		a := api.FenceEntry{
			What: e.What, Node: e.Node, By: e.By, At: e.At, BoottimeMS: e.BootMS, TookMS: e.TookMS, Epoch: e.Epoch, Means: e.Means,
			Verdict: e.Verdict, Decided: e.Decided, Evidence: e.Evidence, Why: e.Why, Code: e.Code, Raw: e.Raw, Repeats: e.Repeats,
		}
		for _, s := range e.Steps {
			a.Steps = append(a.Steps, api.FenceStep{Name: s.Name, TookMS: s.TookMS})
		}
		out = append(out, a)
	}
	return out, nil
}
