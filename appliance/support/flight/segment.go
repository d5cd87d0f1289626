package flight

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// A file of the ring is called by the sequence of its first entry, sixteen hexadecimal digits and ".flight". It begins with
// a header of 128 bytes, little-endian:
//
//	0    8   magic "DUETFLT1" (the digit is the version; another one is refused)
//	8    4   crc32c of bytes 12..127
//	12   4   length of the header
//	16   32  schema of the build that wrote it
//	48   8   sequence of the first entry
//	56   1   node: 0 a, 1 b
//	57   1   length of the next
//	58   64  the build in words
//	122  6   zero
//
// Frames follow, each with at least one entry; the first entry of a file is a snapshot:
//
//	0   4   length of the payload, with bit 31 set when it is deflated (RFC 1951)
//	4   4   crc32c of bytes 0..3 and of the payload as it stands in the file
//	8   -   payload: uvarint sequence of its first entry, uvarint count, the entries
//
// A file ends where no whole frame follows: a length of zero, a wrong checksum or too few bytes. Nothing behind is read.
const (
	magic       = "DUETFLT1"
	headerBytes = 128
	frameHead   = 8
	maxText     = 64
	suffix      = ".flight"

	// maxFrame bounds the payload, before and after it is inflated: a second of a storm, and a state.
	maxFrame = 1 << 20
	deflated = 1 << 31
	// deflateFrom: smaller payloads do not get smaller.
	deflateFrom = 96
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrForeign: the file is no recording of a version that this build knows.
var ErrForeign = errors.New("not a flight recording of version 1")

// SchemaError refuses a recording of another build.
type SchemaError struct {
	File   string
	Schema Schema
	Build  string
}

// Error names both builds.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("%s: recorded by schema %s (%s), this build is %s (%s): replay it with the duet of that build",
		filepath.Base(e.File), e.Schema, e.Build, ThisSchema, Build())
}

// Build is this build in words.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := "duet " + info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return (text + " " + info.GoVersion)[:min(maxText, len(text)+1+len(info.GoVersion))]
}

// header is the first thing in a file.
type header struct {
	schema Schema
	first  uint64
	node   byte
	build  string
}

func (h header) append(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, headerBytes)...)
	p := b[at:]
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[12:], headerBytes)
	copy(p[16:], h.schema[:])
	binary.LittleEndian.PutUint64(p[48:], h.first)
	p[56] = h.node
	p[57] = byte(min(len(h.build), maxText)) //nolint:gosec // at most maxText
	copy(p[58:58+maxText], h.build)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
	return b
}

func parseHeader(p []byte) (header, error) {
	if len(p) < headerBytes || string(p[:8]) != magic || binary.LittleEndian.Uint32(p[12:]) != headerBytes ||
		binary.LittleEndian.Uint32(p[8:]) != crc32.Checksum(p[12:headerBytes], castagnoli) || p[57] > maxText {
		return header{}, ErrForeign
	}
	return header{
		schema: Schema(p[16:48]), first: binary.LittleEndian.Uint64(p[48:]), node: p[56], build: string(p[58 : 58+p[57]]),
	}, nil
}

// framer puts entries into frames; it keeps the deflater, which is large.
type framer struct {
	deflate *flate.Writer
	buf     bytes.Buffer
}

func (f *framer) append(b []byte, first, count uint64, entries []byte) []byte {
	payload := binary.AppendUvarint(nil, first)
	payload = append(binary.AppendUvarint(payload, count), entries...)
	mark := uint32(0)
	if len(payload) >= deflateFrom {
		if small := f.deflated(payload); small != nil && len(small) < len(payload) {
			payload, mark = small, deflated
		}
	}
	at := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload))|mark) //nolint:gosec // bounded by maxFrame
	b = append(b, 0, 0, 0, 0)
	b = append(b, payload...)
	sum := crc32.Update(crc32.Checksum(b[at:at+4], castagnoli), castagnoli, payload)
	binary.LittleEndian.PutUint32(b[at+4:], sum)
	return b
}

// deflated is nil when it cannot be done, which into memory does not happen.
func (f *framer) deflated(payload []byte) []byte {
	f.buf.Reset()
	if f.deflate == nil {
		w, err := flate.NewWriter(&f.buf, flate.BestCompression)
		if err != nil {
			return nil
		}
		f.deflate = w
	} else {
		f.deflate.Reset(&f.buf)
	}
	if _, err := f.deflate.Write(payload); err != nil || f.deflate.Close() != nil {
		return nil
	}
	return f.buf.Bytes()
}

// frame is one frame of a file.
type frame struct {
	first, count uint64
	entries      []byte
	size         int // in the file
}

// parseFrame reads the frame at the beginning of b; false: no whole frame is there.
func parseFrame(b []byte) (frame, bool) {
	if len(b) < frameHead {
		return frame{}, false
	}
	mark := binary.LittleEndian.Uint32(b)
	n := int(mark &^ deflated)
	if n == 0 || n > maxFrame || len(b)-frameHead < n {
		return frame{}, false
	}
	payload := b[frameHead : frameHead+n]
	if binary.LittleEndian.Uint32(b[4:]) != crc32.Update(crc32.Checksum(b[:4], castagnoli), castagnoli, payload) {
		return frame{}, false
	}
	if mark&deflated != 0 {
		inflate := flate.NewReader(bytes.NewReader(payload))
		var err error
		if payload, err = io.ReadAll(io.LimitReader(inflate, maxFrame+1)); err != nil || len(payload) > maxFrame {
			return frame{}, false
		}
	}
	r := reader{b: payload}
	f := frame{first: r.uvarint(), count: r.uvarint(), size: frameHead + n}
	f.entries = r.b
	return f, !r.bad && f.count > 0 && f.count <= uint64(len(f.entries))
}

// segment is what a file holds up to its last whole frame.
type segment struct {
	header header
	frames []frame
	valid  int64 // bytes up to the end of the last whole frame
	torn   int64 // bytes behind
}

// next is the sequence after the last entry.
func (s *segment) next() uint64 {
	if len(s.frames) == 0 {
		return s.header.first
	}
	last := s.frames[len(s.frames)-1]
	return last.first + last.count
}

// readSegment reads a whole file, at most maxSegment of it.
func readSegment(path string) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSegment+maxFrame))
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", path, err)
	}
	s := &segment{}
	if s.header, err = parseHeader(b); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	at := headerBytes
	for {
		fr, ok := parseFrame(b[at:])
		if !ok || len(s.frames) > 0 && fr.first != s.next() {
			break
		}
		s.frames = append(s.frames, fr)
		at += fr.size
	}
	s.valid, s.torn = int64(at), int64(len(b)-at)
	return s, nil
}

// listSegments are the files of a ring, oldest first. A path of a file is that file.
func listSegments(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && len(name) == 16 && e.Type().IsRegular() {
			out = append(out, filepath.Join(path, e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}
