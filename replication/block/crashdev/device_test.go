package crashdev

import (
	"bytes"
	"errors"
	"testing"

	"duet/replication/block"
	"duet/replication/block/internal/devicetest"
)

func TestDeviceConforms(t *testing.T) {
	devicetest.Run(t, func(*testing.T) block.Device { return New(devicetest.SizeBytes) })
}

func filled(n int, with byte) []byte {
	p := block.Alloc(n)
	for i := range p {
		p[i] = with
	}
	return p
}

func none(Pending) bool  { return false }
func every(Pending) bool { return true }

func first(t *testing.T, d *Device) byte {
	t.Helper()
	p := block.Alloc(block.Unit)
	if err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p[0]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCutKeepsWhatIsDurableAndOnlyThat(t *testing.T) {
	d := New(4 * block.Unit)
	must(t, d.WriteAt(filled(block.Unit, 1), 0, block.Cached))
	if got := first(t, d.CutPick(none)); got != 0 {
		t.Fatalf("cached write survived: %d", got)
	}
	if got := first(t, d.CutPick(every)); got != 1 {
		t.Fatalf("kept write is gone: %d", got)
	}
	must(t, d.Sync())
	if got := first(t, d.CutPick(none)); got != 1 {
		t.Fatalf("synced write lost: %d", got)
	}
	must(t, d.WriteAt(filled(block.Unit, 2), 0, block.Durable))
	if got := first(t, d.CutPick(none)); got != 2 {
		t.Fatalf("durable write lost: %d", got)
	}
	must(t, d.Zero(0, block.Unit, block.Durable))
	if got := first(t, d.CutPick(none)); got != 0 {
		t.Fatalf("durable zero lost: %d", got)
	}
}

// An older pending write must not come back over a newer durable one, and a Sync after it covers both.
func TestOlderPendingNeverOverwritesNewerDurable(t *testing.T) {
	d := New(block.Unit)
	must(t, d.WriteAt(filled(block.Unit, 1), 0, block.Cached))
	must(t, d.WriteAt(filled(block.Unit, 2), 0, block.Durable))
	if got := first(t, d.CutPick(every)); got != 2 {
		t.Fatalf("the past came back: %d", got)
	}
	must(t, d.Sync())
	if got := first(t, d.CutPick(none)); got != 2 {
		t.Fatalf("after sync: %d", got)
	}
}

func TestCutTearsAndReorders(t *testing.T) {
	d := New(2 * block.Unit)
	must(t, d.WriteAt(filled(block.Unit, 1), 0, block.Cached))
	must(t, d.WriteAt(filled(block.Unit, 2), block.Unit, block.Cached))
	if n := d.PendingWrites(); len(n) != 2 || n[0] != sectorsPerUnit {
		t.Fatalf("pending %v", n)
	}
	c := d.CutPick(func(p Pending) bool { return p.Write == 1 || p.Sector == 3 }).Contents()
	want := make([]byte, 2*block.Unit)
	copy(want[3*SectorBytes:], bytes.Repeat([]byte{1}, SectorBytes))
	copy(want[block.Unit:], bytes.Repeat([]byte{2}, block.Unit))
	if !bytes.Equal(c, want) {
		t.Fatal("cut is not what was picked")
	}
}

func TestSeedsReachEveryStyleAndRepeat(t *testing.T) {
	d := New(4 * block.Unit)
	for i := range int64(4) {
		must(t, d.WriteAt(filled(block.Unit, byte(1+i)), i*block.Unit, block.Cached))
	}
	seen := map[string]bool{}
	for seed := range uint64(50) {
		c := d.Cut(seed).Contents()
		if !bytes.Equal(c, d.Cut(seed).Contents()) {
			t.Fatalf("seed %d does not repeat", seed)
		}
		seen[string(c)] = true
	}
	if !seen[string(make([]byte, 4*block.Unit))] || !seen[string(d.Contents())] || len(seen) < 10 {
		t.Fatalf("only %d outcomes of 50 seeds", len(seen))
	}
}

// A cut inside a durable write may still lose or tear it; one after it may not.
func TestHookCutsInFlight(t *testing.T) {
	d := New(block.Unit)
	var during []byte
	d.Hook(func(op Op) error {
		if op.Kind == Write {
			c := d.CutPick(func(p Pending) bool { return p.Sector < 4 }).Contents()
			during = append(during, c[0], c[block.Unit-1])
		}
		return nil
	})
	must(t, d.WriteAt(filled(block.Unit, 1), 0, block.Durable))
	if !bytes.Equal(during, []byte{1, 0}) {
		t.Fatalf("in flight: %v", during)
	}
}

// A Sync covers what returned before it was called, not what is still in flight.
func TestSyncDoesNotCoverWhatIsInFlight(t *testing.T) {
	d := New(block.Unit)
	d.Hook(func(op Op) error {
		if op.Kind == Write {
			return d.Sync()
		}
		return nil
	})
	must(t, d.WriteAt(filled(block.Unit, 1), 0, block.Cached))
	if got := first(t, d.CutPick(none)); got != 0 {
		t.Fatal("a sync covered a write that had not returned")
	}
}

func TestFailNth(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		kind Kind
		call func(*Device) error
		dead bool
	}{
		{Read, func(d *Device) error { return d.ReadAt(block.Alloc(block.Unit), 0) }, false},
		{Write, func(d *Device) error { return d.WriteAt(block.Alloc(block.Unit), 0, block.Cached) }, true},
		{Zero, func(d *Device) error { return d.Zero(0, block.Unit, block.Durable) }, true},
		{Sync, func(d *Device) error { return d.Sync() }, true},
	} {
		d := New(block.Unit)
		d.FailNth(3, c.kind, boom)
		must(t, c.call(d))
		must(t, d.Sync()) // of another kind, except for Sync itself
		if c.kind != Sync {
			must(t, c.call(d))
		}
		if err := c.call(d); !errors.Is(err, boom) || errors.Is(err, block.ErrDead) != c.dead {
			t.Errorf("%s: third call: %v", c.kind, err)
		}
		if err := c.call(d); errors.Is(err, block.ErrDead) != c.dead {
			t.Errorf("%s: after it: %v", c.kind, err)
		}
	}
}

// What a failed write wrote may be there or not.
func TestFailedWriteMayHaveLanded(t *testing.T) {
	d := New(block.Unit)
	d.FailNth(1, Write, errors.New("boom"))
	if err := d.WriteAt(filled(block.Unit, 1), 0, block.Durable); err == nil {
		t.Fatal("no error")
	}
	if d.CutPick(none).Contents()[0] != 0 || d.CutPick(every).Contents()[0] != 1 {
		t.Fatal("outcome is certain")
	}
}
