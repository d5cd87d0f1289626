package vms

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/site"
)

const (
	sleeperEnv = "DUET_VMS_SLEEPER" // this process plays a QEMU
	insideEnv  = "DUET_VMS_INSIDE"  // this process is a little node of its own
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(sleeperEnv) != "":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case os.Getenv(insideEnv) != "":
		if os.Getpid() == 1 {
			os.Exit(becomeInit())
		}
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

func counter() site.VM {
	return site.VM{
		Slot: 1, ID: "11111111-2222-4333-8444-555555555555", Name: "counter", MemoryMiB: 64, VCPUs: 1,
		Disks: []string{"disk0"}, Boot: site.Boot{Kernel: "/boot/vmlinuz", Cmdline: "console=ttyS0 a<b&'c'"},
	}
}

// The document is well-formed whatever a name or command line holds, and says what package doc promises.
func TestDomainXML(t *testing.T) {
	m := New(Config{NBDSocket: "/run/duet/nbd.sock", LogDir: t.TempDir()})
	text, err := m.domainXML(counter(), 7, "/var/log/duet/vm-counter.log")
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	for _, want := range []string{
		"<domain type='qemu'>", "<name>duet-counter</name>", "machine='pc-q35-7.2'", "console=ttyS0 a&lt;b&amp;&#39;c&#39;",
		"<source protocol='nbd' name='disk0'>", "socket='/run/duet/nbd.sock'", "<reconnect delay='60'/>",
		"error_policy='stop' rerror_policy='stop'", "append='on'", "epoch='7'", "<target dev='vda' bus='virtio'/>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "<boot dev") {
		t.Error("boots from disk beside a kernel")
	}
	vm := counter()
	vm.Boot = site.Boot{}
	if text, _ = m.domainXML(vm, 7, "x"); !strings.Contains(text, "<boot dev='hd'/>") || strings.Contains(text, "<kernel>") {
		t.Errorf("does not boot from disk:\n%s", text)
	}
}

func TestParseCmdline(t *testing.T) {
	for _, c := range []struct {
		line string
		ours bool
	}{
		{"/usr/bin/qemu-system-x86_64 -name guest=duet-counter,debug-threads=on -S -uuid 1-2", true},
		{"/usr/bin/qemu-system-x86_64 -name guest=duet-counter,debug-threads=on -S", false},
		{"/usr/bin/qemu-system-x86_64 -S -no-user-config -nodefaults -machine none", false},
		{"/usr/bin/qemu-system-x86_64 -name guest=other,debug-threads=on -uuid 1-2", false},
		{"/bin/grep qemu-system -name guest=duet-counter -uuid 1-2", false},
		{"qemu-system-x86_64 -uuid 1-2 -name", false},
	} {
		p, ours := parseCmdline([]byte(strings.ReplaceAll(c.line, " ", "\x00")+"\x00"), "duet-")
		if ours != c.ours || ours && (p.Name != "counter" || p.ID != "1-2") {
			t.Errorf("%q: %+v %v", c.line, p, ours)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add([]byte("qemu-x\x00-name\x00guest=duet-a\x00-uuid\x001\x00"))
	f.Add([]byte("\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, line []byte) {
		if p, ours := parseCmdline(line, "duet-"); ours && p.ID == "" {
			t.Fatal("ours without an id")
		}
	})
}

func TestMerge(t *testing.T) {
	got := merge(
		[]Seen{{"1", "a", Running}, {"2", "b", Running}},
		[]Process{{PID: 5, ID: "1", Name: "a"}, {PID: 6, ID: "3", Name: "c"}})
	want := []Seen{{"1", "a", Running}, {"2", "b", Ending}, {"3", "c", Unclear}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%v, want %v", got, want)
	}
}

// sleeper is a process that looks like one of our QEMUs and ends only when killed.
func sleeper(t *testing.T, prefix, name, id string) *exec.Cmd {
	t.Helper()
	return launch(t, sleeperCommand(prefix, name, id))
}

func sleeperCommand(prefix, name, id string) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"qemu-sleeper", "-name", "guest=" + prefix + name + ",debug-threads=on", "-uuid", id},
		Env: append(os.Environ(), sleeperEnv+"=1"),
	}
}

func launch(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func testManager(t *testing.T) *Manager {
	return New(Config{LibvirtSocket: filepath.Join(t.TempDir(), "none"), Prefix: fmt.Sprintf("duettest%d-", os.Getpid()), LogDir: t.TempDir()})
}

// awaitRunning waits until /proc shows n processes: exec takes a moment.
func awaitRunning(t *testing.T, m *Manager, n int) []Process {
	t.Helper()
	var all []Process
	wait(t, 5*time.Second, fmt.Sprintf("%d processes", n), func() bool {
		var err error
		if all, err = m.Running(); err != nil {
			t.Fatal(err)
		}
		return len(all) == n
	})
	return all
}

func wait(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func TestKillEndsOnlyItsOwn(t *testing.T) {
	m := testManager(t)
	sleeper(t, m.cfg.Prefix, "one", "id-1")
	sleeper(t, m.cfg.Prefix, "two", "id-2")
	sleeper(t, "person-", "three", "id-3")
	awaitRunning(t, m, 2)
	if err := m.Kill(t.Context(), []string{"id-1"}); err != nil {
		t.Fatal(err)
	}
	if left := awaitRunning(t, m, 1); left[0].ID != "id-2" || left[0].Name != "two" {
		t.Fatalf("%+v", left)
	}
	m.Permit(3, []string{"id-2"}, 0)
	if err := m.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, m, 0)
	if _, open := m.gate.permits("id-2", 3); open {
		t.Fatal("the gate is open after KillAll")
	}
	persons := New(Config{Prefix: "person-"})
	if left, _ := persons.Running(); len(left) != 1 {
		t.Fatalf("a person's domain was touched: %v", left)
	}
}

// A stopped process dies too, and a zombie that nobody reaped counts as gone.
func TestKillStoppedAndUnreaped(t *testing.T) {
	m := testManager(t)
	cmd := sleeper(t, m.cfg.Prefix, "one", "id-1")
	awaitRunning(t, m, 1)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := m.KillAll(t.Context()); err != nil { // nobody waits for it here: it stays a zombie
		t.Fatal(err)
	}
	awaitRunning(t, m, 0)
}

// A process of another node of a lab: it is in another PID namespace and is not seen from here.
func TestOtherNodesAreNotTouched(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a PID namespace")
	}
	m := testManager(t)
	cmd := sleeperCommand(m.cfg.Prefix, "foreign", "id-9")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	launch(t, cmd)
	sleeper(t, m.cfg.Prefix, "own", "id-1")
	awaitRunning(t, m, 1)
	if err := m.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, m, 0)
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the other node's process is gone: %v", err)
	}
}

