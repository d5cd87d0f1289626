package lab_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/build/lab"
)

// talker accepts one connection on port 9 and keeps it.
var talker = []lab.Unit{{Name: "talker", Argv: []string{"python3", "-c", `import socket
s=socket.create_server(('::',9),family=socket.AF_INET6,dualstack_ipv6=True)
keep=[]
while True: keep.append(s.accept()[0])
`}}}

// hear connects to node a, prints "connected" and then what the next two seconds bring: silence, farewell or reset.
const hear = `import socket,sys
s=socket.create_connection(("198.51.100.11",9),timeout=5)
open("/run/connected","w").close()
s.settimeout(3)
try: print("farewell" if s.recv(1)==b"" else "data")
except socket.timeout: print("silence")
except OSError as e: print("reset")
`

// TestFarewell: a power cut is silent on every link; a crash is not. If this fails, every detection time measured in
// this lab is wrong.
func TestFarewell(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{Units: map[string][]lab.Unit{lab.A: talker}})
	for _, tc := range []struct {
		event func(context.Context, string) error
		want  string
	}{{l.Cut, "silence"}, {l.Crash, "farewell reset"}, {l.Reset, "silence"}} {
		do(t, l.On(t.Context(), lab.A))
		until(t, l, lab.A, "ss -ltn | grep -q :9")
		for _, from := range []string{lab.B, lab.Client} {
			sh(t, l, from, "rm -f /run/connected")
		}
		heard := make(chan string, 2)
		for _, from := range []string{lab.B, lab.Client} {
			go func() {
				out, err := l.Exec(t.Context(), from, "python3", "-c", hear)
				heard <- strings.TrimSpace(fmt.Sprintf("%s%v", out, map[bool]any{true: "", false: err}[err == nil]))
			}()
		}
		for _, from := range []string{lab.B, lab.Client} {
			until(t, l, from, "test -e /run/connected")
		}
		do(t, tc.event(t.Context(), lab.A))
		for range 2 {
			if is := <-heard; !strings.Contains(tc.want, is) || is == "" {
				t.Errorf("heard %q, want %s", is, tc.want)
			}
		}
	}
}

// TestDriveTruth: what was synced is there after a cut, by fsync and by O_DSYNC (FUA) alike; what was not is gone with
// a cache that is dropped. An ordinary file on the machine's disk would show no difference.
func TestDriveTruth(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{Cache: "drop"})
	// The files are laid out and synced first, so that only data, no metadata, decides.
	sh(t, l, lab.A, `cd /pool; for f in plain sync fua; do dd if=/dev/zero of=$f bs=4096 count=64 conv=fsync status=none; done; sync -f /pool
		y() { tr '\0' "$1" </dev/zero | head -c 4096; }
		y 1 | dd of=plain oflag=direct conv=notrunc bs=4096 status=none
		y 2 | dd of=sync oflag=direct conv=notrunc,fsync bs=4096 status=none
		y 4 | dd of=plain seek=1 oflag=direct conv=notrunc bs=4096 status=none
		y 3 | dd of=fua oflag=direct,dsync conv=notrunc bs=4096 status=none
		y 5 | dd of=plain seek=2 oflag=direct conv=notrunc bs=4096 status=none`)
	do(t, l.Cycle(t.Context(), lab.A))
	got := sh(t, l, lab.A, "cd /pool; for f in plain sync fua; do head -c1 $f | tr '\\0' 0; done; dd if=plain bs=4096 skip=2 count=1 status=none | head -c1 | tr '\\0' 0")
	if !strings.HasSuffix(got, "0") || got[1:3] != "23" {
		t.Errorf("first bytes of plain, sync, fua and the last unsynced block: %q, want .23 and 0", got)
	}
	s, err := l.Status(t.Context())
	do(t, err)
	if d := s.Drives["a.1"]; d.Cuts != 1 || d.LostBlocks == 0 || d.Flushes == 0 || d.Misaligned != 0 {
		t.Errorf("drive a.1: %+v", d)
	}
}

