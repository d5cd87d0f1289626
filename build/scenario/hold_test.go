package scenario

import (
	"strings"
	"testing"
	"time"

	"duet/build/lab"
	"duet/build/probe"
)

// A client proves that a node holds only if it has asked and has heard nothing, no error either.
func TestUnanswered(t *testing.T) {
	frozen := time.Unix(10, 0)
	for _, tc := range []struct {
		name, log, want string
	}{
		{"it asks in vain", "I 1 0\n", ""},
		{"it asked in vain after it was served", "R\nI 1 0\nA 1 0 9000000000 10\nI 2 1\n", ""},
		{"a flush in vain", "R\nI 16 0\nA 16 0 9000000000 10\n", ""},
		{"it is served", "I 1 0\nA 1 0 11000000000 10\nI 2 1\n", "acknowledged after 1.0 s"},
		{"it hears an error", "I 1 0\nE server answered command 1 with error 5\n", "answered with an error"},
		{"it asks nothing", "R\n", "nobody asked"},
	} {
		var h probe.History
		if err := h.Load(strings.NewReader(tc.log)); err != nil {
			t.Fatal(err)
		}
		err := unanswered(h, frozen)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := (&probeLoad{}).heardNothing(frozen); err == nil || !strings.Contains(err.Error(), "nobody asked") {
		t.Errorf("a client that does not live: %v", err)
	}
}

func TestVMStart(t *testing.T) {
	events := []lab.Event{
		{Kind: "vm-start", Machine: "a", Time: time.Unix(1, 0)}, {Kind: "vm-end", Machine: "a", Time: time.Unix(3, 0)},
		{Kind: "vm-start", Machine: "b", Time: time.Unix(4, 0)}, {Kind: "vm-start", Machine: "b", Time: time.Unix(5, 0)},
	}
	if at, ok := vmStart(events, "b", time.Unix(2, 0)); !ok || !at.Equal(time.Unix(4, 0)) {
		t.Errorf("the start on b: %v, %v", at, ok)
	}
	if at, ok := vmStart(events, "a", time.Unix(2, 0)); ok {
		t.Errorf("a start on a of before: %v", at)
	}
}

// The node that did not win must never have been solo, however shortly, and a log that says nothing proves nothing.
func TestSoloSince(t *testing.T) {
	cut := time.Unix(10, 0)
	at := func(s int64, mode string) modeChange { return modeChange{time.Unix(s, 0), mode} }
	for name, tc := range map[string]struct {
		modes []modeChange
		want  string
	}{
		"solo in an earlier life":  {[]modeChange{at(2, "solo"), at(5, "paired"), at(12, "frozen")}, ""},
		"solo for an instant":      {[]modeChange{at(5, "paired"), at(12, "solo"), at(12, "frozen")}, "both nodes went solo"},
		"solo after the other was": {[]modeChange{at(5, "paired"), at(12, "frozen"), at(19, "solo")}, "both nodes went solo"},
		"a log without a mode":     {nil, "nothing was seen"},
	} {
		if err := soloSince(tc.modes, cut); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