func TestKillWithNothingToDo(t *testing.T) {
	if err := testManager(t).KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A kill that cannot be confirmed says so.
func TestKillNotConfirmed(t *testing.T) {
	m := testManager(t)
	sleeper(t, m.cfg.Prefix, "one", "id-1")
	victims := awaitRunning(t, m, 1)
	victims[0].ID = "another" // the process is not the one that was seen: it is not hit, and it does not end
	if err := killProcesses("/proc", m.cfg.Prefix, victims, 20*time.Millisecond); err == nil {
		t.Fatal("no error")
	}
	awaitRunning(t, m, 1)
}

// A libvirtd that accepts and never answers costs its deadline, not more, and leaves no goroutine.
func TestSilentLibvirt(t *testing.T) {
	m := testManager(t)
	l, err := net.Listen("unix", m.cfg.LibvirtSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.cfg.QueryTimeout = 50 * time.Millisecond
	begin := time.Now()
	seen, err := m.List(t.Context())
	if event.CodeOf(err) != event.LibvirtDown || len(seen) != 0 {
		t.Fatalf("%v %v", seen, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Fatalf("took %v", took)
	}
}

// Garbage and an early end of the connection are errors, not panics.
func TestBrokenLibvirt(t *testing.T) {
	for _, reply := range []string{"", "garbage that is no packet at all", "\x00\x00\x00\x1c\x20\x00\x80\x86\x00\x00\x00\x01"} {
		m := testManager(t)
		m.cfg.QueryTimeout = 200 * time.Millisecond
		l, err := net.Listen("unix", m.cfg.LibvirtSocket)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, reply)
			_ = conn.Close()
		}()
		if _, err := m.List(t.Context()); event.CodeOf(err) != event.LibvirtDown {
			t.Errorf("%q: %v", reply, err)
		}
		_ = l.Close()
		<-served
	}
}

func TestStartNeedsTheGate(t *testing.T) {
	m := testManager(t)
	for _, open := range []func(){func() {}, func() { m.Permit(4, []string{counter().ID}, 0) }, func() { m.Permit(5, []string{"x"}, 0) }, func() { m.Permit(0, []string{counter().ID}, 0) }} {
		open()
		if err := m.Start(context.Background(), counter(), 5); event.CodeOf(err) != event.VMNotAllowed {
			t.Errorf("got %v", err)
		}
	}
}

// The gate closes at the deadline by itself, and a permission that comes after its deadline opens nothing: the lease
// guard has killed by then and does not come again.
func TestGateClosesAtItsDeadline(t *testing.T) {
	m := testManager(t)
	id := counter().ID
	m.Permit(5, []string{id}, boottime.Now()-1)
	if err := m.Start(t.Context(), counter(), 5); event.CodeOf(err) != event.VMNotAllowed {
		t.Errorf("after the deadline: %v", err)
	}
	until := boottime.Now() + int64(20*time.Millisecond)
	m.Permit(5, []string{id}, until)
	for open := true; open; _, open = m.gate.permits(id, 5) {
		if boottime.Now() > until+int64(5*time.Second) {
			t.Fatal("the gate stays open")
		}
	}
	if boottime.Now() < until {
		t.Error("the gate closed before its deadline")
	}
	m.Permit(5, []string{id}, 0)
	if _, open := m.gate.permits(id, 5); !open {
		t.Error("a permission without deadline is over")
	}
}

// A start outlives the commit of a pair, whose epoch is another one, and nothing else: no gap, however short.
func TestAStartOutlivesACommit(t *testing.T) {
	m := testManager(t)
	id := counter().ID
	for name, c := range map[string]struct {
		then func()
		want bool
	}{
		"a commit":                  {func() { m.Permit(7, []string{id, "other"}, 0) }, true},
		"a lease":                   {func() { m.Permit(5, []string{id}, boottime.Now()+int64(time.Hour)) }, true},
		"another VM":                {func() { m.Permit(7, []string{"other"}, 0) }, false},
		"closed":                    {m.Forbid, false},
		"closed and open again":     {func() { m.Forbid(); m.Permit(5, []string{id}, 0) }, false},
		"withdrawn and given again": {func() { m.gate.withdraw([]string{id}); m.Permit(5, []string{id}, 0) }, false},
		"lapsed and given again": {func() {
			m.Permit(5, []string{id}, boottime.Now()-1)
			m.Permit(5, []string{id}, 0)
		}, false},
	} {
		m.Forbid()
		m.Permit(5, []string{id}, 0)
		ticket, open := m.gate.permits(id, 5)
		if !open {
			t.Fatal("closed")
		}
		c.then()
		if got := m.gate.holds(id, ticket); got != c.want {
			t.Errorf("%s: goes on is %v", name, got)
		}
	}
}
