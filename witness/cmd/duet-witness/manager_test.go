package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/witness/register"
	"duet/witness/server"
	"duet/witness/wire"
)

// The real program speaks to a real notify socket: ready when it listens, alive at half of the watchdog's time, the end.
func TestServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	hear := func() string {
		t.Helper()
		buffer := make([]byte, 4096)
		n, err := manager.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
	p := newProcess(t)
	p.env = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000"}
	p.start()
	if said := hear(); said != "READY=1" {
		t.Errorf("first it said %q", said)
	}
	for range 3 {
		if said := hear(); said != "WATCHDOG=1\nSTATUS=serving" {
			t.Errorf("it said %q", said)
		}
	}
	ended := make(chan struct{})
	go func() {
		p.end(syscall.SIGTERM)
		close(ended)
	}()
	defer func() { <-ended }() // before the clean-up, which would wait for the same process
	for {
		said := hear()
		if said == "STOPPING=1" {
			break
		}
		if !strings.HasPrefix(said, "WATCHDOG=1") {
			t.Fatalf("it said %q", said)
		}
	}
}

// Status shows what happened, in words and as JSON, to whoever may open the socket.
func TestStatus(t *testing.T) {
	p := newProcess(t)
	a, b := p.enrol("s")
	p.enrol("another")
	p.start()
	if _, err := insist(t.Context(), p.client(a), wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID{1}}); err != nil {
		t.Fatal(err)
	}
	if got, err := insist(t.Context(), p.client(b), wire.Request{Op: wire.Push, Nonce: 2, RID: register.ID{9}}); err != nil || got.Result != wire.UnknownRegister {
		t.Fatalf("%+v, %v", got, err)
	}
	code, text, errs := call(t, "status", "--data", p.data, "-o", "json")
	var status server.Status
	if err := json.Unmarshal([]byte(text), &status); err != nil || code != 0 {
		t.Fatalf("%d %q %q %v", code, text, errs, err)
	}
	if status.Enrolled != 2 || status.Nodes != 2 || status.Connections < 2 || status.Requests["CREATE"] != 1 || status.Results["ok"] != 1 ||
		status.Refusals["unknown register"] != 1 || status.Store != (server.StoreStatus{Kind: "embedded", Healthy: true, Sites: 1, Registers: 1}) {
		t.Errorf("%+v", status)
	}
	_, text, _ = call(t, "status", "--data", p.data)
	for _, line := range []string{"store        embedded, healthy", "sites        2 enrolled, 1 with registers", "unknown register"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	info, err := os.Stat(filepath.Join(p.data, doorName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info.Mode(), err)
	}
	p.kill() // it leaves its socket, and the next one comes up all the same
	p.start()
	if code, _, errs := call(t, "status", "--data", p.data); code != 0 {
		t.Error(errs)
	}
}
