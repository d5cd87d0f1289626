package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"duet/appliance/api"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/outlook"
	"duet/appliance/pair"
	"duet/appliance/pair/peerlink"
	"duet/appliance/site"
	"duet/appliance/vms"
	"duet/replication/control"
)

// Ages beyond which a fact is stale, and stale is unknown.
const (
	witnessStale = 75 * time.Second // two questions and a half
	guestsStale  = 10 * time.Second
	statusWait   = 2 * time.Second // for duet-mirrord; its answer takes microseconds
)

// facts are what this node knows at one moment. Everything shown follows from them.
type facts struct {
	view     pair.View
	now      membership.Boottime
	doc      site.Document
	founded  bool
	runtime  site.Runtime
	paths    []peerlink.PathStatus
	mirror   control.Status
	mirrorUp bool
	witness  witnessSeen
	fence    []pathSeen
	toSelf   []published // how the paths to this node stand, as the peer says
	selfTold bool
	guests   []vms.Seen
	running  []vms.Process
	began    time.Time
}

func (n *Node) observe(ctx context.Context) facts {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	f := facts{
		view: n.driver.View(), now: membership.Boottime(boottime.Now()), runtime: n.store.Runtime(), paths: n.driver.Paths(),
	}
	f.doc, f.founded = n.document()
	f.mirror, f.mirrorUp = n.driver.MirrorStatus(ctx)
	f.witness = n.watch.seen()
	if fencer := n.fencerNow(); fencer != nil {
		f.fence = fencer.paths()
		f.toSelf, f.selfTold = fencer.proof.fromPeer()
	}
	f.running, _ = n.vms.Running() //nolint:errcheck // an error shows as no VM; LibvirtDown and the kill paths tell more
	n.guests.mu.Lock()
	if time.Since(n.guests.seenAt) < guestsStale {
		f.guests = n.guests.seen
	}
	n.guests.mu.Unlock()
	n.mu.Lock()
	f.began = n.began
	n.mu.Unlock()
	return f
}

// Site is the whole status.
func (n *Node) Site(ctx context.Context) (api.Site, error) {
	f := n.observe(ctx)
	st := f.view.State
	s := api.Site{
		Name: f.doc.Name, SiteID: f.doc.SiteID, Node: n.self.String(), Mode: modeWord(st), WaitsFor: n.waitsFor(f),
		Epoch: uint64(st.Rec.Ep), Members: members(st.Rec.Members), Setup: n.setupState(),
		Nodes: n.nodes(f), Witness: n.witnessFacts(f), Fence: n.fenceFacts(f), Volumes: n.volumes(f), VMs: n.guestFacts(f),
		ObservedAt: time.Now(), BootID: n.bootID, BoottimeMS: int64(f.now) / int64(time.Millisecond), LeaseMS: -1,
		Moments: []api.Moment{}, Faults: []api.Fault{},
	}
	if f.founded {
		s.PairOwner = st.Rec.Owners[membership.PairResource].Node.String()
	}
	if st.Session != 0 {
		s.Session = fmt.Sprintf("%016x", uint64(st.Session))
	}
	if f.now < st.Lease {
		s.LeaseMS = int64(st.Lease-f.now) / int64(time.Millisecond)
	}
	for _, m := range n.driver.Moments() {
		s.Moments = append(s.Moments, api.Moment{What: m.What, Detail: m.Detail, BoottimeMS: m.BoottimeMS, Wall: m.Wall})
	}
	s.Link, s.FlightRecorder = n.linkFacts(), n.flightFacts()
	n.judge(f, &s)
	s.Faults = n.faultFacts(f)
	return s, nil
}

