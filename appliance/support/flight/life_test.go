package flight

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"duet/appliance/membership"
	"duet/witness/register"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const second membership.Boottime = 1e9

// pair is two real cores, the real register, and everything around them as simple as can be: what is asked is answered at
// once. Its decisions go to whatever listens.
type pair struct {
	now     membership.Boottime
	fresh   membership.Nonce
	session membership.Session
	linked  bool
	verdict membership.Verdict // of the next fence attempt
	nodes   [2]actor
	reg     register.Register
	listen  func(membership.Node, decision)
}

// actor is one node.
type actor struct {
	up     bool
	state  membership.State
	disk   membership.Record
	timers [256]membership.Boottime
	inbox  []membership.Event
}

// decision is what a recorder is told.
type decision struct {
	before  membership.State
	in      membership.Input
	after   membership.State
	effects []membership.Effect
}

func newPair(listen func(membership.Node, decision)) *pair {
	p := &pair{now: 100 * second, reg: register.Register{RID: register.ID{7}}, verdict: membership.Confirmed, listen: listen}
	for i := range p.nodes {
		p.nodes[i].state.Cfg = membership.Config{
			Self: membership.Node(i), Lease: 4 * second, PeerWait: 6 * second, Bias: second, BootWait: 15 * second, //nolint:gosec // two
			AskAgain: 2 * second, FenceAgain: 2 * second, PowerOnWait: 10 * second, CommitAgain: second / 2,
		}
	}
	return p
}

func (p *pair) node(n membership.Node) *actor { return &p.nodes[n] }

// step gives one event and does what it leads to.
func (p *pair) step(id membership.Node, e membership.Event) {
	n := p.node(id)
	if !n.up {
		return
	}
	p.fresh = p.fresh*6364136223846793005 + 1442695040888963407 // as random as a nonce looks
	p.now += 7*second/1000 + membership.Boottime(p.fresh%1e6)
	in := membership.Input{Now: p.now, Fresh: p.fresh | 2, Event: e}
	before := n.state
	after, effects := membership.Step(before, in)
	n.state = after
	p.listen(id, decision{before, in, after, effects})
	for _, x := range effects {
		p.do(id, x)
	}
}

func (p *pair) do(id membership.Node, e membership.Effect) {
	n := p.node(id)
	hear := func(to membership.Node, e membership.Event) { p.node(to).inbox = append(p.node(to).inbox, e) }
	switch e := e.(type) {
	case membership.Persist:
		n.disk = e.Record
	case membership.Send:
		if p.linked {
			hear(id.Peer(), membership.Received{Session: p.session, Message: e.Message})
		}
	case membership.AskWitness:
		r := membership.WitnessReply{Op: membership.OpCAS, Nonce: e.Nonce, RID: e.RID}
		var done bool
		p.reg, done, _ = p.reg.CAS(content(e.Expected), content(e.New))
		hear(id, p.reply(r, done))
	case membership.PushWitness:
		r := membership.WitnessReply{Op: membership.OpPush, Nonce: e.Nonce, RID: e.RID}
		var done bool
		p.reg, done, _ = p.reg.Push(register.Epoch(e.Ep))
		hear(id, p.reply(r, done))
	case membership.Fence:
		hear(id, membership.FenceResult{Attempt: e.Attempt, Verdict: p.verdict})
	case membership.PowerOnPeer:
		hear(id, membership.PeerPowered{OK: true})
	case membership.Copy:
		for i := range p.nodes {
			hear(membership.Node(i), membership.CopyDone{Session: e.Session, Digest: membership.Digest{1}}) //nolint:gosec // two
		}
	case membership.Arm:
		n.timers[e.Timer] = e.At
	}
}

func content(c membership.RegisterContent) register.Content {
	return register.Content{Epoch: register.Epoch(c.Ep), Set: register.Set(c.Set)}
}

func (p *pair) reply(r membership.WitnessReply, done bool) membership.WitnessReply {
	if done {
		r.Result = membership.WitnessOK
	}
	r.Register = membership.RegisterContent{Ep: membership.Epoch(p.reg.Content.Epoch), Set: membership.Set(p.reg.Content.Set)}
	return r
}

