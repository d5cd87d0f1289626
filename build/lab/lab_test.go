package lab_test

import (
	"context"
	"os"
	"testing"
	"time"

	"duet/build/lab"
)

func TestMain(m *testing.M) {
	lab.Reexec()
	os.Exit(m.Run())
}

// up starts a lab without the product's services and ends it with the test.
func up(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	if testing.Short() {
		t.Skip("a lab is no short test")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
	if o.Name == "" {
		o.Name = "test"
	}
	o.State, o.Bare = t.TempDir(), true
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := l.Down(ctx); err != nil {
			t.Error(err)
		}
		noLabFailure(t, o.State)
	})
	return l
}

func TestUp(t *testing.T) {
	began := time.Now()
	l := up(t, lab.Options{})
	t.Logf("up after %v", time.Since(began))
	s, err := l.Status(t.Context())
	t.Logf("%+v %v", s, err)
	out, err := l.Exec(t.Context(), "a", "sh", "-c", "hostname; ip -br a; mount | head -50; cat /proc/uptime; ps ax; ping -c1 -W1 fe80::b%mirror0; ping -c1 -W1 198.51.100.12; ping -c1 -W1 203.0.113.13; ping -c 1 -W1 203.0.113.12; ping -c1 -W1 192.0.2.11; ping -c1 -W1 192.0.2.112; cat /proc/sys/kernel/random/boot_id; df /data /pool")
	t.Logf("%s %v", out, err)
}

func noLabFailure(t *testing.T, state string) {
	b, err := os.ReadFile(state + "/events.jsonl")
	t.Logf("%s %v", b, err)
}
