package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"syscall"
	"testing"
)

// What a structured read looks like: one chunk with its offset, also with DF, also ragged, also of 32 MiB; none of
// no bytes; and the rest of the replies are simple.
func TestStructuredReads(t *testing.T) {
	s := start(t, newMemory(t, map[string]int64{"disk": 40 << 20}))
	want := noise(40<<20, 3)
	copy(s.backend.volumes["disk"].data, want)
	c := enter(t, s, "disk", structured)
	for _, r := range []struct {
		off uint64
		n   uint32
	}{{0, 4096}, {8192, 3 << 20}, {4095, 2}, {5000, 1 << 20}, {4096, RequestBytesMax}, {5000, RequestBytesMax}, {40<<20 - 1, 1}} {
		for _, flags := range []uint16{0, cmdFlagDF | cmdFlagFUA} {
			c.send(cmdRead, flags, 7, r.off, r.n, nil)
			k := c.chunk()
			if k.flags != chunkDone || k.kind != chunkData || k.cookie != 7 || binary.BigEndian.Uint64(k.data) != r.off ||
				!bytes.Equal(k.data[8:], want[r.off:][:r.n]) {
				t.Fatalf("read %+v flags %d: chunk %d %#x %d of %d bytes", r, flags, k.flags, k.kind, k.cookie, len(k.data))
			}
		}
	}
	c.send(cmdRead, 0, 8, 4096, 0, nil)
	if k := c.chunk(); k.flags != chunkDone || k.kind != chunkNone || k.cookie != 8 || len(k.data) != 0 {
		t.Fatalf("%+v", k)
	}
	c.send(cmdWrite, cmdFlagFUA, 9, 0, 4096, block4(1))
	c.expect(9, eOK, 0)
	c.send(cmdFlush, 0, 10, 0, 0, nil)
	c.expect(10, eOK, 0)
}

// An error is one chunk, with a reason when the server refuses, with the place when the volume failed, and without
// any data before it; afterwards the stream is in step.
func TestErrorChunks(t *testing.T) {
	s, disk := one(t)
	disk.hook(func(_ context.Context, call string, off, _ int64) error {
		if call == "read" && off == 3<<20 || call == "write" && off == 2<<20 {
			return syscall.EIO
		}
		return nil
	})
	c := enter(t, s, "disk", structured)
	for _, e := range []struct {
		command, flags uint16
		off            uint64
		n              uint32
		payload        int
		want           errno
		why            string
		at             uint64
	}{
		{cmdRead, 0, 0, 5 << 20, 0, eIO, "", 3 << 20},
		{cmdRead, cmdFlagDF, 3<<20 + 5, 2, 0, eIO, "", 3<<20 + 5},
		{cmdWrite, 0, 1 << 20, 2 << 20, 2 << 20, eIO, "", 0},
		{cmdRead, 0, 8 << 20, 1, 0, eINVAL, "beyond the end", 0},
		{cmdRead, 0, 0, RequestBytesMax + 1, 0, eINVAL, "32 MiB", 0},
		{cmdWrite, 0, 8<<20 - 4096, 8192, 8192, eNOSPC, "beyond the end", 0},
		{cmdWrite, cmdFlagDF, 0, 4096, 4096, eINVAL, "flag", 0},
		{cmdWriteZeroes, cmdFlagFastZero, 0, 4096, 0, eNOTSUP, "no faster", 0},
		{cmdFlush, 0, 0, 1, 0, eINVAL, "range", 0},
		{99, 0, 0, 4096, 0, eINVAL, "unknown command", 0},
	} {
		c.send(e.command, e.flags, 5, e.off, e.n, make([]byte, e.payload))
		k := c.chunk()
		got, why, at := k.errorChunk(t)
		if k.cookie != 5 || got != e.want || !strings.Contains(why, e.why) || e.why == "" && why != "" || at != e.at {
			t.Fatalf("%+v: error %d %q at %d", e, got, why, at)
		}
	}
	c.send(cmdRead, 0, 6, 0, 4096, nil)
	if k := c.chunk(); k.kind != chunkData || k.cookie != 6 {
		t.Fatalf("%+v", k)
	}
}

// Without the option the flag DF is not offered, and refused.
func TestDFNeedsStructuredReplies(t *testing.T) {
	s, _ := one(t)
	c := enter(t, s, "disk")
	c.send(cmdRead, cmdFlagDF, 1, 0, 4096, nil)
	c.expect(1, eINVAL, 0)
	c.send(cmdRead, 0, 2, 0, 4096, nil)
	c.expect(2, eOK, 4096)
	for _, with := range []bool{false, true} {
		c := dial(t, s)
		if with {
			c.put(structured)
			c.acknowledged()
		}
		c.goOption("disk")
		info := c.acknowledged()[0]
		if flags := binary.BigEndian.Uint16(info[10:]); flags&sendDF != 0 != with {
			t.Errorf("structured %v: transmission flags %#x", with, flags)
		}
	}
}
