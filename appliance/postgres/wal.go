package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"duet/appliance/postgres/decide"
)

// The form of the write-ahead log of PostgreSQL 15 (src/include/access/xlog_internal.h, xlogrecord.h). It is read here to
// find where the last whole record of a stopped directory ends: recovery would find the same, but it would also write, and
// whether this directory may be started is what the answer decides.
const (
	walPage        = 8192
	walPageMagic   = 0xD110 // XLOG_PAGE_MAGIC of 15
	walPageHeader  = 24
	walLongHeader  = 40
	walRecordHead  = 24
	walRecordMost  = 1 << 30 // larger than any record
	walSwitchInfo  = 0x40    // XLOG_SWITCH of resource manager 0: the rest of its segment is empty
	walSegmentsMax = 4096    // 64 GiB at 16 MiB: more than a pgwal volume holds
)

// segments gives one WAL file by its number, whole; fs.ErrNotExist where there is none.
type segments func(number uint64) ([]byte, error)

// walEnd is where the last whole record ends, from a record's beginning on. The log ends where a record is not whole or does not
// follow the one before it.
func walEnd(read segments, from decide.LSN, segmentBytes uint64) (decide.LSN, error) {
	w := walReader{read: read, size: segmentBytes, number: ^uint64(0)}
	at, prev := uint64(from), uint64(0)
	for {
		w.again = 0
		next, ok, err := w.record(at, prev)
		if err != nil {
			return 0, err
		}
		if !ok && w.again != 0 {
			if next, ok, err = w.record(w.again, prev); err != nil {
				return 0, err
			}
		}
		if !ok {
			break
		}
		at, prev = next, w.start
	}
	if prev == 0 {
		return 0, fmt.Errorf("log: no record at %v", from)
	}
	return decide.LSN(at), nil
}

type walReader struct {
	read     segments
	size     uint64
	number   uint64 // of the segment in data
	data     []byte
	start    uint64 // of the last record
	again    uint64 // a crash cut the record before short here, and recovery went on from this page
	segments int
}

// page is the page that holds a position; nil where the log ends.
func (w *walReader) page(at uint64) ([]byte, error) {
	number := at / w.size
	if number != w.number {
		if w.segments++; w.segments > walSegmentsMax {
			return nil, fmt.Errorf("log: more than %d segments", walSegmentsMax)
		}
		data, err := w.read(number)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
		w.number, w.data = number, data
	}
	begin := at % w.size / walPage * walPage
	if uint64(len(w.data)) < begin+walPage {
		return nil, nil
	}
	p := w.data[begin : begin+walPage]
	le := binary.LittleEndian
	if le.Uint16(p) != walPageMagic || le.Uint64(p[8:]) != at/walPage*walPage {
		return nil, nil // not written yet, or left from an earlier use of the file
	}
	return p, nil
}

func (w *walReader) header(at uint64) uint64 {
	if at/walPage*walPage%w.size == 0 {
		return walLongHeader
	}
	return walPageHeader
}

// record reads the one that begins at or after at, and gives where the next one begins.
func (w *walReader) record(at, prev uint64) (next uint64, ok bool, err error) {
	if at%walPage == 0 {
		at += w.header(at)
	}
	start := at
	head, at, err := w.take(nil, at, walRecordHead, true)
	if head == nil || err != nil {
		return 0, false, err
	}
	le := binary.LittleEndian
	total := le.Uint32(head)
	if total < walRecordHead || total > walRecordMost || prev != 0 && le.Uint64(head[8:]) != prev {
		return 0, false, nil
	}
	whole, at, err := w.take(head, at, int(total)-walRecordHead, false)
	if whole == nil || err != nil {
		return 0, false, err
	}
	sum := crc32.Update(crc32.Checksum(whole[walRecordHead:], castagnoli), castagnoli, whole[:20])
	if sum != le.Uint32(whole[20:]) {
		return 0, false, nil
	}
	w.start = start
	at = (at + 7) &^ 7
	if whole[17] == 0 && whole[16]&0xF0 == walSwitchInfo && at%w.size != 0 {
		at = (at/w.size + 1) * w.size
	}
	return at, true, nil
}

