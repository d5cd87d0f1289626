package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/build/lab"
	"duet/build/lab/control"
)

// Episode is one thing that happens to the site; it ends with the site paired and every leg in sync.
type Episode struct {
	Name string
	Play func(ctx context.Context, s *Site, r *Report) error
}

// Episodes of the demo, in its order: the VM begins on a.
func Episodes() []Episode {
	return []Episode{
		{"owner_cut_a", cutOwner("owner_cut_a")},
		{"owner_cut_b", cutOwner("owner_cut_b")},
		{"peer_cut", cutPeer("peer_cut")},
		{"witness_stopped", stopWitness},
		{"link_cut", cutLink},
	}
}

// Play runs one episode under load and then gives the verdict.
func (s *Site) Play(ctx context.Context, e Episode, r *Report) error {
	s.Say("%s", e.Name)
	owner, err := s.Owner(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := s.probe.start(owner); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := s.waitAcks(ctx); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := e.Play(ctx, s, r); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := s.WaitSafe(ctx); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := s.verdict(ctx, r); err != nil {
		return fmt.Errorf("%s: verdict: %w", e.Name, err)
	}
	return nil
}

// waitAcks waits until the probe is really writing: an episode without load proves nothing.
func (s *Site) waitAcks(ctx context.Context) error {
	before := -1
	return s.wait(ctx, "the probe's acknowledgements", takeoverLimit, func() (bool, string) {
		h, err := s.probe.peek()
		if err != nil {
			return false, err.Error()
		}
		if before < 0 {
			before = len(h.Acks)
		}
		return len(h.Acks) > before+10, fmt.Sprintf("%d acknowledged", len(h.Acks))
	})
}

// cutOwner pulls the power of the node that runs everything.
func cutOwner(name string) func(context.Context, *Site, *Report) error {
	return func(ctx context.Context, s *Site, r *Report) error {
		owner, err := s.Owner(ctx)
		if err != nil {
			return err
		}
		survivor := other(owner)
		bootsBefore, err := s.console(survivor)
		if err != nil {
			return err
		}
		s.Say("  pulling both power cords of node %s, which runs %s", owner, VMName)
		if err := s.Lab.Cut(ctx, owner); err != nil {
			return err
		}
		if err := s.takenOver(ctx, name, owner, survivor, len(bootsBefore.Resumes), r); err != nil {
			return err
		}
		return s.rejoin(ctx, name, owner, survivor, r)
	}
}

// takenOver waits until the survivor's guest counts on, and looks for losses.
func (s *Site) takenOver(ctx context.Context, name, dead, survivor string, boots int, r *Report) error {
	if err := s.probe.collect(ctx); err != nil {
		return err
	}
	acked, err := s.console(dead)
	if err != nil {
		return err
	}
	if err := s.wait(ctx, VMName+" on "+survivor, takeoverLimit, func() (bool, string) {
		st, err := s.Status(ctx, survivor)
		if err != nil {
			return false, err.Error()
		}
		return s.runsOn(ctx, survivor), st.Mode + ": " + st.Sentence
	}); err != nil {
		return err
	}
	if err := s.vmStarting(ctx, name, dead, survivor, r); err != nil {
		return err
	}
	s.Say("  %s is starting on %s after %d ms", VMName, survivor, r.VMStartingMS[name])
	if err := s.wait(ctx, "the guest's boot on "+survivor, guestLimit, func() (bool, string) {
		now, err := s.console(survivor)
		return err == nil && len(now.Resumes) > boots && now.LastAck > acked.LastAck,
			fmt.Sprintf("counter %d on %s, %d before on %s", now.LastAck, survivor, acked.LastAck, dead)
	}); err != nil {
		return err
	}
	now, err := s.console(survivor)
	if err != nil {
		return err
	}
	s.lost(r, GuestLoss(acked.LastAck, now, boots))
	s.Say("  the guest found counter %d (acknowledged before: %d) and goes on", now.Resumes[len(now.Resumes)-1], acked.LastAck)
	lost, err := s.probe.lost(ctx, survivor)
	if err != nil {
		return err
	}
	s.lost(r, lost)
	return s.probe.start(survivor)
}

// runsOn says by ground truth whether a QEMU process of some VM lives on node.
func (s *Site) runsOn(ctx context.Context, node string) bool {
	truth, err := s.Lab.Truth(ctx)
	if err != nil {
		return false
	}
	for _, processes := range truth.VMs {
		if slices.ContainsFunc(processes, func(p control.VMProc) bool { return p.Machine == node }) {
			return true
		}
	}
	return false
}

// vmStarting measures from the cut to the VM's process, both seen by the lab.
func (s *Site) vmStarting(ctx context.Context, name, dead, survivor string, r *Report) error {
	truth, err := s.Lab.Truth(ctx)
	if err != nil {
		return err
	}
	cut, started := int64(-1), int64(-1)
	for _, e := range truth.Events {
		switch {
		case e.Kind == "power-cut" && e.Machine == dead:
			cut, started = e.TimeMS, -1
		case e.Kind == "vm-start" && e.Machine == survivor && cut >= 0 && started < 0:
			started = e.TimeMS
		}
	}
	if cut < 0 || started < 0 {
		return errors.New("the lab did not see the cut and the start")
	}
	r.VMStartingMS[name] = max(r.VMStartingMS[name], started-cut)
	return nil
}

// rejoin plugs the dead node in again and waits until it counts as in sync.
func (s *Site) rejoin(ctx context.Context, name, dead, survivor string, r *Report) error {
	s.Say("  power cords of node %s are in again", dead)
	if err := s.Lab.On(ctx, dead); err != nil {
		return err
	}
	if err := s.wait(ctx, "node "+dead+" in sync", rejoinLimit, func() (bool, string) { return s.paired(ctx) }); err != nil {
		return err
	}
	return s.noteCopy(ctx, name, survivor, r)
}

// noteCopy reports what the source of the last copy did.
func (s *Site) noteCopy(ctx context.Context, name, source string, r *Report) error {
	st, err := s.Status(ctx, source)
	if err != nil {
		return err
	}
	r.ResyncBytes[name], r.DigestBytes[name], r.DirtyBytes[name] = 0, 0, 0
	for _, v := range st.Volumes {
		r.ResyncBytes[name] += v.ResyncBytes
		r.DigestBytes[name] += v.DigestBytes
		r.DirtyBytes[name] += v.CopyDirtyBytes
	}
	s.Say("  in sync by proof: %d bytes marked dirty, %d sent, %d digested",
		r.DirtyBytes[name], r.ResyncBytes[name], r.DigestBytes[name])
	return nil
}

// cutPeer pulls the power of the node that runs nothing: the owner's disks must stall only shortly.
func cutPeer(name string) func(context.Context, *Site, *Report) error {
	return func(ctx context.Context, s *Site, r *Report) error {
		owner, err := s.Owner(ctx)
		if err != nil {
			return err
		}
		peer := other(owner)
		s.Say("  pulling both power cords of node %s, which runs nothing", peer)
		from := time.Now()
		if err := s.Lab.Cut(ctx, peer); err != nil {
			return err
		}
		if err := s.waitMode(ctx, owner, "solo"); err != nil {
			return err
		}
		if err := s.waitAcks(ctx); err != nil {
			return err
		}
		if err := s.noteStall(name, from, r); err != nil {
			return err
		}
		return s.rejoin(ctx, name, peer, owner, r)
	}
}

func (s *Site) waitMode(ctx context.Context, node, mode string) error {
	return s.wait(ctx, node+" "+mode, takeoverLimit, func() (bool, string) {
		st, err := s.Status(ctx, node)
		if err != nil {
			return false, err.Error()
		}
		return st.Mode == mode, st.Mode + ": " + st.Sentence
	})
}

func (s *Site) noteStall(name string, from time.Time, r *Report) error {
	h, err := s.probe.peek()
	if err != nil {
		return err
	}
	stall := h.Stall(from, time.Now())
	r.IOStallMS[name] = max(r.IOStallMS[name], stall.Milliseconds())
	s.Say("  the longest write of the surviving owner took %d ms", stall.Milliseconds())
	return nil
}

// witnessless is how long the pair runs without its witness: several times any timer of the protocol.
const witnessless = 8 * time.Second

// stopWitness takes the third vote away: nothing may happen.
func stopWitness(ctx context.Context, s *Site, r *Report) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	before, err := s.Status(ctx, owner)
	if err != nil {
		return err
	}
	from := time.Now()
	if err := s.Lab.WitnessStop(ctx); err != nil {
		return err
	}
	s.Say("  witness stopped; nothing may happen for %.0f s", witnessless.Seconds())
	if err := s.witnessSeen(ctx, false); err != nil {
		return err
	}
	if err := s.wait(ctx, "the end of the quiet time", witnessless+5*time.Second, func() (bool, string) {
		return time.Since(from) > witnessless, ""
	}); err != nil {
		return err
	}
	after, err := s.Status(ctx, owner)
	if err != nil {
		return err
	}
	if after.Mode != "paired" || after.Epoch != before.Epoch || after.Session != before.Session {
		return fmt.Errorf("something happened: %s epoch %d, was %s epoch %d", after.Mode, after.Epoch, before.Mode, before.Epoch)
	}
	if err := s.noteStall("witness_stopped", from, r); err != nil {
		return err
	}
	if err := s.Lab.WitnessStart(ctx); err != nil {
		return err
	}
	return s.witnessSeen(ctx, true)
}

