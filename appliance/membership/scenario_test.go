package membership

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"duet/witness/register"
)

// TestScenarios plays the stories of testdata/scenarios: two nodes, a witness, a fence driver, a mirror, all of which do
// at once what the effects say. Run with -rewrite to record, then read the diff.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		w := newStage()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.out.Reset()
			for line := range strings.Lines(d.Input) {
				if err := w.command(strings.Fields(line)); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			w.summary()
			return w.out.String()
		})
	})
}

const second Boottime = 1e9

// durations are those of section 5.3.
func durations(self Node) Config {
	return Config{
		Self: self, Lease: 4 * second, PeerWait: 6 * second, Bias: second, RestartBias: 3 * second, BootWait: 15 * second, AskAgain: 2 * second,
		FenceAgain: 5 * second, PowerOnWait: 10 * second, CommitAgain: second / 4, ForceGap: 1000,
	}
}

// stage is where a story is played.
type stage struct {
	out     strings.Builder
	now     Boottime
	fresh   Nonce
	session Session
	n       [2]actor
	reg     register.Register
	asked   []asked
}

type actor struct {
	up     bool
	s      State
	disk   Record
	timers [TimerCount]Boottime
	inbox  []Message
	wire   Session // of the transport: the core may have dropped it in the step that sends
}

type asked struct {
	from Node
	e    Effect
}

func newStage() *stage {
	w := &stage{now: 100 * second, reg: register.Register{RID: register.ID{7}}}
	for i := range w.n {
		w.n[i].s.Cfg = durations(Node(i))
	}
	return w
}

var theFounding = Found{
	Site: ID{1}, Arb: Arb{ArbWitness, ID{7}},
	Owners: Owners{{A, 1}, {A, 1}, {A, 1}}, Legs: Legs{{Set: Both, Resource: 1, Version: 1}},
}

func (w *stage) command(f []string) error {
	if len(f) == 0 || f[0] == "#" {
		return nil
	}
	if len(f) > 1 && (f[1] == "a" || f[1] == "b") {
		return w.nodeCommand(f[0], Node(f[1][0]-'a'), f[2:])
	}
	switch f[0] {
	case "connect":
		w.session++
		for i := range w.n {
			w.n[i].inbox, w.n[i].wire = nil, w.session
		}
		w.step(A, Connected{w.session})
		w.step(B, Connected{w.session})
	case "deliver":
		w.deliver()
	case "beats":
		w.step(A, Beat{})
		w.step(B, Beat{})
		w.deliver()
	case "witness":
		if len(f) > 1 && f[1] == "lost" {
			w.asked = nil
		}
		w.witness(len(f) > 1 && f[1] == "mute")
	case "copy":
		w.step(A, CopyDone{Session: w.session, Digest: Digest{1}})
		w.step(B, CopyDone{Session: w.session, Digest: Digest{1}})
	case "wait":
		var seconds float64
		if _, err := fmt.Sscan(f[1], &seconds); err != nil {
			return err
		}
		w.wait(w.now + Boottime(seconds*float64(second)))
	default:
		return fmt.Errorf("unknown command %q", f[0])
	}
	return nil
}

func (w *stage) nodeCommand(verb string, id Node, args []string) error {
	n := &w.n[id]
	switch verb {
	case "boot":
		n.up = true
		w.step(id, Boot{n.disk})
	case "crash":
		w.n[id] = actor{s: State{Cfg: n.s.Cfg}, disk: n.disk}
	case "replace": // by a fresh node
		w.n[id] = actor{s: State{Cfg: n.s.Cfg}}
	case "resume":
		n.timers = [TimerCount]Boottime{}
		w.step(id, Resume{})
	case "lose":
		n.wire = 0
		w.step(id, PeerLost{n.s.Session})
	case "found":
		w.step(id, theFounding)
	case "one":
		w.deliverOne(id)
	case "drop":
		if len(n.inbox) == 0 {
			return fmt.Errorf("nothing to drop")
		}
		n.inbox = n.inbox[1:]
	case "copyfailed":
		w.step(id, CopyFailed{w.session})
	case "copydone":
		w.step(id, CopyDone{Session: w.session, Digest: Digest{1}})
	case "copyout": // the leg of this node is broken
		done := CopyDone{Session: w.session, Digest: Digest{1}}
		done.Out[id] = 1 << (args[0][0] - '0')
		w.step(A, done)
		w.step(B, done)
	case "want":
		var r ResourceID
		if _, err := fmt.Sscan(args[0], &r); err != nil {
			return err
		}
		w.step(id, Want{r})
	case "evidence":
		verdict := map[string]Verdict{"confirmed": Confirmed, "refused": Refused, "unknown": Unknown}[args[0]]
		w.step(id, FenceResult{n.s.Fence, verdict})
	case "powered":
		w.step(id, PeerPowered{args[0] == "ok"})
	default:
		return w.orderCommand(verb, id, args)
	}
	return nil
}

