package scenario

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/build/lab"
)

// moves of the VM in TestMoves: back and forth, so that each node gives and takes.
const moves = 4

// TestMoves orders the counting guest from node to node while another volume is written under load: each move is a
// power cut for the guest and nothing else. Its history must be whole, it must never run twice, and the legs must be
// equal at the end.
//
// Proves: protocol.md R22 with real daemons and a real guest.
func TestMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("brings up a whole site; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	started := time.Now()
	say := func(format string, args ...any) {
		t.Logf("%6.1f s  %s", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	s, err := Up(ctx, lab.Options{Name: "test-moves", State: state(t, "test-moves"), Bin: binaries(t)}, say)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
	})
	writer, err := s.Owner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.probe.start(writer); err != nil {
		t.Fatal(err)
	}
	if err := s.waitAcks(ctx); err != nil {
		t.Fatal(err)
	}
	r := NewReport()
	for k := range moves {
		if err := s.moveVM(ctx, k); err != nil {
			t.Fatal(err)
		}
		if err := s.guestVerdict(r); err != nil || !r.Safe() {
			t.Fatalf("move %d: %v, %+v", k, err, r)
		}
	}
	if err := s.probe.collect(ctx); err != nil {
		t.Fatal(err)
	}
	if h := s.probe.history; len(h.Errors) != 0 {
		t.Errorf("I/O errors of the other volume: %v", h.Errors)
	}
	if lost, err := s.probe.lost(ctx, writer); err != nil || len(lost) != 0 {
		t.Errorf("lost of the other volume: %v, %v", lost, err)
	}
	truth, err := s.Lab.Truth(ctx)
	if err != nil || truth.DoubleRunMS != 0 {
		t.Errorf("the guest ran twice for %v ms, %v", truth.DoubleRunMS, err)
	}
	owner, err := s.Owner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.legsEqual(ctx, owner, r); err != nil || !r.Safe() {
		t.Errorf("%v, %+v", err, r)
	}
}

// moveVM gives the order to the owner, after the other node has refused it, and waits until the guest counts there.
func (s *Site) moveVM(ctx context.Context, k int) error {
	from, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	var acted api.Acted
	if err := s.duet(ctx, other(from), &acted, "vm", "move", VMName, "--reason", "lab", "--yes", "--confirm-site", "demo"); err == nil {
		return fmt.Errorf("move %d: node %s moved a VM of node %s", k, other(from), from)
	}
	ordered := time.Now()
	if err := s.duet(ctx, from, &acted, "vm", "move", VMName, "--reason", "lab", "--yes", "--confirm-site", "demo"); err != nil {
		return err
	}
	if acted.VM.Owner != other(from) {
		return fmt.Errorf("move %d: the VM belongs to %s", k, acted.VM.Owner)
	}
	taken := time.Since(ordered)
	if err := s.do(ctx, "runs other", from); err != nil {
		return err
	}
	running := time.Since(ordered)
	if err := s.waitGuest(ctx); err != nil {
		return err
	}
	s.Say("move %d, %s to %s: taken after %.2f s, QEMU there after %.2f s, the guest counts after %.1f s", k+1, from, other(from),
		taken.Seconds(), running.Seconds(), time.Since(ordered).Seconds())
	return s.wait(ctx, "both paired", rejoinLimit, func() (bool, string) { return s.paired(ctx) })
}
