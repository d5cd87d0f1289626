package decide

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"duet/appliance/membership"
)

// TestScenarios plays the transcripts of testdata, one rule each: what is seen, what is done, what is said. Effects that are
// done at once change what is seen by themselves; long ones end by the word `done`. Run with -rewrite to record, then
// read the diff.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		p := newPlay()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			p.out.Reset()
			for line := range strings.Lines(d.Input) {
				if err := p.command(strings.Fields(line)); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			p.words()
			return p.out.String()
		})
	})
}

type play struct {
	out    *strings.Builder
	s      State
	in     Input
	wrote  Record
	silent bool // the peer says nothing any more
	fixed  bool // the lease is not renewed
}

// newPlay is node a of a site that was in sync, before it has looked at anything.
func newPlay() *play {
	p := &play{out: &strings.Builder{}, s: State{Cfg: Defaults()}}
	p.in = Input{Now: 100 * second, Wall: 1700000000, Enabled: true, Grant: Grant{Epoch: 5, Mode: membership.Paired, Right: true}}
	p.in.Docs.Current = Record{Epoch: 5, Version: 1, SystemID: 7, Copies: membership.Both, Timeline: 1}
	p.in.Local = Local{Dir: DirOurs, SystemID: 7, Timeline: 1, CheckpointTimeline: 1, SpaceClone: true, Slot: true}
	p.in.Peer = Peer{Dir: DirOurs, Timeline: 1, CheckpointTimeline: 1, SpaceClone: true}
	return p
}

var sets = map[string]membership.Set{"{}": membership.Nobody, "{a}": membership.OnlyA, "{b}": membership.OnlyB, "{a,b}": membership.Both}

var modes = map[string]membership.Mode{
	"init": membership.Init, "joining": membership.Joining, "resolving": membership.Resolving, "frozen": membership.Frozen,
	"paired": membership.Paired, "solo": membership.Solo,
}

func word[T fmt.Stringer](text string, all ...T) (T, error) {
	for _, v := range all {
		if v.String() == text {
			return v, nil
		}
	}
	var none T
	return none, fmt.Errorf("no such word %q", text)
}

var (
	allDirs     = []Dir{DirUnseen, DirAbsent, DirEmpty, DirCreating, DirOurs, DirForeign, DirUnfinished}
	allProcs    = []Proc{ProcUnseen, ProcStopped, ProcStarting, ProcPrimary, ProcStandby, ProcHung}
	allEvidence = []Evidence{EvidenceNone, EvidenceUnknown, EvidenceRefused, EvidenceConfirmed, EvidenceWaited, EvidenceStated, EvidenceOwn}
)

func allWorks() []Work {
	var all []Work
	for w := Idle; w < workCount; w++ {
		all = append(all, w)
	}
	return all
}

func (p *play) command(f []string) error {
	if len(f) == 0 || f[0] == "#" {
		return nil
	}
	pairs := map[string]string{}
	for _, w := range f[1:] {
		k, v, _ := strings.Cut(w, "=")
		pairs[k] = v
	}
	switch f[0] {
	case "new":
		out := p.out
		*p = *newPlay()
		p.out = out
	case "self":
		p.in.Self = membership.Node(f[1][0] - 'a')
	case "wait":
		seconds, err := strconv.ParseFloat(f[1], 64)
		p.in.Now += membership.Boottime(seconds * float64(second))
		return err
	case "wants":
		p.in.Durability = Durability(slices.Index([]string{"available", "strict"}, f[1])) //nolint:gosec // two
	case "lease":
		p.fixed = f[1] == "stops"
	case "grant":
		return p.grant(f[1], pairs)
	case "record":
		return p.record(&p.in.Docs.Current, pairs)
	case "pending":
		p.in.Docs.Pending = p.in.Docs.Current.next(p.in.Grant.Epoch)
		return p.record(&p.in.Docs.Pending, pairs)
	case "history":
		return p.history(pairs)
	case "local":
		return p.local(pairs)
	case "peer":
		return p.peer(pairs)
	case "look":
		p.step(nil)
	case "done":
		return p.done(f[1:], pairs)
	case "order":
		p.order(f[1])
	default:
		return fmt.Errorf("unknown command %q", f[0])
	}
	return nil
}

