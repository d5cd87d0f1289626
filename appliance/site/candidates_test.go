package site

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// version is a document that differs in its version only.
func version(t *testing.T, v uint64) Document {
	t.Helper()
	d := founded(t)
	d.Version = v
	return d
}

func holds(t *testing.T, s *Store, d Document) bool {
	t.Helper()
	hash, err := d.Hash()
	if err != nil {
		t.Fatal(err)
	}
	got, ok := s.Find(hash)
	return ok && got.Version == d.Version
}

// A candidate that was saved is there after a crash, beside the document; the document is not touched by it.
func TestCandidateIsDurableBesideTheDocument(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	one, two := version(t, 1), version(t, 2)
	if err := errors.Join(s.SaveDocument(one), s.SaveCandidate(two), s.SaveCandidate(two)); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	if d, _ := s.Document(); d.Version != 1 || !holds(t, s, one) || !holds(t, s, two) {
		t.Fatalf("version %d; document %v, candidate %v", d.Version, holds(t, s, one), holds(t, s, two))
	}
	// It becomes the document; a crash before its file is removed, or never, changes nothing.
	if err := s.SaveDocument(two); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	if d, _ := s.Document(); d.Version != 2 || !holds(t, s, two) {
		t.Fatalf("version %d", d.Version)
	}
}

// A crash leaves the files before a write or behind it. What was cut off inside one is no version, and no error: no
// record names it, because nobody was told that it is here.
func TestCandidateCutOff(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SaveDocument(version(t, 1)), s.SaveCandidate(version(t, 2))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "half": `{"format":1,"version":3,`, "foreign": `{"format":1}`} {
		if err := os.WriteFile(filepath.Join(dir, candidatePrefix+name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	if !holds(t, s, version(t, 2)) || holds(t, s, version(t, 3)) || len(s.others) != 1 {
		t.Fatalf("%d candidates", len(s.others))
	}
}

// Of more than the limit the oldest goes, here and on the disk; the newest ones and the document stay.
func TestCandidatesAreLimited(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveDocument(version(t, 1)); err != nil {
		t.Fatal(err)
	}
	const last = candidatesMax + 4
	for v := uint64(2); v <= last; v++ {
		if err := s.SaveCandidate(version(t, v)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // and the same after a restart
		for v := uint64(1); v <= last; v++ {
			if want := v == 1 || v > last-candidatesMax; holds(t, s, version(t, v)) != want {
				t.Errorf("version %d is here: %v", v, !want)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, candidatePrefix+"*"))
		if err != nil || len(files) != candidatesMax {
			t.Errorf("%d files, %v", len(files), err)
		}
		if s, err = OpenStore(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// A candidate that cannot be written ends the store: the peer would be told that it is here.
func TestCandidateThatCannotBeWritten(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveDocument(version(t, 1)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no space")
	s.write = func(string, []byte, os.FileMode) error { return broken }
	if err := s.SaveCandidate(version(t, 2)); !errors.Is(err, broken) || holds(t, s, version(t, 2)) {
		t.Fatalf("%v, here: %v", err, holds(t, s, version(t, 2)))
	}
	if err := s.SaveCandidate(version(t, 1)); err == nil { // it is the document; still the disk is not trusted
		t.Fatal("a dead store vouches for a version")
	}
}

// A document that Check refuses never becomes a candidate; Forget removes them all.
func TestCandidatesOfAnotherKind(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	wrong := version(t, 2)
	wrong.SiteID = "not hex"
	if err := s.SaveCandidate(wrong); err == nil {
		t.Fatal("taken")
	}
	if err := errors.Join(s.SaveDocument(version(t, 1)), s.SaveCandidate(version(t, 2)), s.Forget()); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 0 {
		t.Fatalf("left: %v %v", files, err)
	}
}
