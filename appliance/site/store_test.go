package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sprint(format string, v any) string { return fmt.Sprintf(format, v) }

func TestStoreKeepsBothOverAReopen(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Document(); ok {
		t.Fatal("a fresh store has a document")
	}
	d := founded(t)
	r := s.Runtime().Next(3)
	r.StoppedVMs["x"] = true
	if err := errors.Join(s.SaveDocument(d), s.SaveRuntime(r)); err != nil {
		t.Fatal(err)
	}
	s, err = OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	back, _ := s.Document()
	if h1, _ := d.Hash(); true {
		if h2, _ := back.Hash(); h1 != h2 {
			t.Fatal("another document came back")
		}
	}
	if got := s.Runtime(); !got.StoppedVMs["x"] || got.Version != 1 || got.Epoch != 3 {
		t.Fatalf("%+v", got)
	}
	if err := s.Forget(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Document(); ok || s.Runtime().Version != 0 {
		t.Fatal("not forgotten")
	}
}

func TestStoreRefusesWhatItCannotUnderstand(t *testing.T) {
	for file, text := range map[string]string{documentFile: `{"format":1}`, runtimeFile: `{"version":"x"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(dir); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

func TestOlderRuntimeChangesNothing(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Runtime{{Epoch: 2, Version: 5}, {Epoch: 1, Version: 9}, {Epoch: 2, Version: 4}, {Epoch: 3, Version: 1}} {
		if err := s.SaveRuntime(r); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.Runtime(); r.Epoch != 3 || r.Version != 1 {
		t.Fatalf("%+v", r)
	}
}

// A write that fails is final, and what may not be durable is not shown.
func TestFailedWriteIsFinal(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveDocument(founded(t)); err != nil {
		t.Fatal(err)
	}
	sound := s.write
	s.write = func(string, []byte, os.FileMode) error { return errors.New("planted") }
	changed := founded(t)
	changed.Version = 2
	if err := s.SaveDocument(changed); err == nil || !strings.Contains(err.Error(), "planted") {
		t.Fatalf("got %v", err)
	}
	s.write = sound
	for what, err := range map[string]error{"document": s.SaveDocument(changed), "runtime": s.SaveRuntime(Runtime{Version: 1}), "forget": s.Forget()} {
		if err == nil {
			t.Errorf("%s: the store goes on after a failed write", what)
		}
	}
	if got, _ := s.Document(); got.Version != 1 {
		t.Fatal("a change that may not be durable is shown")
	}
	if _, err := OpenStore(dir); err != nil {
		t.Fatal(err)
	}
}

func bootstrap() Bootstrap {
	return Bootstrap{
		Node: "a", ChassisSerial: "LAB-1", DataDir: "/data/duet", PoolDir: "/pool", RunDir: "/run/duet",
		Paths: []Path{
			{Name: "mirror0", Local: "fe80::a%mirror0", Peer: "fe80::b%mirror0", Data: true, Chassis: true},
			{Name: "lan0", Local: "198.51.100.11", Peer: "198.51.100.12"},
		},
		PeerPort: 7701, DataPort: 7702, LibvirtSocket: "/run/libvirt/libvirt-sock",
	}
}

func TestLoadBootstrap(t *testing.T) {
	load := func(b Bootstrap) (Bootstrap, error) {
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "node.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadBootstrap(file)
	}
	clear := bootstrap()
	clear.Paths[0].DataTLS = "off"
	if b, err := load(clear); err != nil || b.Paths[0].DataTLS != "off" {
		t.Fatalf("%+v %v", b, err)
	}
	if b, err := load(bootstrap()); err != nil || b.Accel != "tcg" {
		t.Fatalf("%+v %v", b, err)
	}
	for field, spoil := range map[string]func(*Bootstrap){
		"node":              func(b *Bootstrap) { b.Node = "c" },
		"chassis_serial":    func(b *Bootstrap) { b.ChassisSerial = "" },
		"data_dir":          func(b *Bootstrap) { b.DataDir = "data" },
		"watchdog":          func(b *Bootstrap) { b.Watchdog = "watchdog" },
		"peer_port":         func(b *Bootstrap) { b.PeerPort = 0 },
		"data_port":         func(b *Bootstrap) { b.DataPort = b.PeerPort },
		"accel":             func(b *Bootstrap) { b.Accel = "xen" },
		"paths":             func(b *Bootstrap) { b.Paths[0].Data = false },
		"paths[0].local":    func(b *Bootstrap) { b.Paths[0].Local = "fe80::a" },
		"paths[1].peer":     func(b *Bootstrap) { b.Paths[1].Peer = b.Paths[1].Local },
		"paths[0].data_tls": func(b *Bootstrap) { b.Paths[0].DataTLS = "no" },
		"paths[1].data_tls": func(b *Bootstrap) { b.Paths[1].DataTLS, b.Paths[1].Data = "off", true }, // others reach it
		"paths[1].name":     func(b *Bootstrap) { b.Paths[1].Name = "mirror0" },
	} {
		b := bootstrap()
		spoil(&b)
		_, err := load(b)
		var fields FieldErrors
		if !errors.As(err, &fields) || len(fields) != 1 || fields[0].Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := LoadBootstrap(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
