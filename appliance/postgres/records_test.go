package postgres

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

func encoded(version uint64) []byte {
	return decide.AppendRecord(nil, decide.Record{Epoch: 1, Version: version, SystemID: 7, Copies: membership.Both, Timeline: 1})
}

// What was saved is found by its hash, also by the next process; what a membership record names is never dropped.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	first := sha256.Sum256(encoded(1))
	named := func(h [sha256.Size]byte) bool { return h == first }
	for v := uint64(1); v <= 3*maxRecords; v++ {
		if hash, err := s.Save(encoded(v), named); err != nil || hash != sha256.Sum256(encoded(v)) {
			t.Fatal(err)
		}
	}
	if _, err := s.Save([]byte("no record"), named); err == nil {
		t.Error("bytes that are no record were saved")
	}
	if err := os.WriteFile(filepath.Join(dir, "torn"), encoded(2)[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Records{s, next} {
		if r, ok := s.Find(first); !ok || r.Version != 1 {
			t.Error("the one that is named is gone")
		}
		if r, ok := s.Find(sha256.Sum256(encoded(3 * maxRecords))); !ok || r.Version != 3*maxRecords {
			t.Error("the newest is gone")
		}
		if _, ok := s.Find(sha256.Sum256(encoded(2))); ok {
			t.Error("old ones are kept for ever")
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != maxRecords+1 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// The password file names a host with colons as libpq reads it (PostgreSQL manual 34.16).
func TestPassfileQuotesItsHost(t *testing.T) {
	c := Config{Run: t.TempDir(), PeerHost: "fe80::b%mirror0", PeerPort: 5432, Secret: "a:b", UID: os.Getuid(), GID: os.Getgid()}
	if err := c.passfile(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(c.file("passfile"))
	if want := `fe80\:\:b%mirror0:5432:*:duet_repl:a\:b` + "\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
}
