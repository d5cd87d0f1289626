package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The order content, name, directory is the promise; the syncs are seen in it.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var order []string
	err := writeFile(path, []byte("x"), 0o600, func(f *os.File) error {
		_, err := os.Stat(path)
		order = append(order, fmt.Sprintf("%s renamed=%v", filepath.Base(f.Name()), err == nil))
		return f.Sync()
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("[file.new renamed=false %s renamed=true]", filepath.Base(dir)); fmt.Sprint(order) != want {
		t.Fatalf("%v, want %s", order, want)
	}
}

// A sync that fails is an error wherever it falls, and the old or the new content is there whole.
func TestFailedSync(t *testing.T) {
	for at := 1; at <= 2; at++ {
		path := filepath.Join(t.TempDir(), "file")
		if err := WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		calls, planted := 0, errors.New("planted")
		err := writeFile(path, []byte("new"), 0o600, func(f *os.File) error {
			if calls++; calls == at {
				return planted
			}
			return f.Sync()
		})
		if !errors.Is(err, planted) {
			t.Fatalf("sync %d: %v", at, err)
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != []string{"old", "new"}[at-1] {
			t.Fatalf("sync %d: %q %v", at, data, err)
		}
	}
}
