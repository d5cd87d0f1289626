// Package pool is where legs live: a directory of one file system, one folder per volume with the two files of a
// leg, data and meta (replication.md section 3). It makes, lists, opens and removes them.
//
// It promises that a crash or power cut at any step of Create or Remove leaves no leg or a whole one: a leg is
// built under a name of its own (".new-<id>"), its files are synced, then its folder, then it is renamed, then
// the pool's folder is synced. What an interrupted Create left is deleted by the next OpenDir. A leg is thick
// and written: every byte of data was written as zero before the leg has its name, so a write never finds the
// file system full, and never pays for a journal commit that turns an unwritten extent into a written one.
//
// It refuses a second user of the same pool (flock on the folder), a size that is not a multiple of 4096, a volume
// that exists with another size, and to begin what does not fit. It never formats an existing leg.
//
// Remove only renames to ".trash-<id>": what was removed by mistake can be brought back by hand until Purge.
// Whether a grant still names the volume is the caller's knowledge, and its duty to check. Errors name the
// volume and the step; after one, Create has cleaned up, or the next OpenDir will.
package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/meta"
)

// Errors callers branch on; test with errors.Is.
var (
	ErrFull    = errors.New("pool is full")
	ErrSize    = errors.New("size is not a positive multiple of 4096")
	ErrExists  = errors.New("leg exists")
	ErrMissing = errors.New("no such leg")
	ErrLocked  = errors.New("pool is used by another process")
)

const (
	newPrefix   = ".new-"
	trashPrefix = ".trash-"
	dataName    = "data"
	metaName    = "meta"

	// reserveBytes stays free for the file system's own tables: ext4 and XFS slow down and refuse metadata
	// when the last blocks go.
	reserveBytes = 16 << 20
	// trashMax bounds how often one volume id can be removed before Purge.
	trashMax = 1000
)

// Entry is one leg of the pool.
type Entry struct {
	Volume    meta.ID
	SizeBytes int64 // of data
}

// Dir is a directory pool: <path>/<volume id>/{data,meta}. Its methods may be called at the same time, except
// Create and Remove of one volume.
type Dir struct {
	path string
	lock *os.File
	step func(what string) error // before each step of Create and Remove; tests stop the world here
}

// OpenDir locks an existing folder as a pool and removes what an interrupted Create left.
func OpenDir(path string) (*Dir, error) {
	lock, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("pool %s: %w", path, err), lock.Close())
	}
	d := &Dir{path: path, lock: lock, step: func(string) error { return nil }}
	if err := d.clean(newPrefix); err != nil {
		return nil, errors.Join(fmt.Errorf("pool %s: remains of an interrupted create: %w", path, err), lock.Close())
	}
	return d, nil
}

// Close gives the lock back. Legs that are open stay open.
func (d *Dir) Close() error { return d.lock.Close() }

// Open opens both objects of a leg under their exclusive locks.
func (d *Dir) Open(id meta.ID) (data, metadata block.Device, err error) {
	dataFile, err := block.OpenFile(filepath.Join(d.path, id.String(), dataName))
	if err != nil {
		return nil, nil, d.missing(id, err)
	}
	metaFile, err := block.OpenFile(filepath.Join(d.path, id.String(), metaName))
	if err != nil {
		return nil, nil, errors.Join(d.missing(id, err), dataFile.Close())
	}
	return dataFile, metaFile, nil
}

func (d *Dir) missing(id meta.ID, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return fmt.Errorf("leg of volume %s: %w", id, err)
}

// List is every leg, ordered by volume id. Other names in the folder are not ours and are left alone.
func (d *Dir) List() ([]Entry, error) {
	names, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	var list []Entry
	for _, n := range names {
		id, err := meta.ParseID(n.Name())
		if err != nil || !n.IsDir() {
			continue
		}
		size, err := d.size(id)
		if err != nil {
			return nil, d.missing(id, err)
		}
		list = append(list, Entry{Volume: id, SizeBytes: size})
	}
	return list, nil
}

// size is that of a leg's data.
func (d *Dir) size(id meta.ID) (int64, error) {
	info, err := os.Stat(filepath.Join(d.path, id.String(), dataName))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Free is how many bytes of files still fit.
func (d *Dir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, fmt.Errorf("pool %s: %w", d.path, err)
	}
	return max(int64(st.Bavail)*st.Bsize-reserveBytes, 0), nil
}

// Renew makes a new leg of a closed one, in its place: another leg id, state new, nothing known of its data, which stays and is
// compared with the other leg's when that brings it up to date. It is for a leg whose disk failed and that nothing counts any
// more. A crash in between leaves a leg without a superblock, which is refused until it is renewed again.
func (d *Dir) Renew(id, site meta.ID, node uint8, software string) error {
	data, metadata, err := d.Open(id)
	if err != nil {
		return err
	}
	err = meta.Erase(metadata)
	if err == nil {
		err = meta.Format(metadata, meta.Superblock{
			Site: site, Volume: id, Node: node, VolumeBytes: uint64(data.Size()), DataBytes: uint64(data.Size()), Software: software,
		})
	}
	if err != nil {
		err = fmt.Errorf("leg of volume %s: %w", id, err)
	}
	return errors.Join(err, data.Close(), metadata.Close())
}

// Remove renames the leg to trash. The leg must be closed.
func (d *Dir) Remove(id meta.ID) error {
	data, metadata, err := d.Open(id) // nobody uses it
	if err != nil {
		return err
	}
	trash, err := d.trashName(id)
	if err == nil {
		err = d.run(id, []step{
			{"rename to trash", func() error { return os.Rename(filepath.Join(d.path, id.String()), trash) }},
			{"sync pool", func() error { return syncDir(d.path) }},
		})
	}
	return errors.Join(err, data.Close(), metadata.Close())
}

// trashName is the first free one of .trash-<id>, .trash-<id>.1, ...
func (d *Dir) trashName(id meta.ID) (string, error) {
	name := filepath.Join(d.path, trashPrefix+id.String())
	for i := range trashMax {
		try := name
		if i > 0 {
			try = fmt.Sprintf("%s.%d", name, i)
		}
		if _, err := os.Lstat(try); errors.Is(err, fs.ErrNotExist) {
			return try, nil
		}
	}
	return "", fmt.Errorf("leg of volume %s: removed %d times; empty the trash first", id, trashMax)
}

// Purge deletes all trash.
func (d *Dir) Purge() error {
	if err := d.clean(trashPrefix); err != nil {
		return fmt.Errorf("trash of pool %s: %w", d.path, err)
	}
	return nil
}

// clean deletes the folders with a prefix.
func (d *Dir) clean(prefix string) error {
	names, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		if strings.HasPrefix(n.Name(), prefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(d.path, n.Name())))
		}
	}
	return errors.Join(append(errs, syncDir(d.path))...)
}

// step is one thing that a crash may fall before or after.
type step struct {
	what string
	do   func() error
}

func (d *Dir) run(id meta.ID, steps []step) error {
	for _, s := range steps {
		err := d.step(s.what)
		if err == nil {
			err = s.do()
		}
		if err != nil {
			return fmt.Errorf("leg of volume %s: %s: %w", id, s.what, err)
		}
	}
	return nil
}

// syncDir makes the names in a folder survive a power cut.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
