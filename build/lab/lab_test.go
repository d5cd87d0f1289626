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

func TestScratch(t *testing.T) {
	l := up(t, lab.Options{})
	out, err := l.Exec(t.Context(), "a", "bash", "-c", os.Getenv("SCRATCH"))
	t.Logf("%s %v", out, err)
}

func noLabFailure(t *testing.T, state string) {
	b, err := os.ReadFile(state + "/events.jsonl")
	t.Logf("%s %v", b, err)
}