// TestCutUnderHangingDrive: a node whose processes wait on a drive that does not answer dies at a cut all the same.
func TestCutUnderHangingDrive(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	do(t, l.Call(t.Context(), nil, "disk", "a.1", "hang"))
	sh(t, l, lab.A, "(dd if=/dev/zero of=/pool/f bs=4096 count=9 oflag=direct conv=fsync >/dev/null 2>&1 &) ; sleep 0.2")
	began := time.Now()
	do(t, l.Call(t.Context(), nil, "disk", "a.1", "ok")) // the fault is the drive's; a new power-on must not inherit it
	do(t, l.Call(t.Context(), nil, "disk", "a.1", "hang"))
	sh(t, l, lab.A, "(sync -f /pool >/dev/null 2>&1 &) ; (dd if=/dev/zero of=/pool/g bs=4096 count=9 oflag=direct conv=fsync >/dev/null 2>&1 &) ; sleep 0.2")
	do(t, l.Cut(t.Context(), lab.A))
	do(t, l.Call(t.Context(), nil, "disk", "a.1", "ok"))
	do(t, l.On(t.Context(), lab.A)) // waits until nothing of the former life is left
	t.Logf("cut and on under a hanging drive took %v", time.Since(began))
	sh(t, l, lab.A, "touch /pool/alive && sync -f /pool")
}

const ipmi = "ipmitool -I lanplus -C 17 -N 1 -R 1 -U fence -P lab-only-4711 -L operator -H "

// TestFencing: BMC and PDU are wired to the nodes, and a node without AC has a silent BMC.
func TestFencing(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	power := func(want string) {
		t.Helper()
		do(t, l.Wait(t.Context(), 15*time.Second, "truth:machines.b.power="+want))
	}
	sh(t, l, lab.A, ipmi+"192.0.2.12 power off")
	power("off")
	if got := sh(t, l, lab.A, ipmi+"192.0.2.12 power status"); !strings.Contains(got, "is off") {
		t.Errorf("the BMC of a node that it switched off says %q", got)
	}
	sh(t, l, lab.A, ipmi+"192.0.2.12 power on")
	power("on")
	do(t, l.BMC(t.Context(), lab.B, "mute"))
	sh(t, l, lab.A, "! "+ipmi+"192.0.2.12 power status")
	do(t, l.BMC(t.Context(), lab.B, "ok"))
	do(t, l.Cut(t.Context(), lab.B))
	sh(t, l, lab.A, "! "+ipmi+"192.0.2.12 power status")
	do(t, l.On(t.Context(), lab.B))
	power("on")
	const pdu = "mbpoll -m tcp -a 1 -0 -t 0 -1 -q 192.0.2.21 -p 502 "
	sh(t, l, lab.A, pdu+"-r 103 0")
	power("on") // one supply is enough
	sh(t, l, lab.A, pdu+"-r 104 0")
	power("off")
	sh(t, l, lab.A, "! "+ipmi+"192.0.2.12 power status")
	do(t, l.On(t.Context(), lab.B)) // cords are in, the outlets are not: waits
	power("off")
	sh(t, l, lab.A, pdu+"-r 103 1")
	power("on")
	if got := sh(t, l, lab.A, ipmi+"192.0.2.12 power status"); !strings.Contains(got, "is on") {
		t.Errorf("after the outlet came back the BMC says %q", got)
	}
}

