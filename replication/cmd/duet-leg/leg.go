package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/meta"
)

// problem is something wrong, for a person and, by its kind, for a program.
type problem struct {
	Kind string `json:"kind"`
	What string `json:"what"`
	Why  string `json:"why"`
	Next string `json:"next"`
}

func (p *problem) String() string {
	return fmt.Sprintf("%s: %s\n  why:  %s\n  next: %s", p.Kind, p.What, p.Why, p.Next)
}

const (
	dataName = "data"
	metaName = "meta"

	rebuild = "Nothing was changed. Keep the files. If the other leg is good, make this one anew from it: duet volume readmit NAME"
	inUse   = "in-use"
)

// leg is a folder with what could be opened of it.
type leg struct {
	dir        string
	data, meta block.Source // nil: could not be opened
	direct     bool         // data is read from the medium
	open       []io.Closer
}

// openLeg opens both files; the problem says why one of them is not open. The leg is there in any case.
func openLeg(dir string) (*leg, *problem) {
	l := &leg{dir: dir}
	m, metaErr := block.OpenReader(filepath.Join(dir, metaName))
	if metaErr == nil {
		l.meta, l.open = m, append(l.open, m)
	}
	d, dataErr := block.OpenReader(filepath.Join(dir, dataName))
	if dataErr == nil {
		l.data, l.direct, l.open = d, d.Direct(), append(l.open, d)
	}
	switch {
	case errors.Is(metaErr, block.ErrLocked):
		return l, l.locked(metaName)
	case errors.Is(dataErr, block.ErrLocked):
		return l, l.locked(dataName)
	case metaErr != nil:
		return l, l.notOpen(metaName, metaErr)
	case dataErr != nil:
		return l, l.notOpen(dataName, dataErr)
	}
	return l, nil
}

// Close gives the locks back.
func (l *leg) Close() {
	for _, f := range l.open {
		_ = f.Close() //nolint:errcheck // nothing was written
	}
}

func (l *leg) locked(name string) *problem {
	path := filepath.Join(l.dir, name)
	who := cmp.Or(holder(path), "another process, most likely duet-mirrord,")
	return &problem{
		inUse, fmt.Sprintf("%s has %s open", who, path),
		"while a leg is written its sums lag behind its data, so what is read would prove nothing",
		"Stop duetd and duet-mirrord on this node, best after duet node leave, and run this again; or read a snapshot of the file system",
	}
}

// holder names the process that has a file under flock, as /proc/locks tells; empty: it does not.
func holder(path string) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Stat(path, &st) != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if name, err := os.ReadFile(filepath.Join("/proc", f[4], "comm")); err == nil {
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), f[4])
		}
	}
	return ""
}

func (l *leg) notOpen(name string, err error) *problem {
	path := filepath.Join(l.dir, name)
	folder := "Give the folder of one leg: POOL/VOLUME-ID. In a pool, .trash-VOLUME-ID is a leg that was removed"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &problem{"missing-file", path + " is not there", "a leg is a folder with the files data and meta", folder}
	case errors.Is(err, unix.ELOOP), errors.Is(err, block.ErrInvalid), errors.Is(err, unix.ENOTDIR):
		return &problem{"not-a-file", path + " is no regular file", err.Error(), folder}
	case errors.Is(err, fs.ErrPermission):
		return &problem{"no-permission", path + " may not be read", err.Error(), "Run it as root, or as the owner of the files"}
	}
	return &problem{"unreadable", path + " cannot be opened", err.Error(), "Look at the kernel log and at the drive. Nothing was changed"}
}

