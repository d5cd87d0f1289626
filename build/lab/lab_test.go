package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/build/lab"
)

// holdName is argv[0] of a process that only holds a lab up, to be killed.
const holdName = "duet-lab-test-hold"

func TestMain(m *testing.M) {
	lab.Reexec()
	if os.Args[0] == holdName {
		os.Exit(hold(os.Args[1]))
	}
	os.Exit(m.Run())
}

// up starts a lab without the product's services and ends it with the test. Every fault of the lab itself that its
// journal tells fails the test.
func up(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	needRoot(t)
	o.Name, o.State, o.Bare = "test", t.TempDir(), true
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

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a lab is no short test")
	}
	if os.Geteuid() != 0 {
		t.Skip("the lab needs root")
	}
}

func noLabFailure(t *testing.T, state string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(state, "events.jsonl"))
	if err != nil {
		t.Error(err)
	}
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte("lab-failure")) || bytes.Contains(line, []byte("boot-failed")) || t.Failed() {
			t.Logf("%s", line)
			if !t.Failed() {
				t.Error("the lab itself failed")
			}
		}
	}
}

// do fails the test on an error.
func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sh runs a script in a machine.
func sh(t *testing.T, l *lab.Lab, machine, script string) string {
	t.Helper()
	out, err := l.Exec(t.Context(), machine, "bash", "-c", script)
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return strings.TrimSpace(string(out))
}

// until waits for a script to succeed.
func until(t *testing.T, l *lab.Lab, machine, script string) {
	t.Helper()
	do(t, l.Until(t.Context(), 20*time.Second, script, func(ctx context.Context) (string, bool) {
		out, err := l.Exec(ctx, machine, "bash", "-c", script)
		return fmt.Sprintf("%s %v", out, err), err == nil
	}))
}

// TestTopology: who reaches whom, with all cables, and with the cuts of the demo.
func TestTopology(t *testing.T) {
	t.Parallel()
	listen := func(address string) []lab.Unit {
		return []lab.Unit{{Name: "echo", Argv: []string{"python3", "-c", "import socket\ns=socket.create_server(('::',7),family=socket.AF_INET6,dualstack_ipv6=True)\nwhile True:\n c,_=s.accept()\n c.sendall(b'" + address + "')\n c.close()"}}}
	}
	l := up(t, lab.Options{Units: map[string][]lab.Unit{
		lab.A: listen("a"), lab.B: listen("b"), lab.Witness: listen("witness"), lab.Client: listen("client"),
	}})
	reach := func(from, to string, want bool) {
		t.Helper()
		script := "import socket\ns=socket.create_connection(('" + to + "',7),timeout=0.4)\nassert s.recv(9)"
		do(t, l.Until(t.Context(), 20*time.Second, fmt.Sprintf("%s reaches %s: %v", from, to, want), func(ctx context.Context) (string, bool) {
			_, err := l.Exec(ctx, from, "python3", "-c", script)
			return fmt.Sprint(err), (err == nil) == want
		}))
	}
	const mirrorB, mirrorA = "fe80::b%mirror0", "fe80::a%mirror0"
	const lanA, lanB, client, witness = "198.51.100.11", "198.51.100.12", "198.51.100.50", "203.0.113.13"
	for _, to := range []string{mirrorB, lanB, client, witness} {
		reach(lab.A, to, true)
	}
	reach(lab.B, mirrorA, true)
	reach(lab.Client, lanA, true)
	reach(lab.A, "203.0.113.12", false) // nodes never meet on the WAN
	reach(lab.A, "192.0.2.112", false)  // nor on the BMC network
	do(t, l.LinkCut(t.Context(), "all"))
	reach(lab.A, mirrorB, false)
	reach(lab.B, lanA, false)
	for _, node := range []string{lab.A, lab.B} {
		reach(node, witness, true)
		reach(node, client, true)
	}
	if got := sh(t, l, lab.A, "cat /sys/class/net/mirror0/carrier /sys/class/net/lan0/carrier | tr -d '\\n'"); got != "01" {
		t.Errorf("carrier of mirror0 and lan0 is %s: a cut cable is dark, a switch keeps its carrier", got)
	}
	do(t, l.LinkRestore(t.Context(), "all"))
	reach(lab.A, mirrorB, true)
	reach(lab.B, lanA, true)
	do(t, l.Cut(t.Context(), lab.B))
	if got := sh(t, l, lab.A, "cat /sys/class/net/mirror0/carrier; ip -6 -o addr show mirror0 | grep -c fe80::a/64"); got != "0\n1" {
		t.Errorf("after the peer's power cut: carrier and addresses of mirror0 are %q", got)
	}
	do(t, l.On(t.Context(), lab.B))
	reach(lab.A, mirrorB, true)
}