// judge lets the outlook say what the site can lose right now.
func (n *Node) judge(f facts, s *api.Site) {
	st := f.view.State
	of := outlook.Facts{
		Site: f.doc.Name, Founded: f.founded, Complete: f.runtime.SetupComplete, Self: n.self.String(), Mode: outlookMode(st),
		Peer: st.Session != 0 && st.Peer.Hello, PeerOff: st.Mode == membership.Solo && st.Rec.Fenced == st.Rec.Ep,
		WaitsFor: s.WaitsFor, CopyParts: copyPercent(f.mirror),
		Arbiter: outlookArbiter(st.Rec.Arb.Kind), PairOwner: s.PairOwner,
		Witness: outlook.Witness{Configured: s.Witness.Configured, Reached: s.Witness.Reached, Confirmed: s.Witness.Confirmed, PeerReached: n.arbiter.peerReaches()},
		Left:    n.left.Load() && st.Session == 0, PeerLeft: n.hasLeft(f),
	}
	if n.forcedAlone(f) {
		of.Forced = st.Rec.Forced.Text.String()
	}
	peerFence, selfFence := n.fenceWays(f)
	of.FenceA, of.FenceB = selfFence, peerFence
	if n.self == membership.B {
		of.FenceA, of.FenceB = peerFence, selfFence
	}
	for _, v := range s.Volumes {
		of.Volumes = append(of.Volumes, outlook.Volume{
			Name: v.Name, InSyncA: slices.Contains(v.InSync, "a"), InSyncB: slices.Contains(v.InSync, "b"),
		})
	}
	for _, v := range s.VMs {
		of.VMs = append(of.VMs, outlook.VM{Name: v.Name, Desired: v.Desired == "running", Running: v.State == "running"})
	}
	of.Database = n.db.outlook()
	view := outlook.Judge(of)
	s.Word, s.Sentence, s.Next = view.Word, view.Sentence, view.Next
	s.Losses = []api.Loss{}
	for _, l := range view.Losses {
		s.Losses = append(s.Losses, api.Loss{Of: l.Of, Survived: l.Survived, Consequence: l.Consequence})
	}
}

func outlookArbiter(k membership.ArbKind) outlook.Arbiter {
	return [...]outlook.Arbiter{outlook.ByNobody, outlook.ByWitness, outlook.ByFencing}[k]
}

// hasLeft: the latch that it wrote before it left says so, until it has joined again.
func (n *Node) hasLeft(f facts) bool {
	return f.runtime.Latched[n.peer().String()].By == byLeave && f.view.State.Mode == membership.Solo
}

// forcedAlone: the mark in the record stays over the join; the one in the runtime document ends with it. The latch of the
// peer says nothing: a person may lift it and let the peer come.
func (n *Node) forcedAlone(f facts) bool {
	return f.view.State.Mode == membership.Solo && f.view.State.Rec.Forced.Counter != 0 && f.runtime.Forced
}

func modeWord(st membership.State) string {
	switch st.Mode {
	case membership.Init:
		return "starting"
	case membership.Resolving:
		return "frozen"
	default: // the others as below
	}
	return st.Mode.String()
}

func outlookMode(st membership.State) outlook.Mode {
	switch st.Mode {
	case membership.Joining:
		return outlook.Joining
	case membership.Resolving:
		return outlook.Resolving
	case membership.Frozen:
		return outlook.Frozen
	case membership.Paired:
		if st.Prepared() {
			return outlook.Prepared
		}
		return outlook.Paired
	case membership.Solo:
		return outlook.Solo
	default: // the others as below
	}
	return outlook.Starting
}

// waitsFor says in words what a node that does not serve waits for, and until when.
func (n *Node) waitsFor(f facts) string {
	st := f.view.State
	peer := "node " + n.peer().String()
	switch st.Mode {
	case membership.Joining:
		return "the copy from " + peer
	case membership.Resolving:
		return "the comparison of both copies"
	case membership.Paired, membership.Solo:
		return ""
	default: // nothing for the others
	}
	switch {
	case !f.founded:
		return ""
	case st.Session != 0:
		return peer // they talk: what follows from it is a matter of moments
	}
	if n.left.Load() {
		return "the order to return"
	}
	at := f.view.Timers[membership.TimerArbitrate]
	switch {
	case st.Rec.Arb.Kind == membership.ArbFence && st.Mode == membership.Frozen && st.PairedHere && st.Rec.Consistent:
		return "evidence that " + peer + " is off, the link, or a person" // R21b
	case st.Rec.Arb.Kind != membership.ArbWitness && st.Rec.Members == membership.Both && st.Rec.Consistent:
		return peer + " or a person" // R21c: it may have gone on alone
	case st.Rec.Arb.Kind != membership.ArbWitness || !st.Rec.Consistent || !st.Rec.Members.Has(n.self) && st.Rec.Prep.Ep == 0:
		return peer
	case st.Ask.Nonce != 0:
		return "the witness or " + peer
	case at > f.now:
		return fmt.Sprintf("%s, for %d s more, then the witness", peer, int64(at-f.now)/int64(time.Second)+1)
	}
	return "the witness or " + peer
}

