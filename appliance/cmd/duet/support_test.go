package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"duet/appliance/membership"
	"duet/appliance/support/flight"
)

// ring is a folder with a boot and two beats; spoil changes what the node claims to have become.
func ring(t *testing.T, spoil func(*membership.State)) string {
	t.Helper()
	dir := t.TempDir()
	r := flight.Start(flight.Config{
		Dir: dir, Limit: flight.DefaultLimit, BootID: "boot", Log: slog.New(slog.DiscardHandler),
		Broken: func(err error) { t.Error(err) }, Mended: func() {},
	})
	s := membership.State{Cfg: membership.Config{Lease: 4e9, PeerWait: 6e9, BootWait: 15e9}}
	for i, e := range []membership.Event{membership.Boot{}, membership.Connected{Session: 7}, membership.Beat{}, membership.PeerLost{Session: 7}} {
		in := membership.Input{Now: membership.Boottime(i+1) * 1e9, Fresh: 5, Event: e}
		after, effects := membership.Step(s, in)
		if i == 3 && spoil != nil {
			spoil(&after)
		}
		r.Decided(s, in, after, effects)
		s = after
	}
	r.Close()
	<-r.Done()
	return dir
}

func duet(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaint bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &complaint)
	return code, out.String(), complaint.String()
}

func TestReplay(t *testing.T) {
	good := ring(t, nil)
	code, out, complaint := duet(t, "support", "replay", good)
	if code != exitDone || !strings.Contains(out, "replay   equal") || !strings.Contains(out, "booted") || complaint != "" {
		t.Errorf("%d\n%s%s", code, out, complaint)
	}
	code, out, complaint = duet(t, "support", "replay", "-o", "json", "--until", "3", good)
	var sum flight.Summary
	if err := json.Unmarshal([]byte(out), &sum); err != nil || code != exitDone || !sum.Equal || sum.Last != 3 {
		t.Errorf("%d %v\n%s%s", code, err, out, complaint)
	}
	bad := ring(t, func(s *membership.State) { s.PeerWait++ })
	code, out, complaint = duet(t, "support", "replay", bad)
	if code != exitRefused || !strings.Contains(complaint, "the recording differs") || !strings.Contains(out, "1 differences, the first at entry 5: peer-lost") {
		t.Errorf("%d\n%s%s", code, out, complaint)
	}
	if code, _, complaint := duet(t, "support", "replay", t.TempDir()); code != exitRefused || !strings.Contains(complaint, "holds no recording") {
		t.Errorf("%d %s", code, complaint)
	}
	if code, _, _ := duet(t, "support", "replay", good, good); code != exitUsage {
		t.Errorf("two folders: %d", code)
	}
}

func TestFlight(t *testing.T) {
	dir := ring(t, nil)
	code, out, complaint := duet(t, "support", "flight", "-n", "1", dir)
	if code != exitDone || strings.Count(out, "\n") != 1 || !strings.Contains(out, "peer-lost session") {
		t.Errorf("%d\n%s%s", code, out, complaint)
	}
	code, out, _ = duet(t, "support", "flight", "--all", "-o", "json", dir)
	var all []decision
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != exitDone || len(all) != 5 || all[1].Input != "boot" {
		t.Errorf("%d %v\n%s", code, err, out)
	}
}
