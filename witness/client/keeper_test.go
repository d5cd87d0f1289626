package client

import (
	"testing"
	"time"

	"duet/witness/wire"
)

// A line that is full of requests without an answer takes no more; the next request must not wait for it for ever.
func TestFullSilentLine(t *testing.T) {
	heard := time.Now().Add(-time.Minute)
	l := &line{sent: make(map[key]time.Time), heard: heard}
	for n := range uint64(asksMax) {
		l.sent[key{wire.Status, n}] = heard
	}
	asked := key{wire.CAS, 1}
	k := &keeper{asks: map[key]*waiting{}, lines: []*line{l}}
	k.asks[asked] = nil
	if due, at := k.dialDue(); !due || at.After(time.Now()) {
		t.Errorf("due %v, in %v", due, time.Until(at))
	}
}
