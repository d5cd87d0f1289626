package pair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
)

// snapshot is what a restart of duetd goes on from (protocol.md section 4).
type snapshot struct {
	BootID        string           `json:"boot_id"`
	Seq           uint64           `json:"seq"` // of the record after the Persists of the step it was written for
	State         membership.State `json:"state"`
	Link          peerlink.Resume  `json:"link"`
	GrantSequence uint64           `json:"grant_sequence"`
}

const (
	snapshotName = "membership.snapshot"
	lockName     = "duetd.lock"
)

// writeSnapshot replaces the snapshot. It is on tmpfs: it must survive the process, not the node, so nothing is synced.
func writeSnapshot(dir string, s snapshot) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	path := filepath.Join(dir, snapshotName)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

func dropSnapshot(dir string) error {
	if err := os.Remove(filepath.Join(dir, snapshotName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// readSnapshot returns a snapshot iff it belongs to this boot and to this record. Anything else is a boot (R1).
func readSnapshot(dir, bootID string, seq uint64) (snapshot, bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, snapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot{}, false, nil
	}
	if err != nil {
		return snapshot{}, false, fmt.Errorf("snapshot: %w", err)
	}
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return snapshot{}, false, nil // cut short: it does not count
	}
	return s, s.BootID == bootID && s.Seq == seq && s.State.Rec.Seq == seq, nil
}

// lockTimeout bounds the wait for an old process to be reaped; a process in the kernel's hands longer than this is a
// fault of its own.
const lockTimeout = 30 * time.Second

// lock waits until no other duetd of this node is left. The kernel frees the lock when the old process is gone.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	locked := make(chan error, 1)
	fd := int(f.Fd())
	go func() { locked <- flock(fd) }()
	select {
	case err = <-locked:
	case <-time.After(lockTimeout):
		err = errors.New("it does not end") // this process does: the waiting call ends with it
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("another duetd of this node is running: %w", err), f.Close())
	}
	return f, nil
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