// orderCommand: what people, managers and duet-mirrord say.
func (w *stage) orderCommand(verb string, id Node, args []string) error {
	n := &w.n[id]
	number := 0
	if len(args) > 0 {
		_, _ = fmt.Sscan(args[0], &number) // words are not numbers
	}
	var e Event
	switch verb {
	case "leave":
		e = Leave{Waiting: len(args) > 0}
	case "move":
		e = Move{ResourceID(number)}
	case "drained":
		e = Drained{Resource: ResourceID(number), OK: len(args) < 2}
	case "arbiter":
		e = SetArbiter{map[string]ArbKind{"witness": ArbWitness, "fence": ArbFence}[args[0]]}
	case "peer-off":
		e = PeerOff{n.s.Rec.Ep}
	case "force":
		e = ForceSolo{PeerOff: true, Text: MakeText("admin: the hall is on fire")}
	case "document":
		e = ChangeDoc{DocSite, PairResource, DocRef{Ep: n.s.Rec.Ep, Version: uint64(number)}, false}
	case "record": // of the database; its writer owns resource 1
		e = ChangeDoc{DocDatabase, 1, DocRef{Ep: n.s.Rec.Ep, Version: uint64(number)}, len(args) == 2}
	case "leg-failed":
		e = LegFailed{VolumeSlot(number)}
	case "leg-synced":
		e = LegSynced{w.session, VolumeSlot(number), Digest{7}}
	default:
		return fmt.Errorf("unknown command %q", verb)
	}
	if why := n.s.Allows(e); why != Granted {
		fmt.Fprintf(&w.out, "%v refuses %s: %v\n", id, verb, why)
	}
	w.step(id, e)
	return nil
}

// step gives one event and does what it leads to.
func (w *stage) step(id Node, e Event) {
	n := &w.n[id]
	if !n.up {
		return
	}
	w.fresh++
	in := Input{w.now, w.fresh, e}
	after, effects := Step(n.s, in)
	if err := CheckStep(n.s, after, in, effects); err != nil {
		fmt.Fprintf(&w.out, "%v %v\n", id, err)
	}
	if err := CheckState(after); err != nil {
		fmt.Fprintf(&w.out, "%v %v\n", id, err)
	}
	n.s = after
	var words []string
	for _, x := range effects {
		if text := w.do(id, x); text != "" {
			words = append(words, text)
		}
	}
	if len(words) > 0 {
		fmt.Fprintf(&w.out, "%v %s: %s\n", id, eventWord(e), strings.Join(words, ", "))
	}
}

func (w *stage) do(id Node, e Effect) string {
	n, peer := &w.n[id], &w.n[id.Peer()]
	switch e := e.(type) {
	case Persist:
		n.disk = e.Record
		return "persist " + recordWord(e.Record)
	case Stop:
		if e.All {
			return "stop all"
		}
		return fmt.Sprintf("stop %03b", e.Resources&7)
	case Grant:
		return w.grantWord(e.Grant)
	case Revoke:
		return "revoke"
	case Send:
		if n.wire == w.session {
			peer.inbox = append(peer.inbox, e.Message)
		}
		switch e.Message.(type) {
		case BeatMsg, BeatAck:
			return ""
		}
		return "send " + strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e.Message), "membership."))
	case CloseSession:
		n.wire = 0
		return "close session"
	case AskWitness:
		w.asked = append(w.asked, asked{id, e})
		return fmt.Sprintf("ask (%d,%v)→(%d,%v)", e.Expected.Ep, e.Expected.Set, e.New.Ep, e.New.Set)
	case PushWitness:
		w.asked = append(w.asked, asked{id, e})
		return fmt.Sprintf("push %d", e.Ep)
	case CreateRegister:
		w.asked = append(w.asked, asked{id, e})
		return fmt.Sprintf("create (%d,%v)", e.Content.Ep, e.Content.Set)
	case Drain:
		return fmt.Sprintf("drain %03b", e.Resources&7)
	case Start:
		return fmt.Sprintf("start %d", e.Resource)
	case Fence:
		return "fence"
	case CancelFence:
		return "cancel fence"
	case PowerOnPeer:
		return "power on peer"
	case Copy:
		return "copy"
	case Arm:
		n.timers[e.Timer] = e.At
	case Report:
		return "[" + e.Report.String() + "]"
	}
	return ""
}

func (w *stage) grantWord(g GrantContent) string {
	text := fmt.Sprintf("grant %v %d", g.Mode, g.Epoch)
	if g.Prepared != 0 {
		text += fmt.Sprintf("+%d", g.Prepared)
	}
	if g.Session != 0 {
		text += " lanes"
	}
	switch {
	case g.Deadline == Expired:
		text += " expired"
	case g.Deadline != 0:
		text += fmt.Sprintf(" for %.1fs", float64(g.Deadline-w.now)/1e9)
	}
	return text
}

