package nbd

import (
	"encoding/binary"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a client and the server of its connection, without a listener.
func pair(t *testing.T) (c *client, m *memory, ended chan struct{}) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	m = newMemory(t, map[string]int64{"disk": fuzzDiskBytes, "": 4096})
	s := &server{backend: m, locks: map[string]*exportLock{}}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		s.connection(t.Context(), ends[1])
	}()
	c = &client{t, ends[0]}
	c.take(18)
	return c, m, ended
}

const fuzzDiskBytes = 256 << 10

// finish closes the client and waits for the server's end, which must leave nothing.
func finish(t *testing.T, c *client, m *memory, ended chan struct{}) {
	t.Helper()
	c.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the server does not notice that its client left")
	}
	for name, v := range m.volumes {
		if v.isOpen() {
			t.Fatalf("volume %q stayed open", name)
		}
	}
}

// FuzzOptions: whatever comes instead of a handshake, the server does not panic, answers only in well-formed
// option replies, and ends with its client.
func FuzzOptions(f *testing.F) {
	be := binary.BigEndian
	option := func(opt uint32, data string) []byte { return optionBytes(opt, []byte(data)) }
	flags := []byte{0, 0, 0, 3}
	f.Add(append(flags, option(optList, "")...))
	f.Add(append(flags, option(optGo, "\x00\x00\x00\x04disk\x00\x01\x00\x03")...))
	f.Add(append(flags, option(optInfo, "\x00\x00\x00\x00\x00\x00")...))
	f.Add(append([]byte{0, 0, 0, 1}, option(optExportName, "disk")...))
	f.Add(append(flags, option(optAbort, "")...))
	f.Add(append(flags, structured...))
	f.Add(append(append(flags, structured...), metaOption(optListMeta, "disk")...))
	f.Add(slices.Concat(flags, structured, both, option(optGo, "\x00\x00\x00\x04disk\x00\x00")))
	f.Add(append(flags, metaOption(optSetMeta, "disk", "base:", "x-duet:dirty")...))
	f.Add(append(append(flags, option(optGo, "\x00\x00\x00\x04disk\x00\x00")...), rawRequest(cmdRead, 0, 1, 0, 4096)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, m, ended := pair(t)
		go func() {
			_, _ = c.Write(in)
			_ = c.Conn.(*net.UnixConn).CloseWrite()
		}()
		for {
			var h [20]byte
			n, err := c.Read(h[:1])
			if n == 0 || err != nil {
				break
			}
			copy(h[1:], c.take(9)) // the shortest reply of all, EXPORT_NAME's, has ten bytes
			if be.Uint64(h[:]) != magicReply {
				break // it got as far as EXPORT_NAME's reply or requests, which FuzzRequests judges
			}
			copy(h[10:], c.take(10))
			c.take(int(be.Uint32(h[16:])))
		}
		finish(t, c, m, ended)
	})
}

// FuzzRequests: of any sequence of requests, legal or not, every one is answered exactly once, with its data if
// it is a read that succeeded, and the stream stays in step to the last.
func FuzzRequests(f *testing.F) {
	seedRequests(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, m, ended := pair(t)
		c.put([]byte{0, 0, 0, 3})
		c.goOption("disk")
		c.acknowledged()
		asked, stream := requestsOf(in)
		go func() { _, _ = c.Write(stream) }()
		for len(asked) > 0 {
			cookie, e := c.reply()
			a := answered(t, asked, cookie, e)
			if a.command == cmdRead && e == eOK {
				c.take(int(a.n))
			}
		}
		c.closed()
		finish(t, c, m, ended)
	})
}