func members(s membership.Set) []string {
	out := []string{}
	for _, m := range []membership.Node{membership.A, membership.B} {
		if s.Has(m) {
			out = append(out, m.String())
		}
	}
	return out
}

func (n *Node) nodes(f facts) []api.Node {
	st := f.view.State
	self := api.Node{Node: n.self.String(), Self: true, Reached: true, Mode: modeWord(st), BootID: n.bootID}
	peer := api.Node{Node: n.peer().String(), Reached: st.Session != 0, LastAck: -1, DataPath: f.view.LanePath}
	if st.Session != 0 {
		peer.Since = f.began
	}
	switch {
	case st.Committed() && st.Peer.Ep == st.Rec.Ep && st.Peer.Prep == 0:
		peer.Mode = "paired"
	case st.Mode == membership.Solo && st.Copy != membership.CopyIdle:
		peer.Mode = "joining"
	}
	for _, p := range f.paths {
		age := int64(-1)
		if p.AckAge >= 0 {
			age = p.AckAge.Milliseconds()
			if peer.LastAck < 0 || age < peer.LastAck {
				peer.LastAck = age
			}
		}
		peer.Paths = append(peer.Paths, api.Path{Name: p.Name, Up: p.Connected, AgeMS: age})
	}
	if n.self == membership.B {
		return []api.Node{peer, self}
	}
	return []api.Node{self, peer}
}

func (n *Node) witnessFacts(f facts) api.Witness {
	st := f.view.State
	w := api.Witness{Configured: f.doc.Witness != nil, AgeMS: -1, ForMS: -1, Arbiter: arbiterWord(st.Rec.Arb.Kind)}
	if st.Change.Number != 0 {
		w.Changing = arbiterWord(st.Change.Target.Kind)
	}
	if st.Create.Nonce != 0 {
		w.Changing = arbiterWord(membership.ArbWitness)
	}
	if f.doc.Former != nil {
		w.Former = f.doc.Former.Address
	}
	rid := membership.ID{}
	if st.Rec.Arb.Kind == membership.ArbWitness {
		rid = st.Rec.Arb.RID
		w.Register = fmt.Sprintf("%x", rid)
	}
	if !w.Configured {
		return w
	}
	w.Address, w.Key = f.doc.Witness.Address, f.doc.Witness.Key
	w.Reached = f.witness.ok && time.Since(f.witness.answered) < witnessStale
	w.Known = w.Reached && !rid.IsZero() && !f.witness.forgets(rid)
	w.Confirmed = !rid.IsZero() && st.Push.Nonce == 0 && !st.Committing && !f.witness.forgets(rid)
	if since := n.arbiter.reachFor(); since >= 0 {
		w.ForMS = since.Milliseconds()
	}
	if !f.witness.answered.IsZero() {
		w.AgeMS, w.RTTMS = time.Since(f.witness.answered).Milliseconds(), f.witness.rtt.Milliseconds()
	}
	return w
}

func (n *Node) volumes(f facts) []api.Volume {
	st := f.view.State
	out := []api.Volume{}
	for _, r := range f.doc.Resources() {
		for _, v := range r.Volumes {
			a := api.Volume{
				Name: v.Name, ID: v.ID, SizeBytes: v.SizeBytes, Owner: st.Rec.Owners[r.Slot].Node.String(), Stage: "unknown",
				InSync: members(st.Rec.Legs[v.Slot].Set & st.Rec.Members),
			}
			if r.VM != nil {
				a.UsedBy = r.VM.Name
			}
			for _, m := range f.mirror.Volumes {
				if m.ID == v.ID {
					mirrorFacts(&a, m, f.mirror.Held)
				}
			}
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b api.Volume) int { return slot(f.doc, a.Name) - slot(f.doc, b.Name) })
	return out
}