// witnessSeen waits until both nodes say that they reach the witness, or that they do not.
func (s *Site) witnessSeen(ctx context.Context, want bool) error {
	for _, node := range []string{lab.A, lab.B} {
		if err := s.wait(ctx, fmt.Sprintf("witness reached: %v, said by %s", want, node), takeoverLimit, func() (bool, string) {
			st, err := s.Status(ctx, node)
			return err == nil && st.Witness.Reached == want, st.Sentence
		}); err != nil {
			return err
		}
	}
	return nil
}

// cutLink cuts every way from node to node with both alive: exactly one may go on.
func cutLink(ctx context.Context, s *Site, r *Report) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	s.Say("  cutting every path between the nodes; both live and reach the witness")
	from := time.Now()
	if err := s.Lab.LinkCut(ctx, "all"); err != nil {
		return err
	}
	winner, err := s.winner(ctx)
	if err != nil {
		return err
	}
	s.Say("  node %s goes on alone", winner)
	if winner == owner {
		if err := s.waitAcks(ctx); err != nil {
			return err
		}
		if err := s.noteStall("link_cut", from, r); err != nil {
			return err
		}
	} else if err := s.wait(ctx, VMName+" on "+winner, takeoverLimit, func() (bool, string) {
		return s.runsOn(ctx, winner), "not running there"
	}); err != nil {
		return err
	}
	if err := s.neverSolo(other(winner), from); err != nil {
		return err
	}
	if err := s.Lab.LinkRestore(ctx, "all"); err != nil {
		return err
	}
	s.Say("  paths are back")
	if err := s.wait(ctx, "both paired again", rejoinLimit, func() (bool, string) { return s.paired(ctx) }); err != nil {
		return err
	}
	return s.noteCopy(ctx, "link_cut", winner, r)
}