func (p *play) order(word string) {
	kind := map[string]OrderKind{"switchover": OrderSwitchover, "resume": OrderResume, "reclone": OrderReclone}[word]
	p.refresh()
	if kind == OrderSwitchover {
		fmt.Fprintf(p.out, "%v: ", p.s.Allows(p.in))
	}
	p.step(Order{Kind: kind})
}

func (p *play) grant(mode string, kv map[string]string) error {
	g := &p.in.Grant
	m, known := modes[mode]
	if !known {
		return fmt.Errorf("no mode %s", mode)
	}
	g.Mode = m
	g.Right, g.Joining, g.Lends, g.Evidence, g.Deadline, p.fixed = false, false, false, EvidenceNone, 0, false
	for k, v := range kv {
		var err error
		switch k {
		case mode:
		case "owner":
			if g.Owner != membership.Node(v[0]-'a') {
				g.Version++
			}
			g.Owner = membership.Node(v[0] - 'a')
		case "right":
			g.Right = true
		case "joining":
			g.Joining = true
		case "lends":
			g.Lends = true
		case "evidence":
			g.Evidence, err = word(v, allEvidence...)
		default:
			err = fmt.Errorf("grant has no %s", k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *play) record(r *Record, kv map[string]string) error {
	for k, v := range kv {
		switch k {
		case "none":
			*r = Record{}
		case "copies":
			r.Copies = sets[v]
		case "tl":
			r.Timeline = number[uint32](v)
		case "strict":
			r.Durability = Strict
		case "version":
			r.Version = number[uint64](v)
		default:
			return fmt.Errorf("record has no %s", k)
		}
	}
	return nil
}

func (p *play) history(kv map[string]string) error {
	r := &p.in.Docs.Current
	e := Promotion{Version: r.Version, To: membership.B}
	for k, v := range kv {
		switch k {
		case "from":
			e.FromTimeline = number[uint32](v)
		case "tl":
			e.Timeline = number[uint32](v)
		case "fork":
			e.Fork = number[LSN](v)
		case "before":
			e.CopiesBefore = sets[v]
		case "to":
			e.To = membership.Node(v[0] - 'a')
		case "forced":
			e.Forced = true
		default:
			return fmt.Errorf("history has no %s", k)
		}
	}
	r.History = append(r.History, e)
	r.Timeline = e.Timeline
	return nil
}

func number[T ~uint32 | ~uint64 | ~int32 | ~int](text string) T {
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return T(n)
}

func yes(v string) bool { return v != "no" }

func (p *play) local(kv map[string]string) (err error) {
	l := &p.in.Local
	for k, v := range kv {
		switch k {
		case "dir":
			l.Dir, err = word(v, allDirs...)
		case "proc":
			l.Proc, err = word(v, allProcs...)
			l.AsPrimary = l.Proc == ProcPrimary || l.Proc == ProcHung && l.AsPrimary
			if l.Proc == ProcStopped {
				l.Life, l.Sender, l.Receiving = 0, Sender{}, false
			}
		case "life":
			l.Life, l.ProbeAt = number[uint64](v), p.in.Now
		case "clean":
			l.Clean = yes(v)
		case "standbydir":
			l.StandbyDir = yes(v)
		case "tl":
			l.Timeline = number[uint32](v)
		case "checkpoint":
			l.CheckpointTimeline = number[uint32](v)
		case "fork":
			l.Fork = number[LSN](v)
		case "end":
			l.End = number[LSN](v)
		case "replay":
			l.Replay = number[LSN](v)
		case "sender":
			l.Sender = Sender{PID: number[int32](v), Streaming: v != "0", Flush: l.Sender.Flush}
		case "flush":
			l.Sender.Flush = number[LSN](v)
		case "receiving":
			l.Receiving = yes(v)
		case "waiters":
			l.Waiters = number[int](v)
		case "slot":
			l.Slot = yes(v)
		case "slotlost":
			l.SlotLost = yes(v)
		case "space":
			l.SpaceClone = yes(v)
		case "names":
			l.Names, err = word(v, NamesNone, NamesPeer)
		case "open":
			l.WriteOpen, l.WriteAddress = yes(v), yes(v)
		case "writeaddress":
			l.WriteAddress = yes(v)
		case "readopen":
			l.ReadOpen = yes(v)
		case "probed":
			l.ProbeAt = p.in.Now
		default:
			err = fmt.Errorf("local has no %s", k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *play) peer(kv map[string]string) (err error) {
	q := &p.in.Peer
	p.silent = false
	for k, v := range kv {
		switch k {
		case "silent":
			p.silent, q.At = true, max(q.At, p.in.Now-second)
		case "dir":
			q.Dir, err = word(v, allDirs...)
		case "proc":
			q.Proc, err = word(v, allProcs...)
		case "clean":
			q.Clean = yes(v)
		case "tl":
			q.Timeline = number[uint32](v)
		case "checkpoint":
			q.CheckpointTimeline = number[uint32](v)
		case "end":
			q.End = number[LSN](v)
		case "replay":
			q.Replay = number[LSN](v)
		case "fails":
			q.Fails = number8(v)
		case "space":
			q.SpaceClone = yes(v)
		case "readaddress":
			q.ReadAddress = yes(v)
		default:
			err = fmt.Errorf("peer has no %s", k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func number8(v string) uint8 { return uint8(number[uint32](v)) }

func (p *play) done(f []string, kv map[string]string) error {
	name := strings.ReplaceAll(f[0], "-", " ")
	w, err := word(name, allWorks()...)
	if err != nil {
		return err
	}
	_, failed := kv["fail"]
	e := Done{Work: w, OK: !failed}
	switch w {
	case Writing:
		p.in.Docs.Writing = false
		if e.OK {
			p.in.Docs.Current, p.in.Docs.Pending = p.wrote, Record{}
		}
	case Marking:
		e.PID = p.s.Armed
		if v, given := kv["pid"]; given {
			e.PID = number[int32](v)
		}
	default:
	}
	p.step(e)
	return nil
}

func (p *play) refresh() {
	if !p.silent {
		p.in.Peer.At = p.in.Now
	}
	if !p.fixed && p.in.Grant.Mode != membership.Solo {
		p.in.Grant.Deadline = p.in.Now + 4*second
	}
}

func (p *play) step(e Event) {
	p.refresh()
	p.in.Event = e
	var out []Effect
	p.s, out = Step(p.s, p.in)
	var said []string
	for _, x := range out {
		said = append(said, x.String())
		p.apply(x)
	}
	if len(said) == 0 {
		said = []string{"-"}
	}
	fmt.Fprintf(p.out, "%5.1f %s\n", float64(p.in.Now)/float64(second), strings.Join(said, "; "))
}

func (p *play) apply(e Effect) {
	l := &p.in.Local
	switch e := e.(type) {
	case SetNames:
		l.Names = e.Names
	case SetGate:
		if e.Gate == Write {
			l.WriteOpen = e.Open
		} else {
			l.ReadOpen = e.Open
		}
	case SetAddress:
		if e.Gate == Write {
			l.WriteAddress = e.Add
		} else {
			l.ReadAddress = e.Add
		}
	case StartServer:
		l.Names = e.Names
	case CreateSlot:
		l.Slot = true
	case WriteRecord:
		p.wrote, p.in.Docs.Writing = e.Record, true
	default:
	}
}

func (p *play) words() {
	w := Describe(p.s, p.in, true)
	fmt.Fprintf(p.out, "%s %s %s, %s, promotable %v (%s)\n", w.Status, w.Data, w.Role, w.Activity, w.Promotable, w.Why)
}