// settle delivers what was said.
func (p *pair) settle() {
	for range 1000 {
		quiet := true
		for i := range p.nodes {
			n := &p.nodes[i]
			if len(n.inbox) == 0 {
				continue
			}
			quiet = false
			e := n.inbox[0]
			n.inbox = n.inbox[1:]
			p.step(membership.Node(i), e) //nolint:gosec // two
		}
		if quiet {
			return
		}
	}
}

// pass lets time go by: timers, beats four times a second, wants each second.
func (p *pair) pass(d membership.Boottime) {
	for end, turn := p.now+d, 0; p.now < end; turn++ {
		p.now += second / 4
		for i := range p.nodes {
			id := membership.Node(i) //nolint:gosec // two
			for t, at := range p.nodes[i].timers {
				if at != 0 && at <= p.now {
					p.nodes[i].timers[t] = 0
					p.step(id, membership.Timer{Timer: membership.TimerID(t)}) //nolint:gosec // an index
				}
			}
			if p.nodes[i].state.Committed() {
				p.step(id, membership.Beat{})
			}
			if turn%4 == 0 {
				p.step(id, membership.Want{Resource: 1})
				p.step(id, membership.Want{Resource: 2})
			}
		}
		p.settle()
	}
}

func (p *pair) boot(id membership.Node) {
	n := p.node(id)
	*n = actor{up: true, state: membership.State{Cfg: n.state.Cfg, Rec: n.disk}, disk: n.disk}
	p.step(id, membership.Boot{Record: n.disk})
}

func (p *pair) connect() {
	p.session = membership.Session(p.fresh)
	p.linked = true
	p.nodes[0].inbox, p.nodes[1].inbox = nil, nil
	for i := range p.nodes {
		p.step(membership.Node(i), membership.Connected{Session: p.session}) //nolint:gosec // two
	}
	p.settle()
}

func (p *pair) cut() {
	p.linked = false
	p.nodes[0].inbox, p.nodes[1].inbox = nil, nil
	for i := range p.nodes {
		p.step(membership.Node(i), membership.PeerLost{Session: p.session}) //nolint:gosec // two
	}
	p.settle()
}

func (p *pair) found() {
	f := membership.Found{Site: membership.ID{1}, Arb: membership.Arb{Kind: membership.ArbWitness, RID: membership.ID{7}}}
	f.Owners[0] = membership.Owner{Node: membership.A, Version: 1}
	f.Owners[1] = membership.Owner{Node: membership.A, Version: 1}
	f.Owners[2] = membership.Owner{Node: membership.B, Version: 1}
	f.Legs[0].Set, f.Legs[0].Version = membership.Both, 1
	p.step(membership.A, f)
	p.settle()
}

// aLife: founded, paired for a while, b dies and is fenced, a takes over, b returns and joins, the link is cut, one goes
// on alone, the other yields and joins; at last both are paired again.
func aLife(p *pair) {
	p.boot(membership.A)
	p.boot(membership.B)
	p.connect()
	p.found()
	p.pass(3 * second)
	p.node(membership.B).up = false
	p.cut()
	p.pass(20 * second)
	p.boot(membership.B)
	p.connect()
	p.pass(3 * second)
	p.cut()
	p.pass(8 * second)
	p.verdict = membership.Unknown
	p.node(membership.B).up = false
	p.pass(8 * second)
	p.boot(membership.B)
	p.connect()
	p.pass(3 * second)
}

// tapes is a recorder a node, in folders a and b of a temporary one.
type tapes struct {
	t   *testing.T
	dir string
	cfg [2]Config
	rec [2]*Recorder
}

func newTapes(t *testing.T, change func(*Config)) *tapes {
	t.Helper()
	ts := &tapes{t: t, dir: t.TempDir()}
	for i := range ts.rec {
		cfg := Config{
			Dir: ts.folder(membership.Node(i)), Limit: DefaultLimit, BootID: "4c7b1c1e-0d0a-4f6b-9a63-000000000001", //nolint:gosec // two
			Node: membership.Node(i), Log: slog.New(slog.DiscardHandler), Mended: func() {}, //nolint:gosec // two
			Broken: func(err error) { t.Errorf("recording stopped: %v", err) },
		}
		if change != nil {
			change(&cfg)
		}
		ts.cfg[i] = cfg
	}
	t.Cleanup(ts.close)
	return ts
}

