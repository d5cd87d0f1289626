package block_test

import (
	"os"
	"path/filepath"
	"testing"

	"duet/replication/block"
	"duet/replication/block/internal/devicetest"
)

func TestFileConforms(t *testing.T) {
	devicetest.Run(t, func(t *testing.T) block.Device { return openFile(t) })
}

func openFile(t *testing.T) *block.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, make([]byte, devicetest.SizeBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := block.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
