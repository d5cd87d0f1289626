package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/build/lab"
)

func TestMain(m *testing.M) {
	lab.Reexec()
	os.Exit(m.Run())
}

// binaries builds the programs as `make binaries` does, into a folder of this test run.
func binaries(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "./replication/cmd/duet-mirrord", "./appliance/cmd/duetd",
		"./appliance/cmd/duet", "./witness/cmd/duet-witness", "./build/cmd/lab", "./build/cmd/scenario", "./build/cmd/guest-init")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	return bin
}

// state is a folder for the lab on a file system that an overlay can use; it stays when the test fails.
func state(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs("../../out/lab/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSite plays everything on one site: the episodes of the demo, the death of each daemon on each node, fio with
// verification over a power cut, orders that must be refused, some of the liveness table, a short chaos. Safety is strict, deadlines are generous.
//
// Proves: F-07, F-10, F-11, F-13, F-16, F-19, F-22, X-01, X-02, X-03.
func TestSite(t *testing.T) {
	if testing.Short() {
		t.Skip("brings up a whole site; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	started := time.Now()
	say := func(format string, args ...any) {
		t.Logf("%6.1f s  %s", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	s, err := Up(ctx, lab.Options{Name: "test-site", State: state(t, "test-site"), Bin: binaries(t)}, say)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
	})
	r := NewReport()
	for _, e := range append(Episodes(), KillEpisodes()...) {
		if !t.Run(e.Name, func(t *testing.T) {
			if err := s.Play(ctx, e, r); err != nil {
				t.Fatal(err)
			}
			if !r.Safe() {
				t.Fatalf("a promise was broken: %+v", r)
			}
		}) {
			return
		}
	}
	t.Run("fio", func(t *testing.T) {
		if err := s.FIO(ctx); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("refusals", func(t *testing.T) { refusals(ctx, t, s) })
	liveness(ctx, t, s)
	t.Run("chaos", func(t *testing.T) { shortChaos(ctx, t, s) })
	r.Judge()
	t.Logf("report %+v", r)
}

// livenessInTest are the cases of the liveness table that every change must pass: freezes by design with their reason, a
// stale node that returns alone, a node that wakes after the takeover. `make liveness` plays all.
var livenessInTest = []string{
	"witness-then-node/the other; the witness returns",
	"stale-returns/the owner is stale",
	"node-hangs/the owner wakes, no BMC and no PDU",
	"one-returns/the other returns",
}

func liveness(ctx context.Context, t *testing.T, s *Site) {
	played := 0
	for _, row := range Rows() {
		for _, c := range row.Cases {
			if !slices.Contains(livenessInTest, row.Name+"/"+c.Name) {
				continue
			}
			played++
			if !t.Run(row.Name, func(t *testing.T) {
				if m := s.PlayCase(ctx, row, c); m.Failed != "" {
					t.Fatal(m.Failed)
				}
			}) {
				t.FailNow() // the site is not whole
			}
		}
	}
	if played != len(livenessInTest) {
		t.Errorf("%d cases were played, want %d: was one renamed?", played, len(livenessInTest))
	}
}

// shortChaos is what fits into every test run; the seed is fixed so that a failure is about the change, not about luck.
func shortChaos(ctx context.Context, t *testing.T, s *Site) {
	g := &Stage{site: s, Say: s.Say, Fresh: func(context.Context) (*Site, error) { return nil, errors.New("one site is enough here") }}
	r := NewChaosReport(20261123)
	if err := g.Chaos(ctx, Schedule(r.Seed, 10), 5*time.Minute, r); err != nil || !r.Safe() {
		t.Fatalf("%v; %+v", err, r)
	}
	t.Logf("chaos: %+v", r)
}

// refusals gives orders that cannot be carried out: each is answered with code, what, why and next, and changes nothing.
func refusals(ctx context.Context, t *testing.T, s *Site) {
	owner, err := s.Owner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, node string
		argv       []string
		want       string
	}{
		{"unknown VM", owner, []string{"duet", "vm", "start", "nosuch"}, "VM-"},
		{"unknown volume", owner, []string{"duet", "volume", "show", "nosuch"}, "nosuch"},
		{"answers that are none", owner, []string{"duet", "setup", "answer", "/etc/hostname"}, "SYS-"},
	} {
		out, err := s.Lab.Exec(ctx, tc.node, tc.argv...)
		if err == nil {
			t.Errorf("%s: accepted: %s", tc.name, out)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", tc.name, err, tc.want)
		}
	}
	if err := s.WaitSafe(ctx); err != nil {
		t.Error(err)
	}
}