// winner waits until exactly one node is solo, and fails if both are at that moment. Later, neverSolo judges the other.
func (s *Site) winner(ctx context.Context) (string, error) {
	var winner string
	both := false
	err := s.wait(ctx, "one node solo", takeoverLimit, func() (bool, string) {
		var solo, modes []string
		for _, node := range []string{lab.A, lab.B} {
			st, err := s.Status(ctx, node)
			if err != nil { // fenced, perhaps: it does not serve
				modes = append(modes, err.Error())
				continue
			}
			modes = append(modes, node+" "+st.Mode)
			if st.Mode == "solo" {
				solo = append(solo, node)
			}
		}
		both = both || len(solo) == 2
		if len(solo) == 1 {
			winner = solo[0]
		}
		return len(solo) > 0, strings.Join(modes, ", ")
	})
	if both {
		return "", errors.New("both nodes went solo")
	}
	return winner, err
}

// neverSolo judges the node that did not win, over the whole time since a moment and by its own log: a look now and then
// would miss a node that was solo for an instant, or became it after the other.
func (s *Site) neverSolo(node string, since time.Time) error {
	modes, err := s.modes(node)
	if err != nil {
		return err
	}
	if err := soloSince(modes, since); err != nil {
		return fmt.Errorf("node %s, which did not win: %w", node, err)
	}
	return nil
}

func soloSince(modes []modeChange, since time.Time) error {
	if len(modes) == 0 {
		return errors.New("its log names no mode at all: nothing was seen")
	}
	for _, c := range modes {
		if c.mode == "solo" && c.at.After(since) {
			return fmt.Errorf("both nodes went solo, this one %.1f s after the fault", c.at.Sub(since).Seconds())
		}
	}
	return nil
}

func (s *Site) lost(r *Report, complaints []string) {
	for _, c := range complaints {
		s.Say("  LOST: %s", c)
	}
	r.LostWrites += len(complaints)
}
