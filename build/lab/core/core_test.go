package core

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestVMOf: a VM's QEMU is recognised, libvirt's probe and others are not.
func TestVMOf(t *testing.T) {
	for _, tc := range []struct{ cmdline, uuid, name string }{
		{"/usr/bin/qemu-system-x86_64\x00-name\x00guest=vm1,debug-threads=on\x00-S\x00-uuid\x00u-1\x00", "u-1", "vm1"},
		{"qemu-system-x86_64\x00-name\x00plain\x00-uuid\x00u-2\x00", "u-2", "plain"},
		{"/usr/bin/qemu-system-x86_64\x00-S\x00-no-user-config\x00-machine\x00none,accel=tcg\x00", "", ""},
		{"/usr/sbin/libvirtd\x00-uuid\x00u-3\x00", "", ""},
		{"", "", ""},
	} {
		vm := vmOf([]byte(tc.cmdline))
		if tc.uuid == "" {
			if vm != nil {
				t.Errorf("%q is taken for VM %+v", tc.cmdline, vm)
			}
			continue
		}
		if vm == nil || vm.UUID != tc.uuid || vm.Name != tc.name {
			t.Errorf("%q: %+v, want %s %s", tc.cmdline, vm, tc.uuid, tc.name)
		}
	}
}

// A QEMU whose node hung before its exec is recognised after it, however long that was.
func TestAHungForkBecomesQEMU(t *testing.T) {
	cmd := exec.Command("bash", "-c", `kill -STOP $$; exec -a qemu-system-x86_64 tail -f /dev/null --pid=$PPID -- -uuid u-1 2>/dev/null`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() {
		_ = cmd.Process.Kill() //nolint:errcheck // it may have ended
		_ = cmd.Wait()         //nolint:errcheck // killed
	}()
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, f func() bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(10 * time.Second); !f(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	await("stopped", func() bool { return state(pid) == 'T' })
	now := time.Now()
	events, err := openJournal(filepath.Join(t.TempDir(), "events"), now)
	if err != nil {
		t.Fatal(err)
	}
	m := newMonitor(now, events)
	p := &process{seen: now}
	for range 5 {
		now = now.Add(youngFor)
		m.examine(now, pid, p, map[string]string{space: "a"})
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await("recognised", func() bool {
		m.examine(now, pid, p, map[string]string{space: "a"})
		return p.vm != nil && p.vm.UUID == "u-1"
	})
}

// TestResolve: the words of the link verb.
func TestResolve(t *testing.T) {
	for _, tc := range []struct {
		words []string
		first string
		n     int
	}{
		{[]string{"mirror0"}, "mirror0", 1},
		{[]string{"all"}, "mirror0", 2},
		{[]string{"lan", "a"}, "a-lan0", 1},
		{[]string{"bmc", "b"}, "b-bmc0", 1},
		{[]string{"wan", "witness"}, "witness-wan0", 1},
		{[]string{"wan", "client"}, "", 0},
		{[]string{"mirror7"}, "", 0},
		{nil, "", 0},
	} {
		keys, err := resolve(tc.words)
		if len(keys) != tc.n || (err == nil) != (tc.n > 0) || tc.n > 0 && keys[0] != tc.first {
			t.Errorf("%v: %v, %v", tc.words, keys, err)
		}
	}
}

// TestNames: every port fits a Linux interface name, and no two share a MAC.
func TestNames(t *testing.T) {
	seen := map[string]string{}
	for machine, ports := range hardware {
		for _, p := range ports {
			if outer := p.outer(machine); len(outer) > 15 {
				t.Errorf("%s is longer than 15 characters", outer)
			}
			m := mac(machine, p.inner).String()
			if other := seen[m]; other != "" {
				t.Errorf("%s and %s-%s share MAC %s", other, machine, p.inner, m)
			}
			seen[m] = p.outer(machine)
		}
	}
}