// refused says why meta cannot be used.
func (l *leg) refused(err error) *problem {
	path := filepath.Join(l.dir, metaName)
	var p problem
	switch {
	case l.swapped():
		return &problem{
			"swapped-files", "data holds a superblock, and meta does not", "the two files have each other's names",
			"Compare their sizes, copy the folder, and exchange the names in the copy",
		}
	case errors.Is(err, meta.ErrSize), l.meta.Size() < meta.SizeFor(meta.BlockBytes):
		p = problem{Kind: "meta-too-small", What: fmt.Sprintf("%s is cut off at %d bytes", path, l.meta.Size())}
	case errors.Is(err, meta.ErrUnformatted):
		p = problem{Kind: "unformatted", What: path + " is empty where a superblock would be"}
	case errors.Is(err, meta.ErrForeign):
		p = problem{Kind: "foreign", What: path + " is not of duet"}
	case errors.Is(err, meta.ErrNewerFormat):
		p = problem{Kind: "newer-format", What: path + " has the format of another release"}
	case errors.Is(err, meta.ErrUnknownFeature):
		p = problem{Kind: "unknown-feature", What: path + " uses a feature of another release"}
	default:
		p = problem{Kind: "no-superblock", What: path + " has no valid superblock"}
	}
	p.Why, p.Next = err.Error(), rebuild
	if errors.Is(err, meta.ErrNewerFormat) || errors.Is(err, meta.ErrUnknownFeature) {
		p.Next = "Nothing was changed. Use the duet-leg of the release that wrote it"
	}
	return &p
}

// swapped looks whether the data file is a meta file.
func (l *leg) swapped() bool {
	if l.data == nil {
		return false
	}
	i, _ := meta.Inspect(l.data) //nolint:errcheck // the slots are told in any case
	return i.Super != nil
}

// findings are what is wrong with a leg that can be read.
func (l *leg) findings(i *meta.Inspection) []problem {
	s := i.Super
	var found []problem
	add := func(kind, next, why, what string, args ...any) {
		found = append(found, problem{kind, fmt.Sprintf(what, args...), why, next})
	}
	for n, slot := range i.Slots {
		if slot.Err != nil && !errors.Is(slot.Err, meta.ErrUnformatted) {
			add("slot-damaged", "The next start writes it anew. If there was no power cut, look at the drive",
				slot.Err.Error()+". A power cut may leave a slot so; without one the medium is damaged, and the other slot may be older than it should be",
				"superblock slot %s is damaged", slotNames[n])
		}
	}
	if folder := folderOf(l.dir); folder != "" && folder != s.Volume.String() {
		add("other-volume", "Move the folder to its own name, or ask whose it is", "the folder was renamed or its files were exchanged",
			"the folder is named after volume %s, its leg is of volume %s", folder, s.Volume)
	}
	if l.data != nil && l.data.Size() < int64(s.VolumeBytes) {
		add("data-too-small", rebuild, "the file was cut off, or copied in part", "data has %d bytes, the volume %d", l.data.Size(), s.VolumeBytes)
	}
	for _, f := range []struct {
		name string
		src  block.Source
	}{{dataName, l.data}, {metaName, l.meta}} {
		if f.src != nil && f.src.Size()%block.Unit != 0 {
			add("odd-size", rebuild, "duet-mirrord refuses such a file", "%s has %d bytes, which is not a multiple of %d", f.name, f.src.Size(), block.Unit)
		}
	}
	if i.LogLost != "" {
		add("log-lost", "The next start compares the whole volume with the other leg", i.LogLost, "the activity log is lost: any extent may differ from the other leg")
	}
	if n := len(i.BadPages); n > 0 {
		add("map-page-invalid", "The next start takes their blocks for dirty and writes the pages anew. Look at the drive",
			fmt.Sprintf("group %d: %v", i.BadPages[0].Group, i.BadPages[0].Err), "map pages invalid: %d of %d", n, s.Groups)
	}
	return found
}

// folderOf is the volume id that a folder is named after; empty: none.
func folderOf(dir string) string {
	if path, err := filepath.Abs(dir); err == nil {
		if id, err := meta.ParseID(filepath.Base(path)); err == nil {
			return id.String()
		}
	}
	return ""
}

// lostSums is the finding about sum pages.
func (s *sumPages) lostSums() []problem {
	n := s.Contradicting + s.Unreadable
	if n == 0 {
		return nil
	}
	return []problem{{
		"sum-page-lost", fmt.Sprintf("sum pages lost: %d of %d", n, s.Total),
		fmt.Sprintf("%d contradict their CRC, %d are unreadable. A power cut while unknown sums were learned leaves a page so", s.Contradicting, s.Unreadable),
		"What their blocks hold counts as it is; the next scrub compares it with the other leg. If there was no power cut, look at the drive",
	}}
}
