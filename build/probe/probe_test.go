package probe

import (
	"strings"
	"testing"
	"time"
)

// The oracle must see every way in which the promise can be broken: a checker that cannot fail is a defect.
func TestLost(t *testing.T) {
	var h History
	log := "I 1 0\nA 1 0 1000 10\nI 2 1\nA 2 1 2000 10\nI 3 0\nE server answered\nI 4 2\nA 4 2 99"
	if err := h.Load(strings.NewReader(log)); err != nil {
		t.Fatal(err)
	}
	if len(h.Errors) != 1 || len(h.Acks) != 2 || h.Last != 4 {
		t.Fatalf("history %+v", h)
	}
	for _, tc := range []struct {
		name     string
		contents []Content
		want     int
	}{
		{"as acknowledged", []Content{{Seq: 1}, {Seq: 2}, {}}, 0},
		{"in doubt, done", []Content{{Seq: 3}, {Seq: 2}, {Seq: 4}}, 0},
		{"lost", []Content{{}, {Seq: 2}, {}}, 1},
		{"older", []Content{{Seq: 1}, {Seq: 1}, {}}, 1},
		{"never issued", []Content{{Seq: 9}, {Seq: 2}, {}}, 1},
		{"torn", []Content{{Seq: 1}, {Seq: 2, Torn: true}, {}}, 1},
	} {
		if got := h.Lost(tc.contents); len(got) != tc.want {
			t.Errorf("%s: %d complaints %v, want %d", tc.name, len(got), got, tc.want)
		}
	}
}

// After the last holder lost its power, what was flushed before must be there, what was not may be missing or torn, and
// what was written afterwards counts as ever.
func TestLostAfterPowerLoss(t *testing.T) {
	log := "I 1 0\nA 1 0 1000 10\nI 2 1\nA 2 1 2000 10\nF 2 2500\nI 3 0\nA 3 0 3000 10\nI 4 2\n" + // the loss is here
		"I 5 1\nA 5 1 5000 10\n"
	for _, tc := range []struct {
		name     string
		contents []Content
		with     int // complaints with the loss
		without  int
	}{
		{"all there", []Content{{Seq: 3}, {Seq: 5}, {Seq: 4}}, 0, 0},
		{"not flushed: missing", []Content{{Seq: 1}, {Seq: 5}, {}}, 0, 1},
		{"not flushed: torn, acknowledged or in flight", []Content{{Seq: 3, Torn: true}, {Seq: 5}, {Torn: true}}, 0, 2},
		{"flushed: missing", []Content{{}, {Seq: 5}, {}}, 1, 1},
		{"acknowledged afterwards: missing", []Content{{Seq: 3}, {Seq: 2}, {}}, 1, 1},
		{"acknowledged afterwards: torn", []Content{{Seq: 3}, {Seq: 5, Torn: true}, {}}, 1, 1},
	} {
		for _, loss := range []bool{true, false} {
			var h History
			want := tc.without
			if loss {
				h.Losses, want = []time.Time{time.Unix(0, 4000)}, tc.with
			}
			if err := h.Load(strings.NewReader(log)); err != nil {
				t.Fatal(err)
			}
			if got := h.Lost(tc.contents); len(got) != want {
				t.Errorf("%s, loss %v: %v, want %d complaints", tc.name, loss, got, want)
			}
		}
	}
}

func TestParseSeesEveryDamage(t *testing.T) {
	buf := make([]byte, BlockSize)
	fill(buf, 7, 3)
	if got := parse(buf, 3); got != (Content{Seq: 7}) {
		t.Fatalf("whole block read as %+v", got)
	}
	if got := parse(buf, 4); !got.Torn {
		t.Error("a block of another place passed")
	}
	for _, i := range []int{0, 8, 16, 100, 2048, BlockSize - 1} {
		buf[i] ^= 1
		if got := parse(buf, 3); !got.Torn {
			t.Errorf("flipped bit at %d not seen", i)
		}
		buf[i] ^= 1
	}
	if got := parse(make([]byte, BlockSize), 3); got != (Content{}) {
		t.Errorf("an untouched block read as %+v", got)
	}
}

func TestStall(t *testing.T) {
	h := History{Acks: []Ack{{time.Unix(1, 0), 5 * time.Millisecond}, {time.Unix(2, 0), 900 * time.Millisecond}, {time.Unix(9, 0), 3 * time.Second}}}
	if got := h.Stall(time.Unix(1, 0), time.Unix(3, 0)); got != 900*time.Millisecond {
		t.Errorf("stall %v", got)
	}
}
