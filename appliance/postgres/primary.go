package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// What membership asks about a node's server without its manager: at the end of a lease, and when duetd begins anew.

// PrimaryRuns says whether a server that is not a standby runs on the data directories of root. What cannot be looked at
// counts as one.
func PrimaryRuns(root string) bool {
	dir, err := activeOf(root)
	if err != nil {
		return true
	}
	if dir == "" {
		return false
	}
	all, err := scanServer(dir)
	return err != nil || len(all) > 0 && !isStandby(dir)
}

// EndPrimary kills a server that is not a standby and returns when nothing of it is left. A standby goes on: it follows, and
// nobody but a manager makes it anything else. One that is being promoted at this moment may be taken for a standby; its
// gates are closed, and its manager ends it with the next look.
func EndPrimary(root string, within time.Duration) error {
	dir, err := activeOf(root)
	if err != nil || dir == "" || isStandby(dir) {
		return err
	}
	return killServer(dir, within)
}

// activeOf is where `current` leads, by its whole path; empty: nowhere, so no server has been started.
func activeOf(root string) (string, error) {
	real, err := filepath.EvalSymlinks(root)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return layout{root: real}.active(), nil
}

// isStandby: it was started as one and has not been promoted since. A promotion takes the signal file away (PostgreSQL
// manual 27.2.2), and the control file says "in production" then.
func isStandby(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, standbySignal)); err != nil {
		return false
	}
	c, err := readControl(dir)
	return err == nil && c.State != StateInProduction
}
