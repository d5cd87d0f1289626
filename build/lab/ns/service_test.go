package ns

import (
	"testing"
	"time"
)

// TestBackOff: a service that dies now and then restarts within 200 ms; one that dies at once backs off to a limit.
func TestBackOff(t *testing.T) {
	for n := 1; n <= restartQuick; n++ {
		if d := backOff(n); d > 200*time.Millisecond {
			t.Errorf("death %d: waits %v", n, d)
		}
	}
	last := backOff(restartQuick)
	for n := restartQuick + 1; n < 100; n++ {
		d := backOff(n)
		if d < last || d > restartDelayMax {
			t.Errorf("death %d waits %v after %v", n, d, last)
		}
		last = d
	}
	if last != restartDelayMax {
		t.Errorf("ends at %v, want %v", last, restartDelayMax)
	}
}