// changedWords is what orders have made different from a new site.
func changedWords(r Record) string {
	text := ""
	if r.Arb.Kind != ArbWitness && !r.Site.IsZero() {
		text += [...]string{", no arbiter", "", ", arbiter fence"}[r.Arb.Kind]
	}
	if r.Arb.Kind == ArbWitness && r.Arb.RID[0] > 7 {
		text += fmt.Sprintf(", register %d", r.Arb.RID[0])
	}
	if l := r.Legs[0]; l.Version > 1 {
		text += fmt.Sprintf(", volume 0 on %v", l.Set)
		if l.Pending {
			text += " and pending"
		}
	}
	if d, p := r.Docs[DocSite], r.Pending[DocSite]; d.Version+p.Version > 0 {
		text += fmt.Sprintf(", document %d, pending %d", d.Version, p.Version)
	}
	if d, p := r.Docs[DocDatabase], r.Pending[DocDatabase]; d.Version+p.Version > 0 {
		text += fmt.Sprintf(", record %d, pending %d", d.Version, p.Version)
	}
	if r.Forced.Counter != 0 {
		text += fmt.Sprintf(", forced from %d: %v", r.Forced.Ep, r.Forced.Text)
	}
	return text
}

func recordWord(r Record) string {
	text := fmt.Sprintf("%d%v", r.Ep, r.Members)
	if r.Prep.Ep != 0 {
		text += fmt.Sprintf("+%d", r.Prep.Ep)
	}
	if r.Fenced != 0 && r.Fenced == r.Ep {
		text += " fenced"
	}
	if !r.Consistent && !r.Site.IsZero() {
		text += " inconsistent"
	}
	return text
}

func eventWord(e Event) string {
	switch e := e.(type) {
	case Received:
		return "hears " + strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e.Message), "membership."))
	case Timer:
		return "timer " + [...]string{"arbitrate", "fence", "power-on", "prepare", "lease", "peer-wait", "repeat"}[e.Timer]
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "membership."))
}

func (w *stage) deliver() {
	for range 100 {
		if len(w.n[A].inbox)+len(w.n[B].inbox) == 0 {
			return
		}
		w.deliverOne(A)
		w.deliverOne(B)
	}
}

func (w *stage) deliverOne(id Node) {
	n := &w.n[id]
	if len(n.inbox) > 0 {
		m := n.inbox[0]
		n.inbox = n.inbox[1:]
		w.step(id, Received{w.session, m})
	}
}

func (w *stage) witness(mute bool) {
	pending := w.asked
	w.asked = nil
	for _, q := range pending {
		var r WitnessReply
		var done bool
		switch e := q.e.(type) {
		case AskWitness:
			r = WitnessReply{Op: OpCAS, Nonce: e.Nonce, RID: e.RID}
			if known := register.ID(e.RID) == w.reg.RID; known {
				w.reg, done, _ = w.reg.CAS(regContent(e.Expected), regContent(e.New))
			} else {
				r.Result = WitnessUnknown
			}
		case PushWitness:
			r = WitnessReply{Op: OpPush, Nonce: e.Nonce, RID: e.RID}
			w.reg, done, _ = w.reg.Push(register.Epoch(e.Ep))
		case CreateRegister: // the stage keeps the newest one only
			w.reg = register.Register{RID: register.ID{w.reg.RID[0] + 1}, Content: regContent(e.Content)}
			r = WitnessReply{Op: OpCreate, Nonce: e.Nonce, RID: ID(w.reg.RID)}
			done = true
		}
		if done {
			r.Result = WitnessOK
		}
		r.Register = RegisterContent{Epoch(w.reg.Content.Epoch), Set(w.reg.Content.Set)}
		if !mute {
			w.step(q.from, r)
		}
	}
}

func regContent(c RegisterContent) register.Content {
	return register.Content{Epoch: register.Epoch(c.Ep), Set: register.Set(c.Set)}
}

// wait lets time pass and timers fire.
func (w *stage) wait(until Boottime) {
	for range 1000 {
		id, timer := w.nextTimer(until)
		if timer == TimerCount {
			break
		}
		n := &w.n[id]
		w.now = max(w.now, n.timers[timer])
		n.timers[timer] = 0
		w.step(id, Timer{timer})
	}
	w.now = until
}

func (w *stage) nextTimer(until Boottime) (who Node, which TimerID) {
	which = TimerCount
	best := until + 1
	for i := range w.n {
		for k, at := range w.n[i].timers {
			if w.n[i].up && at != 0 && at < best {
				best, who, which = at, Node(i), TimerID(k)
			}
		}
	}
	return who, which
}

func (w *stage) summary() {
	for i := range w.n {
		n := &w.n[i]
		if !n.up {
			fmt.Fprintf(&w.out, "%v off, %s\n", Node(i), recordWord(n.disk))
			continue
		}
		owned := ""
		for r := range 3 {
			if n.s.Owns(ResourceID(r)) {
				owned += fmt.Sprintf(" %d", r)
			}
		}
		fmt.Fprintf(&w.out, "%v %v, %s, owns%s%s\n", Node(i), n.s.Mode, recordWord(n.disk), owned, changedWords(n.disk))
	}
	fmt.Fprintf(&w.out, "witness (%d,%v)\n", w.reg.Content.Epoch, Set(w.reg.Content.Set))
}
