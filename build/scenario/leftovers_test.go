package scenario

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A check for leftovers that cannot find any is worth nothing.
func TestLeftoversSeesAStray(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a namespace of its own needs root")
	}
	before, err := Footprint(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: sleep, Args: []string{filepath.Join("/opt/duet/bin", "duetd"), "60"}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID} // as everything of a lab
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // killed
	defer func() { _ = cmd.Process.Kill() }()
	left, err := Leftovers(t.Context(), t.TempDir(), before)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "process duetd ") }) {
		t.Errorf("a duetd outside any lab was not seen: %v", left)
	}
}
