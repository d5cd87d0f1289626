// Package durable replaces a small file so that after a power cut it is the old one or the new one, never a mix.
//
// Write aside, sync the file, rename, sync the directory: the order of the rename(2) and fsync(2) manual pages. An
// error at any step is final for that write: the caller must not believe that either version is on the disk, and must
// not retry the sync (a second fsync may report success for pages that were dropped by the first).
package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile makes path hold b, durably.
func WriteFile(path string, b []byte, perm os.FileMode) error {
	return writeFile(path, b, perm, (*os.File).Sync)
}

// writeFile has the sync as a parameter so that a test sees the order.
func writeFile(path string, b []byte, perm os.FileMode, sync func(*os.File) error) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return fmt.Errorf("durable write: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path), sync)
	}
	if err != nil {
		return fmt.Errorf("durable write of %s: %w", path, err)
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error { return syncDir(dir, (*os.File).Sync) }

func syncDir(dir string, sync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = sync(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
