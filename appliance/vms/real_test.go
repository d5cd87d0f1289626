package vms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/appliance/event"
	"duet/appliance/site"
)

// The real test runs this test binary again as process 1 of its own PID, mount and network namespaces: a little node
// with its own libvirtd, whose end takes everything with it. Process 1 prepares the node, starts the binary once more
// for the test itself, and reaps: libvirt waits for the pids of its detached QEMUs to vanish, 20 s and more if nobody
// reaps them.

const insideRun = "^TestInside"

func TestReal(t *testing.T) {
	if testing.Short() {
		t.Skip("short: starts libvirtd and QEMU")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	for _, tool := range []string{"libvirtd", "qemu-system-x86_64", "qemu-nbd"} {
		if _, err := exec.LookPath(tool); err != nil {
			if !testing.Short() { // a judge that is missing must not look green
				t.Fatalf("needs %s: make deps", tool)
			}
			t.Skipf("needs %s: make deps", tool)
		}
	}
	if kernel() == "" {
		if !testing.Short() { // a judge that is missing must not look green
			t.Fatal("needs linux-image-cloud-amd64: make deps")
		}
		t.Skip("needs linux-image-cloud-amd64: make deps")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run="+insideRun, "-test.v", "-test.timeout=80s")
	cmd.Env = append(os.Environ(), insideEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInsideNode") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func kernel() string {
	found, err := filepath.Glob("/boot/vmlinuz-*cloud*")
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// becomeInit is process 1: prepare, run the test, reap until it ends.
func becomeInit() int {
	if err := becomeNode(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	child, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if pid == child {
			return status.ExitStatus()
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return 1
		}
	}
}

// becomeNode gives this process the directories of a node: own /proc, and tmpfs over everything that libvirtd writes.
func becomeNode() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("own /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("tmpfs on %s: %w", dir, err)
		}
	}
	files := map[string]string{
		"libvirtd.conf": "auth_unix_rw = \"none\"\nlisten_tls = 0\n",
		"qemu.conf": "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n" +
			"cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n",
	}
	for name, text := range files {
		if err := os.WriteFile("/etc/libvirt/"+name, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configuration of libvirtd: %w", err)
		}
	}
	return nil
}

const libvirtSocket = "/run/libvirt/libvirt-sock"

// daemon starts a program of the node and returns when its socket answers.
func daemon(t *testing.T, socket, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
	wait(t, 20*time.Second, socket, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return cmd
}

func libvirtd(t *testing.T) *exec.Cmd { return daemon(t, libvirtSocket, "libvirtd") }

func stateNow(t *testing.T, m *Manager, id string) State {
	t.Helper()
	s, err := m.observe(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestInsideNode is one story: it boots QEMU a few times, which is what it costs.
func TestInsideNode(t *testing.T) {
	dir := os.Getenv(insideEnv)
	if dir == "" {
		t.Skip("runs inside TestReal")
	}
	nbd := filepath.Join(dir, "nbd.sock")
	raw := filepath.Join(dir, "disk0")
	if err := errors.Join(os.WriteFile(raw, nil, 0o600), os.Truncate(raw, 1<<20)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	step := func(text string) { t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), text) }
	daemonOfVirt := libvirtd(t)
	m := New(Config{LibvirtSocket: libvirtSocket, NBDSocket: nbd, LogDir: filepath.Join(dir, "log"), QueryTimeout: 5 * time.Second, KillTimeout: 5 * time.Second})
	vm := counter()
	vm.Boot = site.Boot{Kernel: kernel(), Cmdline: "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1"}
	console := filepath.Join(dir, "log", "vm-counter.log")
	if s := stateNow(t, m, vm.ID); s != Absent || !m.warm.Load() {
		t.Fatalf("first look: %s, warm %v", s, m.warm.Load())
	}
	step("libvirtd is warm")

	m.Permit(7, []string{vm.ID}, 0)
	if err := m.Start(t.Context(), vm, 7); event.CodeOf(err) != event.VMStartFailed {
		t.Fatalf("started without its disk: %v", err)
	}
	step("no disk: refused")
	daemon(t, nbd, "qemu-nbd", "-k", nbd, "-x", "disk0", "-f", "raw", "-t", "-e", "8", raw)

	// The gate closes between the two halves of a start: the guest never executes.
	if err := m.create(t.Context(), vm, 7); err != nil {
		t.Fatal(err)
	}
	if s := stateNow(t, m, vm.ID); s != Paused {
		t.Fatalf("created, but %s", s)
	}
	m.Forbid()
	if err := m.Resume(t.Context(), vm, 7); event.CodeOf(err) != event.VMNotAllowed {
		t.Fatalf("released with a closed gate: %v", err)
	}
	awaitRunning(t, m, 0)
	if info, err := os.Stat(console); err == nil && info.Size() > 0 {
		t.Fatal("the guest of a closed gate has written to its console")
	}
	step("gate closed during a start: gone without having run")

	// A process that libvirt does not know: nothing is started beside it.
	wait(t, 20*time.Second, "libvirt sees that the last one is gone", func() bool {
		domains, err := m.domains(t.Context())
		return err == nil && len(domains) == 0
	})
	m.Permit(8, []string{vm.ID}, 0)
	stray := sleeper(t, "duet-", vm.Name, vm.ID)
	awaitRunning(t, m, 1)
	if err := m.Start(t.Context(), vm, 8); event.CodeOf(err) != event.VMStartFailed || !strings.Contains(err.Error(), "twice") {
		t.Fatalf("started beside a stray: %v", err)
	}
	_ = stray.Process.Kill()
	awaitRunning(t, m, 0)

	if err := m.Start(t.Context(), vm, 8); err != nil {
		t.Fatal(err)
	}
	first := awaitRunning(t, m, 1)[0]
	if s := stateNow(t, m, vm.ID); s != Running || first.ID != vm.ID || first.Name != "counter" {
		t.Fatalf("%s %+v", s, first)
	}
	wait(t, 30*time.Second, "a line on the console", func() bool { info, err := os.Stat(console); return err == nil && info.Size() > 0 })
	step("guest runs")
	if err := m.Start(t.Context(), vm, 8); err != nil {
		t.Fatal(err)
	}
	again := New(m.cfg) // duetd was restarted
	again.Permit(8, []string{vm.ID}, 0)
	if err := again.Start(t.Context(), vm, 8); err != nil {
		t.Fatal(err)
	}
	if now := awaitRunning(t, m, 1)[0]; now != first {
		t.Fatalf("another process: %+v", now)
	}
	step("started twice more: the same process")

	// A stopped libvirtd: the kill needs none.
	if err := daemonOfVirt.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	m.cfg.QueryTimeout = 100 * time.Millisecond
	seen, err := m.List(t.Context())
	if event.CodeOf(err) != event.LibvirtDown || len(seen) != 1 || seen[0].State != Unclear {
		t.Fatalf("%v %v", seen, err)
	}
	killing := time.Now()
	if err := m.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	step(fmt.Sprintf("killed in %d ms beside a stopped libvirtd", time.Since(killing).Milliseconds()))
	awaitRunning(t, m, 0)
	if err := daemonOfVirt.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	m.cfg.QueryTimeout = 5 * time.Second
	wait(t, 20*time.Second, "libvirt notices", func() bool { return stateNow(t, m, vm.ID) == Absent })

	// A dead libvirtd: the guest goes on and is found again by the next one.
	m.Permit(9, []string{vm.ID}, 0)
	if err := m.Start(t.Context(), vm, 9); err != nil {
		t.Fatal(err)
	}
	if err := daemonOfVirt.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemonOfVirt.Wait()
	if _, err := m.List(t.Context()); event.CodeOf(err) != event.LibvirtDown {
		t.Fatalf("%v", err)
	}
	awaitRunning(t, m, 1)
	libvirtd(t)
	wait(t, 20*time.Second, "re-adoption", func() bool { return stateNow(t, m, vm.ID) == Running })
	step("libvirtd was killed: the guest is found again")
	if err := m.Kill(t.Context(), []string{vm.ID}); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, m, 0)
	step("done")
}
