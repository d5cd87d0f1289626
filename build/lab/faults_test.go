package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/build/lab"
)

// TestPanic: a kernel that stops at once is silent on every cable while its BMC says "on"; "off" then holds.
func TestPanic(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	const knock = "timeout 1 bash -c '</dev/tcp/198.51.100.12/9' 2>/dev/null"
	sh(t, l, lab.A, knock+"; test $? -eq 1") // refused: somebody is there
	do(t, l.Panic(t.Context(), lab.B))
	sh(t, l, lab.A, knock+"; test $? -eq 124") // no answer at all
	if got := sh(t, l, lab.A, ipmi+"192.0.2.12 power status"); !strings.Contains(got, "is on") {
		t.Errorf("the BMC of a node whose kernel stopped says %q", got)
	}
	s, err := l.Status(t.Context())
	do(t, err)
	if got := s.Machines[lab.B].Power; got != "crashed" {
		t.Errorf("power of b is %q, want crashed", got)
	}
	sh(t, l, lab.A, ipmi+"192.0.2.12 power off")
	do(t, l.Wait(t.Context(), 15*time.Second, "truth:machines.b.power=off"))
	do(t, l.On(t.Context(), lab.B))
	sh(t, l, lab.B, "true")
}

// echo answers every datagram on port 9; ask sends some, waits for each, and prints how many came back and the median
// of their round trips in milliseconds.
var echo = []lab.Unit{{Name: "echo", Argv: []string{"python3", "-c", `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("0.0.0.0",9))
while True: d,a=s.recvfrom(99); s.sendto(d,a)
`}}}

const ask = `python3 -c '
import socket,sys,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(float(sys.argv[2])); took=[]
for i in range(int(sys.argv[1])):
  t=time.monotonic(); s.sendto(b"%d"%i,("203.0.113.13",9))
  try:
    while int(s.recv(99))!=i: pass
    took.append(1000*(time.monotonic()-t))
  except socket.timeout: pass
print(len(took), int(sorted(took)[len(took)//2]) if took else -1)' `

// TestWitnessSlow: what goes to the witness is late and some of it is lost; afterwards all is as before.
func TestWitnessSlow(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{Units: map[string][]lab.Unit{lab.Witness: echo}})
	asked := func(machine, count, wait string) (back, ms int) {
		t.Helper()
		got := sh(t, l, machine, ask+count+" "+wait)
		if _, err := fmt.Sscan(got, &back, &ms); err != nil {
			t.Fatalf("ask said %q: %v", got, err)
		}
		return back, ms
	}
	until(t, l, lab.A, ask+"1 1 | grep -q ^1")
	do(t, l.Call(t.Context(), nil, "witness", "slow", "100ms", "0%"))
	if back, ms := asked(lab.A, "3", "5"); back != 3 || ms < 200 || ms > 1500 {
		t.Errorf("late by 100 ms each way: %d of 3 came back, after %d ms", back, ms)
	}
	do(t, l.LinkCut(t.Context(), "lan")) // other cables may be cut and mended meanwhile
	do(t, l.LinkRestore(t.Context(), "lan"))
	do(t, l.Call(t.Context(), nil, "witness", "slow", "1ms", "30%"))
	if back, _ := asked(lab.B, "60", "0.1"); back < 10 || back > 50 { // 49 % of 60 are 29; six sigma each way
		t.Errorf("30 %% lost each way: %d of 60 came back", back)
	}
	do(t, l.Call(t.Context(), nil, "witness", "slow", "1ms", "100%"))
	if back, _ := asked(lab.B, "3", "0.2"); back != 0 {
		t.Errorf("all lost: %d of 3 came back", back)
	}
	do(t, l.Call(t.Context(), nil, "witness", "fast"))
	until(t, l, lab.A, ask+"3 1 | grep -q ^3")
	do(t, l.Call(t.Context(), nil, "witness", "pause"))
	if back, _ := asked(lab.A, "2", "0.3"); back != 0 {
		t.Errorf("a witness that is stopped in its tracks: %d of 2 came back", back)
	}
	do(t, l.Call(t.Context(), nil, "witness", "resume"))
	until(t, l, lab.A, ask+"3 1 | grep -q ^3")
}

// TestClock: a node's boot clock is where it was set, from the next power-on.
func TestClock(t *testing.T) {
	t.Parallel()
	l := up(t, lab.Options{})
	do(t, l.Call(t.Context(), nil, "clock", lab.B, "8760h"))
	do(t, l.Cycle(t.Context(), lab.B))
	if got := sh(t, l, lab.B, "cut -d. -f1 /proc/uptime"); len(strings.TrimSpace(got)) != len("31536000") {
		t.Errorf("uptime of b is %q s, want a year", got)
	}
}
