package block

import (
	"testing"
	"time"
)

// The median is never said to be more than it is: what is compared with a limit, and with 20 times the other leg's, is the lower end of
// what is known.
func TestTheMedianIsNotOverstated(t *testing.T) {
	for _, c := range []struct {
		took []time.Duration
		want time.Duration
	}{
		{nil, 0},
		{[]time.Duration{0}, time.Microsecond},
		{[]time.Duration{time.Microsecond}, time.Microsecond},
		{[]time.Duration{99 * time.Millisecond}, 65536 * time.Microsecond},
		{[]time.Duration{131 * time.Millisecond, time.Second}, 65536 * time.Microsecond},
		{[]time.Duration{132 * time.Millisecond, time.Second}, 131072 * time.Microsecond},
		{[]time.Duration{5, time.Second, time.Second}, 524288 * time.Microsecond},
	} {
		w := NewWatch(nil)
		for _, d := range c.took {
			w.count(d)
		}
		if _, p50 := w.Tick(); p50 != c.want {
			t.Errorf("%v: %v, want %v", c.took, p50, c.want)
		}
	}
}
