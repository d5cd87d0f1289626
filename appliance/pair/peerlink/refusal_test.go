package peerlink

import (
	"testing"
	"time"
)

// Replayed, overtaking and foreign frames change nothing and are counted, each under its own name.
func TestDroppedFramesAreCounted(t *testing.T) {
	m := &machine{cfg: testTiming, acpt: true, inc: 1, aliveUntil: time.Hour, fresh: func() uint64 { return 5 }}
	m.resume(Resume{Session: 7, PeerIncarnation: 3})
	c := &lane{}
	m.connected(c, frame{kind: kindGreeting, session: 7, inc: 3})
	m.told = nil
	data := func(session, inc, seq uint64) frame {
		return frame{kind: kindData, session: session, inc: inc, seq: seq, body: []byte("x")}
	}
	for _, step := range []struct {
		f    frame
		told int
		want drops
	}{
		{data(7, 3, 1), 1, drops{}},
		{data(7, 3, 1), 1, drops{repeated: 1}},
		{data(7, 3, 3), 1, drops{repeated: 1, outOfOrder: 1}},
		{data(6, 3, 2), 1, drops{repeated: 1, outOfOrder: 1, otherSession: 1}},
		{data(7, 2, 2), 1, drops{repeated: 1, outOfOrder: 1, otherSession: 1, earlierProcess: 1}},
		{data(7, 3, 2), 2, drops{repeated: 1, outOfOrder: 1, otherSession: 1, earlierProcess: 1}},
		{data(7, 3, 1), 2, drops{repeated: 2, outOfOrder: 1, otherSession: 1, earlierProcess: 1}},
	} {
		m.frame(c, step.f)
		if len(m.told) != step.told || m.dropped != step.want {
			t.Fatalf("%+v: told %d, dropped %+v", step.f, len(m.told), m.dropped)
		}
	}
}

// Every refusal has a reason of its own, and an error that is none is not counted under one.
func TestReasons(t *testing.T) {
	for _, r := range []Reason{WrongKey, OtherVersion, OwnKey, UnknownKey, OwnSlot, OtherSite, OtherChassis, SecondPeer, TooMany} {
		if err := refuse(r, "because of %d", 1); reasonOf(err) != r || !isRefusal(err) || err.Error() != "refused: because of 1" {
			t.Errorf("%s: %v", r, err)
		}
	}
	if reasonOf(errFrame) != Malformed || !isRefusal(errFrame) {
		t.Error("a malformed frame has no reason")
	}
}
