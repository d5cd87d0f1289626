package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"duet/witness/enrolment"
	"duet/witness/server"
	"duet/witness/store"
)

// sick is a listener that has no open file left, twice.
type sick struct {
	net.Listener
	failures int
}

func (l *sick) Accept() (net.Conn, error) {
	if l.failures++; l.failures <= 2 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

// A door whose listener fails for a while tells the status again afterwards, and ends with the process.
func TestDoorOutlivesErrors(t *testing.T) {
	dir := t.TempDir()
	_, identity, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	registers, _, err := store.Open(store.Config{Path: filepath.Join(dir, "registers.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer registers.Close()
	s, err := server.New(server.Config{Identity: identity, Sites: enrolment.Open(dir, func(error) {}), Store: registers})
	if err != nil {
		t.Fatal(err)
	}
	d, err := openDoor(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.ln = &sick{Listener: d.ln}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.serve(ctx, s, slog.New(slog.DiscardHandler))
	}()
	conn, err := net.Dial("unix", filepath.Join(dir, doorName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var status server.Status
	if err := json.NewDecoder(conn).Decode(&status); err != nil || status.Store.Kind != "embedded" {
		t.Errorf("%+v, %v", status, err)
	}
	cancel()
	<-ended
}
