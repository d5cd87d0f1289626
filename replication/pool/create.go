package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/meta"
)

// Spec says what leg to create.
type Spec struct {
	Site, Volume meta.ID
	Node         uint8 // 0 a, 1 b
	SizeBytes    int64
	Software     string // version of the creator, for people
}

// zeroPieceBytes is how much Create writes between two looks at its context.
const zeroPieceBytes = 4 << 20

// Create makes a whole leg: data full of zeroes, meta formatted in state New. progress may be nil; it is called
// from this goroutine with bytes written so far. When ctx ends, or anything fails, nothing is left.
func (d *Dir) Create(ctx context.Context, s Spec, progress func(done, total int64)) error {
	if err := d.admit(s); err != nil {
		return fmt.Errorf("leg of volume %s: %w", s.Volume, err)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	temporary := filepath.Join(d.path, newPrefix+s.Volume.String())
	if err := os.RemoveAll(temporary); err != nil {
		return fmt.Errorf("leg of volume %s: %w", s.Volume, err)
	}
	data, metadata := filepath.Join(temporary, dataName), filepath.Join(temporary, metaName)
	final := filepath.Join(d.path, s.Volume.String())
	renamed := false
	err := d.run(s.Volume, []step{
		{"make folder", func() error { return os.Mkdir(temporary, 0o700) }},
		{"allocate data", func() error { return allocate(data, s.SizeBytes) }},
		{"allocate meta", func() error { return allocate(metadata, meta.SizeFor(s.SizeBytes)) }},
		{"write zeroes", func() error { return writeZeroes(ctx, data, progress) }},
		{"format meta", func() error { return format(metadata, s) }},
		{"sync folder", func() error { return syncDir(temporary) }},
		{"rename", func() error { return os.Rename(temporary, final) }},
		{"sync pool", func() error { renamed = true; return syncDir(d.path) }},
	})
	if err != nil && !renamed && !errors.Is(err, errCrash) {
		err = errors.Join(err, os.RemoveAll(temporary))
	}
	return err
}

// errCrash is how tests stop Create without its clean-up, as a power cut does.
var errCrash = errors.New("crash")

// admit says whether the leg may be created.
func (d *Dir) admit(s Spec) error {
	if s.SizeBytes <= 0 || s.SizeBytes%block.Unit != 0 {
		return fmt.Errorf("%w: %d", ErrSize, s.SizeBytes)
	}
	switch size, err := d.size(s.Volume); {
	case err == nil && size == s.SizeBytes:
		return ErrExists
	case err == nil:
		return fmt.Errorf("%w with %d bytes, not %d", ErrExists, size, s.SizeBytes)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	free, err := d.Free()
	if err != nil {
		return err
	}
	if need := s.SizeBytes + meta.SizeFor(s.SizeBytes); s.SizeBytes > free || need > free {
		return fmt.Errorf("%w: needs %d bytes, %d are free", ErrFull, need, free)
	}
	return nil
}

// allocate makes a file with all its blocks, in as few extents as the file system finds.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case errors.Is(err, unix.ENOSPC):
		err = fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EOPNOTSUPP): // the zeroes will allocate
		err = f.Truncate(size)
	}
	// The size must be durable before the data sync below can mean anything.
	return errors.Join(err, f.Sync(), f.Close())
}

// writeZeroes fills a file and syncs it.
func writeZeroes(ctx context.Context, path string, progress func(done, total int64)) error {
	f, err := block.OpenFile(path)
	if err != nil {
		return err
	}
	total := f.Size()
	for done := int64(0); done < total && err == nil; {
		if err = context.Cause(ctx); err != nil {
			break
		}
		piece := min(zeroPieceBytes, total-done)
		if err = f.Zero(done, piece, block.Cached); err == nil {
			done += piece
			progress(done, total)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func format(path string, s Spec) error {
	f, err := block.OpenFile(path)
	if err != nil {
		return err
	}
	err = meta.Format(f, meta.Superblock{
		Site: s.Site, Volume: s.Volume, Node: s.Node, Flags: meta.FlagZeroed,
		VolumeBytes: uint64(s.SizeBytes), DataBytes: uint64(s.SizeBytes), Software: s.Software,
	})
	return errors.Join(err, f.Close()) // Format's last write is durable and comes after a sync
}
