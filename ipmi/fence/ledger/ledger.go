// Package ledger keeps what was done to switch a node off, and what was seen: every attempt to fence, every live test,
// every latch, with who asked, the epoch, the verdict of each kind of evidence, the times and the digest of what was
// exchanged. It is what a person reads after the fact; nothing decides by it.
//
// It is one file of lines, each a checksum and a JSON object. Record returned nil: the line is durable (write, fsync). The
// caller records after the evidence has gone to whom it is for, because a disk that hangs must not hold up a takeover; a
// crash in between loses that one line. A line that was torn by a crash or damaged is left out at Open and counted. An
// error of write or sync is final: from then on entries are kept in memory only, and Damaged says why.
//
// It is bounded: at most sizeLimit bytes on disk, of which the newest half is kept when it is full (written aside, synced,
// renamed), and attempts that repeat each other are one line per repeatEvery, with their number. A node that is asked for
// every two seconds for a week so costs a thousand lines, not three hundred thousand.
package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// The limits, and their reasons.
const (
	sizeLimit   = 256 << 10        // bytes of the file: a support bundle carries it whole
	lineLimit   = 8 << 10          // of one entry
	repeatEvery = 10 * time.Minute // the same outcome again is news after this
)

// Entry is one thing that was done.
type Entry struct {
	What     string            `json:"what"` // fence, live-test, latch, unlatch
	Node     string            `json:"node"` // whom it was about
	By       string            `json:"by"`   // "core", or a person's words
	At       time.Time         `json:"at"`   // wall time, for people
	BootMS   int64             `json:"boottime_ms"`
	TookMS   int64             `json:"took_ms"`
	Epoch    uint64            `json:"epoch"`
	Run      uint64            `json:"run"`
	Means    string            `json:"means,omitempty"`    // what might be switched
	Verdict  string            `json:"verdict,omitempty"`  // absent: it was no observation
	Decided  string            `json:"decided,omitempty"`  // the kind of evidence that decided
	Evidence map[string]string `json:"evidence,omitempty"` // by kind
	Why      string            `json:"why"`
	Code     string            `json:"code,omitempty"`
	Steps    []Step            `json:"steps,omitempty"`   // of a live test
	Raw      string            `json:"raw,omitempty"`     // sha256 of what was exchanged, in hex
	Repeats  int               `json:"repeats,omitempty"` // how often the same came before this, unrecorded
}

// Step is one step of a live test.
type Step struct {
	Name   string `json:"name"`
	TookMS int64  `json:"took_ms"`
}

// same says whether a person would learn nothing new from b after a.
func (a Entry) same(b Entry) bool {
	return a.What == "fence" && a.What == b.What && a.Node == b.Node && a.Epoch == b.Epoch && a.Verdict == b.Verdict &&
		a.Decided == b.Decided && a.Why == b.Why && a.Code == b.Code
}

// Ledger is the file. Safe for concurrent use.
type Ledger struct {
	path string
	sync func(*os.File) error // (*os.File).Sync; tests see the order and let it fail

	mu      sync.Mutex
	file    *os.File // nil: dead, or closed
	size    int64
	entries []Entry // as on disk, oldest first
	repeats int
	damaged int
	err     error
}

// Open reads what is there and makes it durable before anybody is told of it.
func Open(path string) (*Ledger, error) {
	l := &Ledger{path: path, sync: (*os.File).Sync}
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("fence ledger: %w", err)
	}
	l.entries, l.damaged = parse(data)
	if err := l.rewrite(l.entries); err != nil {
		return nil, fmt.Errorf("fence ledger: %w", err)
	}
	return l, nil
}

// read bounds what a foreign file could cost.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, 2*sizeLimit))
}

