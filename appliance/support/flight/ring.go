package flight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"duet/appliance/internal/durable"
)

// Sizes of a ring.
const (
	// DefaultLimit is interfaces.md section 10.
	DefaultLimit = 128 << 20
	// MinLimit leaves one file to append to and two to keep.
	MinLimit = 4 * minSegment
	// segmentsOfRing: how finely the oldest is forgotten.
	segmentsOfRing = 32
	minSegment     = 64 << 10
	maxSegment     = 64 << 20
)

// medium is what a ring does to its disk; a test has one that fails.
type medium interface {
	Write(p []byte) (int, error)
	Sync() error
	Close() error
}

// ring is the folder: one file is open for appending, the others only grow older.
type ring struct {
	dir   string
	limit int64
	node  byte
	open  func(path string, flag int) (medium, error)

	segment int64 // size of a file; 0: by the limit

	anew bool // after an error: the last file is left as it is
	file medium
	path string
	size int64 // of the open file
	next uint64

	counted uint64 // entries below this number that are not there have been counted
}

func openFile(path string, flag int) (medium, error) { return os.OpenFile(path, flag, 0o600) }

func (r *ring) segmentLimit() int64 {
	if r.segment != 0 {
		return r.segment
	}
	return min(max(r.limit/segmentsOfRing, minSegment), maxSegment)
}

// begin finds where the ring ends. It goes on in the last file if that is of this build, cut behind its last whole frame;
// else the first append makes a new file. A folder that was lost is made again.
//
// Numbers never go back: a disk that failed a sync may have lost what it took before. A number given twice would hide that:
// what comes next would be compared with a state of before it. missing is how many entries were written by this process and
// are not there.
func (r *ring) begin() (missing uint64, err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return 0, fmt.Errorf("flight recorder: %w", err)
	}
	files, err := listSegments(r.dir)
	if err != nil {
		return 0, err
	}
	written := r.next
	r.next = max(r.next, 1)
	if len(files) == 0 {
		return r.gone(written, 1), nil
	}
	last := files[len(files)-1]
	var named uint64
	if _, err := fmt.Sscanf(filepath.Base(last), "%016x", &named); err == nil {
		r.next = max(r.next, named+1)
	}
	s, err := readSegment(last)
	if errors.Is(err, ErrForeign) { // a file without its header: the name is what is left of it
		return r.gone(written, named), nil
	}
	if err != nil {
		return 0, err
	}
	missing = r.gone(written, s.next())
	r.next = max(r.next, s.next())
	if r.anew || s.header.schema != ThisSchema || s.valid >= r.segmentLimit() || len(s.frames) == 0 {
		return missing, nil
	}
	return missing, r.goOn(last, s)
}

// gone counts the entries from end on that were written up to written, each once.
func (r *ring) gone(written, end uint64) uint64 {
	from := max(end, r.counted)
	r.counted = max(r.counted, written)
	return max(written, from) - from
}

func (r *ring) goOn(path string, s *segment) error {
	if s.torn > 0 {
		if err := os.Truncate(path, s.valid); err != nil {
			return fmt.Errorf("flight recorder: torn end of %s: %w", path, err)
		}
	}
	f, err := r.open(path, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("flight recorder: %w", err)
	}
	r.file, r.path, r.size = f, path, s.valid
	return nil
}

// full says whether the next frame belongs into a new file.
func (r *ring) full() bool { return r.file == nil || r.size >= r.segmentLimit() }

// roll begins a new file; it and its name are durable when the first sync returns. The oldest files make room for it.
func (r *ring) roll() error {
	if r.file != nil {
		if err := errors.Join(r.file.Sync(), r.file.Close()); err != nil {
			r.file = nil
			return fmt.Errorf("flight recorder: %s: %w", r.path, err)
		}
		r.file = nil
	}
	if err := r.makeRoom(); err != nil {
		return err
	}
	path := filepath.Join(r.dir, fmt.Sprintf("%016x%s", r.next, suffix))
	f, err := r.open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("flight recorder: %w", err)
	}
	head := header{schema: ThisSchema, first: r.next, node: r.node, build: Build()}.append(nil)
	if _, err = f.Write(head); err == nil {
		err = durable.SyncDir(r.dir)
	}
	if err != nil { // each retry has a new name: on a full disk they would pile up
		return errors.Join(fmt.Errorf("flight recorder: %s: %w", path, err), f.Close(), os.Remove(path))
	}
	r.file, r.path, r.size = f, path, headerBytes
	return nil
}

// makeRoom deletes the oldest files until a whole new one fits the limit.
func (r *ring) makeRoom() error {
	files, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	var total int64
	sizes := make([]int64, len(files))
	for i, path := range files {
		st, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("flight recorder: %w", err)
		}
		sizes[i] = st.Size()
		total += st.Size()
	}
	for i := 0; i < len(files) && total+r.segmentLimit()+min(maxPending, r.segmentLimit()) > r.limit; i++ {
		if err := os.Remove(files[i]); err != nil {
			return fmt.Errorf("flight recorder: %w", err)
		}
		total -= sizes[i]
	}
	return nil
}

// append hands a frame to the kernel; sync makes it durable.
func (r *ring) append(b []byte, entries uint64) error {
	if _, err := r.file.Write(b); err != nil {
		return fmt.Errorf("flight recorder: %s: %w", r.path, err)
	}
	r.size += int64(len(b))
	r.next += entries
	return nil
}

func (r *ring) sync() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("flight recorder: %s: %w", r.path, err)
	}
	return nil
}

// drop gives up the open file after an error: the handle is not trusted again.
func (r *ring) drop() {
	r.anew = true
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