func slot(doc site.Document, name string) int {
	v, _ := doc.VolumeByName(name)
	return v.Slot
}

func mirrorFacts(a *api.Volume, m control.VolumeStatus, held bool) {
	a.Stage, a.Leg, a.Generation = m.Stage, m.LegState, m.Generation
	a.Held, a.HeldOps, a.DirtyBytes = held || m.Stage == "held", m.HeldOps, m.DirtyBytes
	a.CopyDirtyBytes = m.Copy.DirtyBytes
	a.ResyncBytes, a.DigestBytes, a.RemainingBytes = m.Copy.ResyncBytes, m.Copy.DigestBytes, m.Copy.RemainingBytes
	a.ProvenEpoch, a.LastStallMS = m.ProvenEpoch, m.LastStallMS
	a.RepairedBlocks, a.DamagedBlocks = m.RepairedBlocks, m.DamagedBlocks
	a.Scrub = api.Scrub{
		Running: m.Scrub.Running || m.Scrub.Ordered, DoneBytes: m.Scrub.DoneBytes, Passes: m.Scrub.Passes, AgeSeconds: -1,
		Why: m.Scrub.Why, PeerRepaired: m.Scrub.PeerRepaired, Different: m.Scrub.Different,
	}
	if m.Scrub.Ended > 0 {
		a.Scrub.AgeSeconds = (boottime.Now() - m.Scrub.Ended) / int64(time.Second)
	}
}

func copyPercent(s control.Status) int {
	var total, left int64
	for _, v := range s.Volumes {
		if v.Copy.Running {
			total += v.Copy.DirtyBytes
			left += v.Copy.RemainingBytes
		}
	}
	if total <= 0 {
		return -1
	}
	return int((total - min(left, total)) * 100 / total)
}

func (n *Node) guestFacts(f facts) []api.VM {
	st := f.view.State
	out := []api.VM{}
	for _, vm := range f.doc.VMs {
		a := api.VM{
			Name: vm.Name, ID: vm.ID, Desired: "running", State: "stopped", Owner: st.Rec.Owners[vm.Slot].Node.String(),
			MemoryMiB: vm.MemoryMiB, VCPUs: vm.VCPUs, Disks: vm.Disks,
		}
		if f.runtime.StoppedVMs[vm.ID] {
			a.Desired = "stopped"
		}
		owner := st.Rec.Owners[vm.Slot].Node
		switch {
		case owner != n.self && st.Mode != membership.Solo:
			a.State, a.Why = "unknown", "it belongs to node "+owner.String()
			if st.Committed() && a.Desired == "running" {
				a.State, a.Why = "running", "on node "+owner.String()+", as its owner is told"
			}
		case slices.ContainsFunc(f.running, func(p vms.Process) bool { return p.ID == vm.ID }):
			a.State = guestState(vm.ID, f.guests)
		}
		if a.Desired == "running" && a.State == "stopped" {
			a.Why = n.whyStopped(f)
		}
		out = append(out, a)
	}
	return out
}

func guestState(id string, seen []vms.Seen) string {
	for _, s := range seen {
		if s.ID == id && (s.State == vms.Paused || s.State == vms.PausedOnError) {
			return "paused"
		}
	}
	return "running"
}

func (n *Node) whyStopped(f facts) string {
	st := f.view.State
	switch {
	case !f.runtime.SetupComplete:
		return "setup is not complete"
	case st.Mode == membership.Solo && !st.PeerStopped(f.now):
		return fmt.Sprintf("node %v may still run it, for %d s more without evidence", n.peer(), int64(st.PeerWait-f.now)/int64(time.Second)+1)
	case st.Mode != membership.Solo && !st.Committed():
		return "this node may not run anything now"
	}
	return "it is being started"
}
