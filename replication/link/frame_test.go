package link

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func heap(n int) []byte { return make([]byte, n) }

func decode(p []byte) (*Frame, error) {
	r := &reader{r: bytes.NewReader(p), get: heap, put: func([]byte) {}}
	return r.next(MaxPayload)
}

func encodeFrame(f *Frame) []byte { return append(f.appendHeader(nil), f.Payload...) }

func sample() *Frame {
	return &Frame{
		Type: Write, Flags: FUA, Session: 0x11223344, Epoch: 7, Sequence: 9, Volume: 3, Request: 5, Offset: 1 << 33,
		Length: 8192, Status: 0, Incarnation: 0xA1B2C3D4, Payload: bytes.Repeat([]byte{0xE5}, 8192),
	}
}

// The header is on the wire of every release: these bytes must not change (replication.md 12.2).
func TestGoldenHeader(t *testing.T) {
	path := filepath.Join("testdata", "write.hex")
	got := hex.Dump(sample().appendHeader(nil))
	if os.Getenv("DUET_REWRITE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, MaxPayload} {
		f := sample()
		f.Payload = nil
		if n > 0 {
			f.Payload = bytes.Repeat([]byte{1}, n)
		}
		got, err := decode(encodeFrame(f))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		sums := got.Sums
		for i := range sums {
			if want := crc32.Checksum(f.Payload[i*SumBlock:min((i+1)*SumBlock, n)], castagnoli); sums[i] != want {
				t.Errorf("%d bytes: sum %d is %#x, want %#x", n, i, sums[i], want)
			}
		}
		if len(sums) != sumsOf(n) {
			t.Errorf("%d bytes: %d sums", n, len(sums))
		}
		f.Sums = sums // those that are given are sent
		again, err := decode(encodeFrame(f))
		if err != nil || !slices.Equal(again.Sums, sums) {
			t.Errorf("%d bytes with sums: %v", n, err)
		}
		if got.Sums, got.one, f.Sums = nil, [1]uint32{}, nil; !reflect.DeepEqual(got, f) {
			t.Errorf("%d bytes: %+v", n, got)
		}
		if n > 0 {
			f.Sums = slices.Clone(sums)
			f.Sums[0]++
			if _, err := decode(encodeFrame(f)); !errors.Is(err, ErrFrame) {
				t.Errorf("%d bytes with a wrong sum: %v", n, err)
			}
		}
	}
}

// Proves: replication.md test 18. A flip of any bit of a frame is noticed before its payload is used.
func TestEveryFlipIsNoticed(t *testing.T) {
	f := sample()
	f.Payload = f.Payload[:4100]
	whole := encodeFrame(f)
	for i := range whole {
		for bit := range 8 {
			broken := bytes.Clone(whole)
			broken[i] ^= 1 << bit
			if _, err := decode(broken); err == nil {
				t.Fatalf("bit %d of byte %d went unnoticed", bit, i)
			}
		}
	}
}

func TestShortFrames(t *testing.T) {
	whole := encodeFrame(sample())
	for i := range whole {
		_, err := decode(whole[:i])
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes: %v", i, err)
		}
		if i > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes look like an orderly end", i)
		}
	}
}

// A payload whose CRC32C is 0 travels like any other, with the sum that a leg's table has of it: there 0 is no sum.
func TestAPayloadWithTheCRCZero(t *testing.T) {
	f := sample()
	copy(f.Payload, append(bytes.Repeat([]byte{7}, SumBlock-4), 0x76, 0xeb, 0x41, 0x54))
	if crc := crc32.Checksum(f.Payload[:SumBlock], castagnoli); crc != 0 {
		t.Fatalf("the CRC is %#x", crc)
	}
	computed, err := decode(encodeFrame(f))
	if err != nil || computed.Sums[0] != 1 {
		t.Fatalf("with a computed sum: %v", err)
	}
	f.Sums = computed.Sums
	if given, err := decode(encodeFrame(f)); err != nil || given.Sums[0] != 1 {
		t.Errorf("with its sum given: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(encodeFrame(sample()))
	f.Add(encodeFrame(&Frame{Type: Ping, Sequence: 1}))
	f.Add(encodeFrame(&Frame{Type: Acks, Payload: []byte{1, 0, 0, 0, 0, 0, 0, 0}}))
	f.Add([]byte(strings.Repeat("DUL1", 30)))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := decode(p)
		if err != nil {
			return
		}
		if again := encodeFrame(got); !bytes.Equal(again, p[:len(again)]) {
			t.Fatalf("decoded to another frame")
		}
	})
}