// TestIdentities: what differs per node, and what per power-on.
func TestIdentities(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	const script = "cat /proc/sys/kernel/random/boot_id /etc/machine-id /proc/sys/kernel/hostname; cut -d. -f1 /proc/uptime"
	a, b := strings.Fields(sh(t, l, lab.A, script)), strings.Fields(sh(t, l, lab.B, script))
	for i, what := range []string{"boot id", "machine id", "hostname"} {
		if a[i] == b[i] {
			t.Errorf("%s is %s on both nodes", what, a[i])
		}
	}
	sh(t, l, lab.A, "echo upper > /root/kept; echo tmp > /run/lost; mkdir -p /data/x && echo data > /data/x/kept && sync -f /data")
	do(t, l.Cycle(t.Context(), lab.A))
	again := strings.Fields(sh(t, l, lab.A, script))
	if again[0] == a[0] {
		t.Error("the boot id survived a power cycle")
	}
	if again[1] != a[1] {
		t.Error("the machine id changed over a power cycle")
	}
	for _, up := range []string{a[3], b[3], again[3]} {
		if s, err := strconv.Atoi(up); err != nil || s > 90 {
			t.Errorf("the boot clock starts at %s s: not this machine's own", up)
		}
	}
	sh(t, l, lab.A, "test -e /root/kept -a ! -e /run/lost && test $(cat /data/x/kept) = data")
}

// TestServices: restart within the promise, sd_notify, a socket that outlives its service, logs with time stamps.
func TestServices(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{Units: map[string][]lab.Unit{lab.A: {
		{Name: "plain", Argv: []string{"sh", "-c", "echo born; exec sleep 1000"}},
		{
			Name: "server", Notify: true, Sockets: []lab.Socket{{Name: "nbd", Path: "/run/t/s.sock"}},
			Argv: []string{"python3", "-c", `import os,socket
assert os.environ["LISTEN_PID"]==str(os.getpid()) and os.environ["LISTEN_FDS"]=="1" and os.environ["LISTEN_FDNAMES"]=="nbd"
n=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); n.connect(os.environ["NOTIFY_SOCKET"]); n.send(b"READY=1\n")
s=socket.socket(fileno=3)
while True:
    c,_=s.accept(); c.sendall(b"%d" % os.getpid()); c.close()
`},
		},
		{Name: "quick", Argv: []string{"false"}},
	}}})
	do(t, l.Wait(t.Context(), 10*time.Second, "status:machines.a.services.server.state=ready", "status:machines.a.services.plain.state=running"))
	const ask = `python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect("/run/t/s.sock"); print(s.recv(20).decode())'`
	first := sh(t, l, lab.A, ask)
	do(t, l.Kill(t.Context(), lab.A, "server"))
	if second := sh(t, l, lab.A, ask); second == first { // waits in the backlog, never refused
		t.Errorf("still process %s after SIGKILL", first)
	}
	do(t, l.Kill(t.Context(), lab.A, "plain"))
	do(t, l.Wait(t.Context(), 10*time.Second, "status:machines.a.services.plain.restarts=1", "status:machines.a.services.plain.state=running"))
	truth, err := l.Truth(t.Context())
	do(t, err)
	var died, born int64
	for _, e := range truth.Events {
		if strings.HasPrefix(e.Text, "plain ") && e.Kind == "service-exited" {
			died = e.TimeMS
		}
		if strings.HasPrefix(e.Text, "plain ") && e.Kind == "service-started" {
			born = e.TimeMS
		}
	}
	if took := born - died; took < 50 || took > 500 {
		t.Errorf("restart took %d ms; the init waits 100 ms", took)
	}
	do(t, l.Stop(t.Context(), lab.A, "plain"))
	do(t, l.Wait(t.Context(), 10*time.Second, "status:machines.a.services.plain.state=stopped"))
	do(t, l.Start(t.Context(), lab.A, "plain"))
	do(t, l.Wait(t.Context(), 10*time.Second, "status:machines.a.services.plain.state=running"))
	do(t, l.Until(t.Context(), 5*time.Second, "three stamped lines in the log", func(context.Context) (string, bool) {
		log := readFile(t, l.LogPath(lab.A, "plain"))
		lines := strings.Split(strings.TrimSpace(log), "\n")
		return log, len(lines) == 3 && strings.HasSuffix(lines[2], "Z born")
	}))
	if zombies := sh(t, l, lab.A, "ps -eo stat= | grep -c Z || true"); zombies != "0" {
		t.Errorf("%s zombies", zombies)
	}
}

