package block

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Source is the half of a Device that reads.
type Source interface {
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// Size is the length in bytes.
	Size() int64
}

// Reader is a Source on a file that stays as it is: the file is opened for reading alone, under a lock that excludes
// File and lets other Readers in, and its access time is not touched where the kernel permits that. It works on a read-only
// medium. The file may have any length; reads end at the last whole Unit.
type Reader struct {
	path   string
	fd     int
	size   int64
	direct bool
}

// OpenReader opens an existing file. Where the file system has no O_DIRECT, as those of images often have not, it reads
// through the page cache, and Direct says so.
func OpenReader(path string) (*Reader, error) {
	// O_NONBLOCK: a pipe in place of the file is refused, not waited for.
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_DIRECT | unix.O_NOATIME
	fd, err := -1, error(nil)
	for tries := 0; tries < 3; tries++ {
		fd, err = retry(func() (int, error) { return unix.Open(path, flags, 0) })
		switch {
		case errors.Is(err, unix.EPERM):
			flags &^= unix.O_NOATIME // for the owner of the file only
			continue
		case errors.Is(err, unix.EINVAL):
			flags &^= unix.O_DIRECT
			continue
		}
		break
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	size, err := lockAndMeasure(fd, unix.LOCK_SH)
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, unix.Close(fd))
	}
	return &Reader{path: path, fd: fd, size: size, direct: flags&unix.O_DIRECT != 0}, nil
}

// Size is the length of the file, perhaps not a multiple of Unit.
func (r *Reader) Size() int64 { return r.size }

// Direct says that reads come from the medium, not from the page cache.
func (r *Reader) Direct() bool { return r.direct }

// ReadAt fills p from off.
func (r *Reader) ReadAt(p []byte, off int64) error {
	if err := CheckBuffer(p, off, r.size); err != nil {
		return err
	}
	err := whole(p, off, func(p []byte, off int64) (int, error) { return unix.Pread(r.fd, p, off) })
	if err != nil {
		return fmt.Errorf("read %s at %d+%d: %w", r.path, off, len(p), err)
	}
	return nil
}

// Close gives the lock back. No call may be in progress.
func (r *Reader) Close() error {
	if err := unix.Close(r.fd); err != nil {
		return &os.PathError{Op: "close", Path: r.path, Err: err}
	}
	return nil
}