// Record adds an entry, durably, or counts it as a repetition of the last.
func (l *Ledger) Record(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.entries); n > 0 && l.entries[n-1].same(e) && e.At.Sub(l.entries[n-1].At) < repeatEvery && !e.At.Before(l.entries[n-1].At) {
		l.repeats++
		return l.err
	}
	e.Repeats, l.repeats = l.repeats, 0
	line, err := format(e)
	if err != nil {
		return fmt.Errorf("fence ledger: %w", err)
	}
	l.entries = append(l.entries, e)
	if l.err != nil || l.file == nil {
		l.entries = l.entries[max(0, len(l.entries)-sizeLimit/lineLimit):]
		return l.err
	}
	if l.size+int64(len(line)) > sizeLimit {
		return l.fail(l.rewrite(newest(l.entries, sizeLimit/2)))
	}
	if _, err := l.file.Write(line); err != nil {
		return l.fail(err)
	}
	l.size += int64(len(line))
	return l.fail(l.sync(l.file))
}

// fail keeps the first error for good: after a failed sync nobody knows what is on the disk.
func (l *Ledger) fail(err error) error {
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("fence ledger is kept in memory only: %w", err)
		if l.file != nil {
			_ = l.file.Close() // it is dead
			l.file = nil
		}
	}
	return l.err
}

// Entries are the newest ones, newest first, at most limit.
func (l *Ledger) Entries(limit int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Entry, 0, min(limit, len(l.entries)))
	for i := len(l.entries) - 1; i >= 0 && len(out) < limit; i-- {
		out = append(out, l.entries[i])
	}
	return out
}

// Damaged is how many lines Open left out, and why nothing is written any more, if so.
func (l *Ledger) Damaged() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.damaged, l.err
}

// Close ends it. Every recorded entry is durable already.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("fence ledger: %w", err)
	}
	return nil
}

// rewrite replaces the file by these entries: aside, synced, renamed, and the folder synced.
func (l *Ledger) rewrite(entries []Entry) error {
	var text bytes.Buffer
	for _, e := range entries {
		line, err := format(e)
		if err != nil {
			l.damaged++ // it was read, and is too long written anew: a foreign file
			continue
		}
		text.Write(line)
	}
	f, err := os.OpenFile(l.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text.Bytes())
	if err == nil {
		err = l.sync(f)
	}
	if err == nil {
		err = os.Rename(l.path+".new", l.path)
	}
	if err == nil {
		err = l.syncDir()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if l.file != nil {
		_ = l.file.Close() // the old name is gone, and everything in it was synced
	}
	l.file, l.size, l.entries = f, int64(text.Len()), entries
	return nil
}

func (l *Ledger) syncDir() error {
	d, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	return errors.Join(l.sync(d), d.Close())
}

// newest are as many of the last entries as fit, at least one.
func newest(entries []Entry, bytes int) []Entry {
	first := len(entries)
	for first > 0 {
		line, err := format(entries[first-1])
		if bytes -= len(line); err != nil || (bytes < 0 && first < len(entries)) {
			break
		}
		first--
	}
	return append([]Entry(nil), entries[first:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// format is one line: checksum of the JSON in 8 hex digits, a space, the JSON, a newline.
func format(e Entry) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(text) > lineLimit {
		return nil, fmt.Errorf("an entry of %d bytes; %d are allowed", len(text), lineLimit)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, castagnoli), text), nil
}

// parse takes what is whole. What is not is counted: a crash in a write tears the last line, and no other.
func parse(data []byte) (entries []Entry, damaged int) {
	for line := range bytes.Lines(data) {
		if e, ok := parseLine(line); ok {
			entries = append(entries, e)
		} else {
			damaged++
		}
	}
	return entries, damaged
}

func parseLine(line []byte) (Entry, bool) {
	text, whole := bytes.CutSuffix(line, []byte("\n"))
	sum, text, ok := bytes.Cut(text, []byte(" "))
	if !whole || !ok || len(sum) != 8 || len(text) > lineLimit {
		return Entry{}, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || crc32.Checksum(text, castagnoli) != uint32(want) {
		return Entry{}, false
	}
	var e Entry
	if json.Unmarshal(text, &e) != nil {
		return Entry{}, false
	}
	return e, true
}
