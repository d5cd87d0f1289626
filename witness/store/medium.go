package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var errInUse = errors.New("in use by another process")

const lockTry = 50 * time.Millisecond

// openMedium opens the file so that whoever reads it reads the medium; bbolt calls it before it reads anything. The page
// cache is not to be believed, and the process that knew so may be dead:
//
//   - killed inside a commit, it left a register that can be read and is not durable;
//   - after a failed sync the kernel calls the pages clean and reports the error once (fsyncgate), so the next sync of the
//     next process succeeds over a register that no medium has.
//
// In both cases the repeat of that request finds the new register and is answered without another write. So what is dirty
// is written, and the rest is thrown out of the cache. A dying process may still hold pages in its mapping, hence the lock
// comes first; bbolt then takes it a second time over the same open file.
func openMedium(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if err = lock(f); err == nil {
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("before it is read: %w", err), f.Close())
	}
	return f, nil
}

// lock waits a little for another process that holds the file.
func lock(f *os.File) error {
	for deadline := time.Now().Add(lockWait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case time.Now().After(deadline):
			return errInUse
		}
		<-time.After(lockTry)
	}
}
