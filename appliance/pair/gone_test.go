package pair

import (
	"context"
	"sync"
	"testing"
	"time"

	"duet/replication/control"
)

// Proves: protocol.md R14, R17. A new duet-mirrord is granted nothing before the core knows that the one before is gone:
// that one may have reported a copy, and with it held the writes that the old grant would let the new one acknowledge.
func TestNothingIsGrantedBeforeTheLossIsKnown(t *testing.T) {
	r := newRig(t)
	d, _, _ := r.run(nil)
	until(t, "solo", func() bool { return r.mirror.mode() == control.Solo })
	slow, busy := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(slow) })
	defer release()                                   // a test that fails here must not wait for itself
	d.post(input{do: func() { close(busy); <-slow }}) // a slow disk under the loop
	await(t, "the busy loop", busy)
	before := d.mirror.current()
	other, err := control.Dial(context.Background(), r.path("mirrord.sock")) // takes over: the driver's connection ends
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	until(t, "the end of the connection", func() bool { return d.mirror.current() != before })
	early := time.After(10 * redialFirst)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-early:
			waiting = false
		case <-tick.C:
			if d.mirror.current() != nil {
				t.Fatal("granted while the core still counts on the process before")
			}
		}
	}
	release()
	until(t, "the connection", func() bool { return d.mirror.current() != nil })
	r.sane()
}