// TestSecondLab: one name, one lab; the message says how to go on.
func TestSecondLab(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	_, err := lab.Up(t.Context(), lab.Options{Name: "test", State: l.State(), Bare: true})
	if err == nil || !strings.Contains(err.Error(), `a lab named "test" already runs`) || !strings.Contains(err.Error(), "lab down") {
		t.Errorf("a second lab: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		o    lab.Options
		want string
	}{
		{lab.Options{Name: "No Such", Bare: true}, "must be 1 to 32 of"},
		{lab.Options{State: "/tmp/a,b", Bare: true}, "no path with comma"},
		{lab.Options{State: t.TempDir(), Bin: t.TempDir()}, "make binaries"},
		{lab.Options{State: t.TempDir(), Bare: true, Cache: "half"}, "must be random, drop or keep"},
	} {
		l, err := lab.Up(t.Context(), tc.o)
		if err == nil {
			_ = l.Down(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.o, err, tc.want)
		}
	}
}

// hold is a process with a lab, as `lab up` is.
func hold(state string) int {
	_, err := lab.Up(context.Background(), lab.Options{Name: "hold", State: state, Bare: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("up")
	select {}
}

// leftovers is everything a lab could leave on the machine.
func leftovers(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	do(t, err)
	out["mounts"] = strings.Split(string(mounts), "\n")
	links, err := os.ReadDir("/sys/class/net")
	do(t, err)
	for _, l := range links {
		out["links"] = append(out["links"], l.Name())
	}
	return out
}

// labProcesses lists processes of the lab whose state folder this is: the core and what it and the machines' inits started.
func labProcesses(t *testing.T, core int) []int {
	t.Helper()
	var pids []int
	entries, err := os.ReadDir("/proc")
	do(t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && (pid == core || ancestor(pid) == core || ancestor(ancestor(pid)) == core) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func ancestor(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// TestOneSIGKILL: the end of the process that started a lab, by SIGKILL under load, leaves nothing.
func TestOneSIGKILL(t *testing.T) {
	needRoot(t)
	state := t.TempDir()
	before := leftovers(t)
	r, w, err := os.Pipe()
	do(t, err)
	defer r.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{holdName, state}, &os.ProcAttr{Files: []*os.File{nil, w, w}, Env: os.Environ()})
	do(t, err)
	w.Close()
	said := make([]byte, 200)
	n, _ := r.Read(said)
	if string(said[:n]) != "up\n" {
		t.Fatalf("holder says %q", said[:n])
	}
	l, err := lab.Attach(t.Context(), state)
	do(t, err)
	s, err := l.Status(t.Context())
	do(t, err)
	var loops []string
	for _, node := range []string{lab.A, lab.B} { // dirty file systems make the end hard
		sh(t, l, node, "for i in 1 2 3 4; do (while :; do dd if=/dev/urandom of=/pool/f$i bs=1M count=20 conv=fsync; done) >/dev/null 2>&1 & done; sleep 0.3; true")
		loops = append(loops, strings.Fields(sh(t, l, node, "findmnt -n -o SOURCE /data; findmnt -n -o SOURCE /pool"))...)
	}
	if len(loops) != 4 {
		t.Fatalf("loop devices %v: the test sees nothing", loops)
	}
	pids := labProcesses(t, s.PID)
	if len(pids) < 5 {
		t.Fatalf("only %d processes of the lab found: the test sees nothing", len(pids))
	}
	do(t, p.Signal(syscall.SIGKILL))
	began := time.Now()
	_, err = p.Wait()
	do(t, err)
	waitGone(t, pids, began)
	for what, was := range before {
		if is := leftovers(t)[what]; !slices.Equal(is, was) {
			t.Errorf("%s before: %v\nafter: %v", what, was, is)
		}
	}
	for _, dev := range loops {
		if _, err := os.Stat(filepath.Join("/sys/block", filepath.Base(dev), "loop")); err == nil {
			t.Errorf("%s is still attached", dev)
		}
	}
	l2, err := lab.Up(t.Context(), lab.Options{Name: "hold", State: state, Bare: true})
	do(t, err)
	do(t, l2.Down(t.Context()))
}

// waitGone waits until none of the processes is left, zombies counted as gone: their parent may be slow.
func waitGone(t *testing.T, pids []int, began time.Time) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pids = slices.DeleteFunc(pids, func(pid int) bool {
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil || len(tasks) > 1 {
				return err != nil
			}
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || bytes.Contains(b, []byte(") Z "))
		})
		if len(pids) == 0 {
			t.Logf("all gone after %v", time.Since(began))
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("processes %v are still there", pids)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	do(t, err)
	return string(b)
}