// TestWatchdog: a node that stops petting is reset, one that hangs too; a node that pets or has closed properly is not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	const arm = `import fcntl,struct,time,os
f=os.open("/dev/watchdog",os.O_WRONLY)
assert struct.unpack("i",fcntl.ioctl(f,0xc0045706,struct.pack("i",%d)))[0]==%d
assert struct.unpack("i",fcntl.ioctl(f,0x80045707,struct.pack("i",0)))[0]==%d
assert b"watchdog" in fcntl.ioctl(f,0x80285700,bytes(40))
%s
`
	pet := func(node string, seconds int, then string) {
		t.Helper()
		script := fmt.Sprintf(arm, seconds, seconds, seconds, then)
		if out, err := l.Exec(t.Context(), node, "python3", "-c", script); err != nil {
			t.Fatalf("%s %v", out, err)
		}
	}
	pet(lab.B, 1, `os.write(f,b"V"); os.close(f)`)
	pet(lab.A, 1, "for i in range(8): os.write(f,b'1'); time.sleep(0.25)") // then ends without V
	do(t, l.Wait(t.Context(), 10*time.Second, "truth:machines.a.watchdog_resets=1", "truth:machines.a.boots=2", "truth:machines.a.power=on"))
	do(t, l.Wait(t.Context(), time.Second, "truth:machines.b.watchdog_resets=0", "truth:machines.b.watchdog=idle", "truth:machines.a.cause=watchdog"))
	until(t, l, lab.A, "true") // power is on before the init is there
	pet(lab.A, 1, "if os.fork()==0:\n os.close(0); os.close(1); os.close(2)\n while True: os.write(f,b'1'); time.sleep(0.2)")
	do(t, l.Hang(t.Context(), lab.A))
	do(t, l.Wait(t.Context(), 10*time.Second, "truth:machines.a.watchdog_resets=2", "truth:machines.a.power=on"))
}

// TestHang: a hung node acknowledges TCP and runs nothing; it goes on after resume.
func TestHang(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{Units: map[string][]lab.Unit{lab.A: {{Name: "clock", Argv: []string{"sh", "-c", "while :; do echo tick; sleep 0.02; done"}}, talker[0]}}})
	until(t, l, lab.A, "ss -ltn | grep -q :9")
	ticks := func() int { return strings.Count(readFile(t, l.LogPath(lab.A, "clock")), "\n") }
	do(t, l.Hang(t.Context(), lab.A))
	do(t, l.Wait(t.Context(), time.Second, "truth:machines.a.power=hung"))
	was := ticks()
	sh(t, l, lab.Client, `python3 -c 'import socket; s=socket.create_connection(("198.51.100.11",9),timeout=2); s.send(b"x")'; sleep 0.3`)
	if is := ticks(); is > was {
		t.Errorf("%d ticks while hung", is-was)
	}
	do(t, l.Resume(t.Context(), lab.A))
	do(t, l.Until(t.Context(), 5*time.Second, "ticks again", func(context.Context) (string, bool) { return "none", ticks() > was }))
}

// fakeVM is a process that looks to the monitor like a QEMU of libvirt.
const fakeVM = `(exec -a qemu-system-x86_64 python3 -c 'import time; time.sleep(60)' -name guest=vm1,debug-threads=on -uuid 11111111-2222-3333-4444-555555555555 >/dev/null 2>&1 &)`

// TestRunnerOverlap: the monitor sees a VM that runs on both nodes, also when one of them is frozen, and counts no node
// without power.
func TestRunnerOverlap(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	const id = "11111111-2222-3333-4444-555555555555"
	look := func(what string, ok func(lab.Truth) bool) {
		t.Helper()
		do(t, l.Until(t.Context(), 5*time.Second, what, func(ctx context.Context) (string, bool) {
			tr, err := l.Truth(ctx)
			return fmt.Sprintf("%+v %v", tr.VMs, err), err == nil && ok(tr)
		}))
	}
	sh(t, l, lab.A, fakeVM)
	look("VM on a", func(tr lab.Truth) bool { return len(tr.VMs[id]) == 1 && tr.VMs[id][0].Name == "vm1" })
	do(t, l.Cut(t.Context(), lab.A))
	look("no VM", func(tr lab.Truth) bool { return len(tr.VMs[id]) == 0 })
	sh(t, l, lab.B, fakeVM)
	look("VM on b", func(tr lab.Truth) bool { return len(tr.VMs[id]) == 1 && tr.DoubleRunMS == 0 })
	do(t, l.Hang(t.Context(), lab.B))
	do(t, l.On(t.Context(), lab.A))
	sh(t, l, lab.A, fakeVM)
	look("overlap", func(tr lab.Truth) bool { return tr.DoubleRunMS > 100 && len(tr.Overlaps) == 1 })
	tr, err := l.Truth(t.Context())
	do(t, err)
	if !slices.ContainsFunc(tr.Events, func(e lab.Event) bool { return e.Kind == "double-run" }) {
		t.Error("no event of kind double-run")
	}
}

// TestLegs: equal legs are equal, one changed byte is found, a missing leg is no equality.
func TestLegs(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	for _, node := range []string{lab.A, lab.B} {
		sh(t, l, node, "mkdir /pool/v1 && yes duet | head -c 5246976 > /pool/v1/data && sync -f /pool")
	}
	c, err := l.CompareLegs(t.Context())
	do(t, err)
	if v := c.Volumes["v1"]; !c.Equal || v.SizeA != 5246976 || v.SumA != v.SumB {
		t.Errorf("equal legs: %+v", c)
	}
	sh(t, l, lab.B, "printf X | dd of=/pool/v1/data bs=1 seek=3500000 conv=notrunc,fsync status=none; mkdir /pool/v2 && head -c 4096 /dev/zero > /pool/v2/data")
	c, err = l.CompareLegs(t.Context())
	do(t, err)
	if v := c.Volumes["v1"]; c.Equal || v.Equal || !slices.Equal(v.Diff, []int{3}) || c.Volumes["v2"].SizeA != -1 {
		t.Errorf("different legs: %+v", c)
	}
}
