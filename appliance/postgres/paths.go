package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"duet/appliance/internal/durable"
)

// layout is the folder with the data directories of one node: main.1, main.2, ...; `current` is a link to one of them. A
// mark beside a directory says that it is not whole: main.3.unfinished (rewind, copy), main.1.creating (no record knows it
// yet). The mark is durable before the directory exists.
type layout struct {
	root     string
	uid, gid int
}

const (
	current        = "current"
	markUnfinished = ".unfinished"
	markCreating   = ".creating"
)

// active is the directory that `current` leads to; empty where there is none.
func (l layout) active() string {
	target, err := os.Readlink(filepath.Join(l.root, current))
	if err != nil || filepath.Base(target) != target || !strings.HasPrefix(target, "main.") {
		return ""
	}
	return filepath.Join(l.root, target)
}

// highest is the largest number of a directory or mark; 0: there is none.
func (l layout) highest() (int, error) {
	entries, err := os.ReadDir(l.root)
	if err != nil {
		return 0, fmt.Errorf("data directories: %w", err)
	}
	most := 0
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), "main.")
		number, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(number); ok && err == nil {
			most = max(most, n)
		}
	}
	return most, nil
}

func (l layout) numbered(n int) string { return filepath.Join(l.root, "main."+strconv.Itoa(n)) }

// fresh removes what interrupted tries have left, and gives a new, marked name. What `current` leads to is never removed.
func (l layout) fresh(mark string) (string, error) {
	most, err := l.highest()
	if err != nil {
		return "", err
	}
	active := l.active()
	for n := 1; n <= most; n++ {
		dir := l.numbered(n)
		if dir == active || !l.marked(dir, markUnfinished) && !l.marked(dir, markCreating) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", fmt.Errorf("remove an unfinished directory: %w", err)
		}
		for _, m := range []string{markUnfinished, markCreating} {
			if err := l.unmark(dir, m); err != nil {
				return "", err
			}
		}
	}
	dir := l.numbered(most + 1)
	return dir, l.mark(dir, mark)
}

func (l layout) marked(dir, mark string) bool {
	_, err := os.Lstat(dir + mark)
	return err == nil
}

func (l layout) mark(dir, mark string) error {
	if err := os.WriteFile(dir+mark, nil, 0o600); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	return durable.SyncDir(l.root)
}

func (l layout) unmark(dir, mark string) error {
	if err := os.Remove(dir + mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mark: %w", err)
	}
	return durable.SyncDir(l.root)
}

// switchTo lets `current` lead to dir by rename(2): it leads to the old one or to the new one.
func (l layout) switchTo(dir string) error {
	link := filepath.Join(l.root, current)
	temporary := link + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switch: %w", err)
	}
	if err := os.Symlink(filepath.Base(dir), temporary); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	if err := os.Rename(temporary, link); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	return durable.SyncDir(l.root)
}
