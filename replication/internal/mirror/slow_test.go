package mirror

import (
	"fmt"
	"sync"
	"testing"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/meta"
)

// stall makes requests of a kind to the data of a leg, or to its metadata, hang until letGo.
func (d *drive) stall(kind crashdev.Kind, ofMeta bool) (letGo func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	devices := d.data
	if ofMeta {
		devices = d.meta
	}
	stop := make(chan struct{})
	for _, dev := range devices {
		dev.Hook(func(op crashdev.Op) error {
			if op.Kind&kind != 0 {
				<-stop
			}
			return nil
		})
	}
	return sync.OnceFunc(func() { close(stop) })
}

// Proves: replication.md 9.6; protocol.md R23, R24: a leg that hangs without an error, on either node and in each way, is taken out
// with its reason; no client gets an error, on either node, and nothing that was acknowledged is lost. It comes back by order only.
func TestAHangingLegIsTakenOut(t *testing.T) {
	for _, bad := range []control.Node{0, 1} {
		for _, kind := range []crashdev.Kind{crashdev.Write, crashdev.Sync, crashdev.Read} {
			if kind == crashdev.Read && bad == 1 {
				continue // nothing reads a leg that does not coordinate
			}
			t.Run(fmt.Sprintf("%c-%s", 'a'+bad, kind), func(t *testing.T) { t.Parallel(); legHangs(t, bad, kind, false) })
		}
		t.Run(fmt.Sprintf("%c-log", 'a'+bad), func(t *testing.T) { t.Parallel(); legHangs(t, bad, crashdev.Write, true) })
	}
}

func legHangs(t *testing.T, bad control.Node, kind crashdev.Kind, ofMeta bool) {
	p := servedPair(t, 64<<20)
	x, s := p.nodes[bad], p.nodes[1-bad]
	writers, end := p.load(0, 1)
	p.progress(writers)
	letGo := x.drive.stall(kind, ofMeta)
	defer letGo()
	if ofMeta {
		go func() { // a cold extent needs the log
			_ = s.vol().WriteAt(t.Context(), fill(block.Unit, 1), 48<<20, false) //nolint:errcheck // held, and ended with the test
		}()
	}
	x.awaitEvent("the reason", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2023" })
	x.awaitEvent("leg failed", func(e control.Event) bool { return e.LegFailed != nil && e.LegFailed.Volume == testVolume })
	p.paired(1, 11, 0, 1<<s.node, 2, 1, 0)
	p.progress(writers)
	x.awaitStage("remote")
	s.awaitStage("alone")
	if st := x.vol().Status(); st.LegState != "ejected" {
		t.Errorf("the leg is %s", st.LegState)
	}
	id, _ := parseID(testVolume) // a constant
	await(t, "the record of it", func() bool {
		if ofMeta {
			return true // the record hangs, too
		}
		m, err := meta.Open(x.drive.meta[id].CutPick(func(crashdev.Pending) bool { return false }))
		return err == nil && m.Super().State == meta.Ejected
	})
	// While its disk still hangs it cannot be made anew: what comes late must not come over it.
	if !ofMeta {
		if err := x.m.Readmit(testVolume); err != nil {
			t.Error(err)
		}
		x.awaitEvent("the refusal", func(e control.Event) bool { return e.Fault != nil && e.Fault.Code == "REPL-2022" })
	}
	letGo()
	await(t, "a new leg", func() bool { // which is inconsistent until the copy has ended, so perhaps for no time that a test sees
		state := x.vol().Status().LegState
		return x.m.Readmit(testVolume) != nil && (state == "inconsistent" || state == "uptodate")
	})
	isSynced := func(e control.Event) bool { return e.LegSynced != nil && e.LegSynced.Session == 11 }
	s.awaitEvent("synced", isSynced)
	x.awaitEvent("synced", isSynced)
	p.paired(1, 11, 0, 3, 3, s.node, x.node)
	p.progress(writers)
	end()
	for _, h := range p.nodes {
		h.awaitStage("paired")
	}
	p.sameLegs()
	for i, w := range writers {
		w.check(t, fmt.Sprintf("node %c", 'a'+i), p.nodes[i].read)
	}
}
