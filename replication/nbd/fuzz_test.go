package nbd

import (
	"encoding/binary"
	"net"
	"os"
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
	option := func(opt uint32, data string) []byte {
		p := be.AppendUint64(nil, magicOption)
		p = be.AppendUint32(p, opt)
		return append(be.AppendUint32(p, uint32(len(data))), data...)
	}
	flags := []byte{0, 0, 0, 3}
	f.Add(append(flags, option(optList, "")...))
	f.Add(append(flags, option(optGo, "\x00\x00\x00\x04disk\x00\x01\x00\x03")...))
	f.Add(append(flags, option(optInfo, "\x00\x00\x00\x00\x00\x00")...))
	f.Add(append([]byte{0, 0, 0, 1}, option(optExportName, "disk")...))
	f.Add(append(flags, option(optAbort, "")...))
	f.Add(append(flags, option(optStructuredReply, "")...))
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
	f.Add([]byte{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 3, 255, 255, 9, 1, 1, 3, 255, 250, 9, 6, 16, 1, 0, 0, 77, 4, 1, 0, 0, 1, 200, 3, 0, 0, 0, 0, 0})
	f.Add([]byte{99, 0, 0, 0, 0, 0, 5, 2, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, in []byte) {
		c, m, ended := pair(t)
		c.put([]byte{0, 0, 0, 3})
		c.goOption("disk")
		for c.optionReply() == repInfo {
			continue
		}
		type sent struct {
			command uint16
			n       uint32
		}
		asked := map[uint64]sent{}
		var stream []byte
		for i := 0; i+6 <= len(in) && i < 6*200; i += 6 {
			r := in[i : i+6]
			command, flags := uint16(r[0]), uint16(r[1])
			off := uint64(r[2])<<16 | uint64(r[3])<<8 | uint64(r[4])
			n := uint32(r[5]) * 97 // ragged more often than not
			if r[5] > 250 && command != cmdWrite {
				n = -uint32(r[5])
			}
			if command == cmdDisc {
				continue
			}
			cookie := uint64(i) + 1
			asked[cookie] = sent{command, n}
			stream = append(stream, rawRequest(command, flags, cookie, off, n)...)
			if command == cmdWrite {
				stream = append(stream, make([]byte, n)...)
			}
		}
		go func() { _, _ = c.Write(append(stream, rawRequest(cmdDisc, 0, 0, 0, 0)...)) }()
		for len(asked) > 0 {
			cookie, e := c.reply()
			a, known := asked[cookie]
			if !known {
				t.Fatalf("reply to %d, which is not open", cookie)
			}
			delete(asked, cookie)
			if a.command == cmdRead && e == eOK {
				c.take(int(a.n))
			}
			if e == eIO {
				t.Fatalf("request %+v: EIO from a volume without errors", a)
			}
		}
		c.closed()
		finish(t, c, m, ended)
	})
}