// FuzzStructured: the same with structured replies and both contexts. A reply is one chunk, but of a block status one
// for each context; data is of the length that was asked for, and extents describe the range from its begin, none of
// them empty, none beyond its end.
func FuzzStructured(f *testing.F) {
	seedRequests(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, m, ended := pair(t)
		for i := range len(in) {
			m.volumes["disk"].dirty[int(in[i])%len(m.volumes["disk"].dirty)] = true
		}
		c.put([]byte{0, 0, 0, 3})
		c.put(structured)
		c.put(both)
		c.acknowledged()
		c.acknowledged()
		c.goOption("disk")
		c.acknowledged()
		asked, stream := requestsOf(in)
		go func() { _, _ = c.Write(stream) }()
		for len(asked) > 0 {
			k, simple := c.eitherReply()
			e := eOK
			if k.kind>>15 == 1 {
				e, _, _ = k.errorChunk(t)
			}
			a := answered(t, asked, k.cookie, e)
			switch {
			case e != eOK:
			case a.command == cmdBlockStatus:
				last := c.chunk()
				if k.flags != 0 || last.flags != chunkDone || last.cookie != k.cookie {
					t.Fatalf("chunks of a block status: %+v %+v", k, last)
				}
				describes(t, k, a.n, true)
				describes(t, last, a.n, a.flags&cmdFlagReqOne == 0)
			case a.command != cmdRead:
				if !simple {
					t.Fatalf("%+v: chunk %+v", a, k)
				}
			case k.flags != chunkDone || a.n > 0 && (k.kind != chunkData || len(k.data) != int(a.n)+8 ||
				binary.BigEndian.Uint64(k.data) != a.off):
				t.Fatalf("%+v: chunk %d %#x of %d bytes", a, k.flags, k.kind, len(k.data))
			}
		}
		c.closed()
		finish(t, c, m, ended)
	})
}

// describes checks the extents of a chunk against the length that was asked about.
func describes(t *testing.T, k chunk, n uint32, whole bool) {
	t.Helper()
	be := binary.BigEndian
	if k.kind != chunkStatus || len(k.data) < 12 || len(k.data)%8 != 4 || len(k.data) > 4+8*extentsMax {
		t.Fatalf("no status: %+v", k)
	}
	told := uint64(0)
	for p := k.data[4:]; len(p) > 0; p = p[8:] {
		if be.Uint32(p) == 0 {
			t.Fatal("an empty extent")
		}
		told += uint64(be.Uint32(p))
	}
	if told > uint64(n) || whole && told != uint64(n) {
		t.Fatalf("extents of %d bytes for %d", told, n)
	}
}

func seedRequests(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 3, 255, 255, 9, 1, 1, 3, 255, 250, 9, 6, 16, 1, 0, 0, 77, 4, 1, 0, 0, 1, 200, 3, 0, 0, 0, 0, 0})
	f.Add([]byte{99, 0, 0, 0, 0, 0, 5, 2, 9, 9, 9, 9})
	f.Add([]byte{7, 0, 0, 0, 0, 250, 7, 8, 0, 16, 1, 99, 0, 4, 0, 0, 7, 7, 0, 4, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 7, 0, 255, 0, 0, 1})
}

// requestsOf makes requests of six bytes each, and a goodbye.
func requestsOf(in []byte) (asked map[uint64]request, stream []byte) {
	asked = map[uint64]request{}
	for i := 0; i+6 <= len(in) && i < 6*200; i += 6 {
		b := in[i : i+6]
		r := request{command: uint16(b[0]), flags: uint16(b[1]), off: uint64(b[2])<<16 | uint64(b[3])<<8 | uint64(b[4])}
		r.n = uint32(b[5]) * 97 // ragged more often than not
		if b[5] > 250 && r.command != cmdWrite {
			r.n = -uint32(b[5])
		}
		if r.command == cmdDisc {
			continue
		}
		r.cookie = uint64(i) + 1
		asked[r.cookie] = r
		stream = append(stream, rawRequest(r.command, r.flags, r.cookie, r.off, r.n)...)
		if r.command == cmdWrite {
			stream = append(stream, make([]byte, r.n)...)
		}
	}
	return asked, append(stream, rawRequest(cmdDisc, 0, 0, 0, 0)...)
}

// answered strikes a request off the list.
func answered(t *testing.T, asked map[uint64]request, cookie uint64, e errno) request {
	t.Helper()
	r, known := asked[cookie]
	if !known {
		t.Fatalf("reply to %d, which is not open", cookie)
	}
	if e == eIO {
		t.Fatalf("command %d: EIO from a volume without errors", r.command)
	}
	delete(asked, cookie)
	return r
}