// take appends n bytes from at on to dst, over page boundaries; nil where the log ends before.
func (w *walReader) take(dst []byte, at uint64, n int, first bool) ([]byte, uint64, error) {
	if dst == nil {
		dst = make([]byte, 0, 256)
	}
	if n == 0 {
		return dst, at, nil
	}
	for {
		if at%walPage == 0 {
			p, err := w.page(at)
			if p == nil || err != nil {
				return nil, 0, err
			}
			const continued, overwritten = 1, 8 // XLP_FIRST_IS_CONTRECORD, XLP_FIRST_IS_OVERWRITE_CONTRECORD
			switch flags := binary.LittleEndian.Uint16(p[2:]); {
			case first:
			case flags&overwritten != 0:
				w.again = at
				return nil, 0, nil
			case flags&continued == 0:
				return nil, 0, nil
			}
			at += w.header(at)
		}
		p, err := w.page(at)
		if p == nil || err != nil {
			return nil, 0, err
		}
		part := p[at%walPage:]
		if len(part) > n {
			part = part[:n]
		}
		dst, at, n, first = append(dst, part...), at+uint64(len(part)), n-len(part), false
		if n == 0 {
			return dst, at, nil
		}
	}
}

// segmentName is the file of a segment (PostgreSQL manual 30.6).
func segmentName(timeline uint32, number, segmentBytes uint64) string {
	per := uint64(1<<32) / segmentBytes
	return fmt.Sprintf("%08X%08X%08X", timeline, number/per, number%per)
}

// directoryEnd is walEnd for a stopped data directory: each segment from the highest timeline that has it.
func directoryEnd(dir string, c Control) (decide.LSN, error) {
	size := uint64(c.SegmentBytes)
	from := c.Redo
	return walEnd(func(number uint64) ([]byte, error) {
		var err error
		for tl := c.LatestTimeline(); tl > 0; tl-- {
			var b []byte
			if b, err = os.ReadFile(filepath.Join(dir, "pg_wal", segmentName(tl, number, size))); err == nil {
				return b, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		return nil, err
	}, from, size)
}

// Ancestor is one line of a timeline history file: the timeline before, and where it was left.
type Ancestor struct {
	Timeline uint32
	Until    decide.LSN
}

// ParseHistory reads a timeline history file, oldest ancestor first; comments and empty lines are skipped (PostgreSQL
// manual 26.3.6).
func ParseHistory(text string) ([]Ancestor, error) {
	var all []Ancestor
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("timeline history: %q", line)
		}
		tl, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("timeline history: %w", err)
		}
		lsn, err := parseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("timeline history: %w", err)
		}
		if n := len(all); tl == 0 || n > 0 && all[n-1].Timeline >= uint32(tl) {
			return nil, fmt.Errorf("timeline history: %d is out of order", tl)
		}
		all = append(all, Ancestor{uint32(tl), lsn})
	}
	return all, nil
}

// forkOf is where a timeline began; 0 for the first one and where the directory does not know.
func forkOf(dir string, timeline uint32) decide.LSN {
	text, err := os.ReadFile(historyFile(dir, timeline))
	if err != nil {
		return 0
	}
	all, err := ParseHistory(string(text))
	if err != nil || len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Until
}

func historyFile(dir string, timeline uint32) string {
	return filepath.Join(dir, "pg_wal", fmt.Sprintf("%08X.history", timeline))
}

func parseLSN(text string) (decide.LSN, error) {
	high, low, ok := strings.Cut(text, "/")
	if !ok {
		return 0, fmt.Errorf("%q is not a position in the log", text)
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a position in the log", text)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a position in the log", text)
	}
	return decide.LSN(h<<32 | l), nil
}