func (ts *tapes) folder(n membership.Node) string { return filepath.Join(ts.dir, n.String()) }

func (ts *tapes) close() {
	for _, r := range ts.rec {
		if r != nil {
			finish(r)
		}
	}
}

// finish closes r and waits for the disk, however slow it is: what a test reads is all there.
func finish(r *Recorder) {
	r.Close()
	<-r.Done()
}

// listen begins a new recorder where a new duetd would. It waits where a driver would not: a life of a minute is played
// in a moment.
func (ts *tapes) listen(n membership.Node, d decision) {
	if _, boot := d.in.Event.(membership.Boot); boot {
		if ts.rec[n] != nil {
			finish(ts.rec[n])
		}
		ts.rec[n] = Start(ts.cfg[n])
	}
	r := ts.rec[n]
	for len(r.queue) == cap(r.queue) {
		select {
		case <-r.done:
			return
		default:
		}
	}
	r.Decided(d.before, d.in, d.after, d.effects)
}

// recorded is a whole life on two folders.
func recorded(t *testing.T) (*tapes, *pair) {
	t.Helper()
	ts := newTapes(t, nil)
	p := newPair(ts.listen)
	aLife(p)
	ts.close()
	return ts, p
}

// Proves: issue 3, item 4: a recording runs through Step and reaches the same states.
func TestALifeReplays(t *testing.T) {
	ts, p := recorded(t)
	for _, id := range []membership.Node{membership.A, membership.B} {
		var end membership.State
		lines, modes := 0, map[membership.Mode]bool{}
		s, err := Replay(ts.folder(id), Options{Each: func(m Moment) {
			end = m.After
			modes[m.After.Mode] = true
			if m.Line() != "" {
				lines++
			}
			if testing.Verbose() && !m.Calm() {
				t.Log(m.Line())
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !s.Equal || s.Inputs < 100 || s.Gaps != 0 || s.Lost != 0 || s.TornBytes != 0 || s.Violations != 0 || uint64(lines) != s.Entries {
			t.Errorf("%v: %+v", id, s)
		}
		if end != p.node(id).state {
			t.Errorf("%v: replay ends in another state: %s", id, differences(end, p.node(id).state))
		}
		if !modes[membership.Paired] || !modes[membership.Joining] && !modes[membership.Solo] {
			t.Errorf("%v: the life is too dull: %v", id, modes)
		}
	}
	if p.node(membership.A).state.Rec.Ep < 6 {
		t.Errorf("epoch %d: the life is too short", p.node(membership.A).state.Rec.Ep)
	}
}

// What is asked for up to a sequence is what was so then.
func TestUntil(t *testing.T) {
	ts, _ := recorded(t)
	var at membership.State
	if _, err := Replay(ts.folder(membership.A), Options{Each: func(m Moment) {
		if m.Seq == 50 {
			at = m.After
		}
	}}); err != nil {
		t.Fatal(err)
	}
	var end membership.State
	s, err := Replay(ts.folder(membership.A), Options{Until: 50, Each: func(m Moment) { end = m.After }})
	if err != nil || s.Last != 50 || end != at || !s.Equal {
		t.Errorf("%+v %v", s, err)
	}
}

// A single file replays by itself, and so does every file of a ring whose oldest were forgotten.
func TestOneFile(t *testing.T) {
	ts := newTapes(t, func(c *Config) { c.segment, c.Limit = 8<<10, 48<<10 })
	p := newPair(ts.listen)
	aLife(p)
	p.pass(240 * second)
	ts.close()
	dir := ts.folder(membership.A)
	files, err := listSegments(dir)
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	if filepath.Base(files[0]) == "0000000000000001.flight" {
		t.Error("the oldest file is still there")
	}
	var total int64
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
		if s, err := Replay(f, Options{}); err != nil || !s.Equal || s.Gaps != 0 {
			t.Errorf("%s: %+v %v", f, s, err)
		}
	}
	if total > 48<<10 {
		t.Errorf("%d bytes, the limit is %d", total, 48<<10)
	}
	if s, err := Replay(dir, Options{}); err != nil || !s.Equal || s.Gaps != 0 || s.First == 1 {
		t.Errorf("%+v %v", s, err)
	}
}
