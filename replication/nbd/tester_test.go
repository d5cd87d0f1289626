package nbd

import (
	"bytes"
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// The cases of nbd-tester-client, the tester of the NBD project. Debian packages it in no binary, so they are written
// anew: handshake, oversized, write, flush, integrity and disconnect. Where the original replays a recorded trace, a
// seed makes one here.

var traceSeed = flag.Uint64("trace.seed", 1, "seed of TestTesterIntegrity's trace")

// The list, then a goodbye; and again, so that nothing of a client is left.
func TestTesterHandshake(t *testing.T) {
	s, _ := one(t)
	for range 3 {
		c := dial(t, s)
		c.put(optionBytes(optList, nil))
		if names := c.acknowledged(); len(names) != 2 || string(names[0][4:8]) != "disk" {
			t.Fatalf("%q", names)
		}
		c.put(optionBytes(optAbort, nil))
		c.acknowledged()
		c.closed()
	}
}

// Requests around and far over the limit: carried out or refused, and the connection lives on either way.
func TestTesterOversized(t *testing.T) {
	s := start(t, newMemory(t, map[string]int64{"disk": 40 << 20}))
	c := enter(t, s, "disk")
	for i, n := range []uint32{1 << 20, 1<<20 + 1, RequestBytesMax - 1, RequestBytesMax} {
		cookie := uint64(i)
		c.send(cmdWrite, 0, cookie, 0, n, bytes.Repeat([]byte{byte(i + 1)}, int(n)))
		c.expect(cookie, eOK, 0)
		c.send(cmdRead, 0, cookie, 0, n, nil)
		if got := c.expect(cookie, eOK, int(n)); got[0] != byte(i+1) || got[n-1] != byte(i+1) {
			t.Fatalf("%d bytes: read %d..%d", n, got[0], got[n-1])
		}
	}
	for _, n := range []uint32{RequestBytesMax + 1, RequestBytesMax + 4096, drainBytesMax} {
		c.send(cmdRead, 0, 9, 0, n, nil)
		c.expect(9, eINVAL, 0)
		c.send(cmdWrite, 0, 10, 0, n, make([]byte, n))
		c.expect(10, eINVAL, 0)
	}
	for _, n := range []uint32{1 << 31, 1<<32 - 1} {
		c.send(cmdRead, 0, 11, 0, n, nil)
		c.expect(11, eINVAL, 0)
	}
	c.send(cmdRead, 0, 12, RequestBytesMax-1, 1, nil)
	if got := c.expect(12, eOK, 1); got[0] != 4 {
		t.Fatalf("a refused write left %d", got[0])
	}
}

// The whole disk in pipelined pieces, with and without a flush after each; then it is all there.
func TestTesterWriteAndFlush(t *testing.T) {
	for _, flush := range []bool{false, true} {
		s, disk := one(t)
		disk.watch()
		c := enter(t, s, "disk")
		const piece, pieces = 32 << 10, 8 << 20 / (32 << 10)
		want := noise(8<<20, 7)
		go func() {
			for i := range uint64(pieces) {
				p := append(rawRequest(cmdWrite, 0, i, i*piece, piece), want[i*piece:][:piece]...)
				if flush {
					p = append(p, rawRequest(cmdFlush, 0, 1<<32|i, 0, 0)...)
				}
				if _, err := c.Write(p); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		open := map[uint64]bool{}
		for i := range uint64(pieces) {
			open[i] = true
			if flush {
				open[1<<32|i] = true
			}
		}
		for len(open) > 0 {
			cookie, e := c.reply()
			if e != eOK || !open[cookie] {
				t.Fatalf("reply to %#x: %d", cookie, e)
			}
			delete(open, cookie)
		}
		if !bytes.Equal(disk.contents(), want) {
			t.Fatal("the disk differs")
		}
		if flushed := bytes.Count([]byte(disk.called()), []byte("flush")); flush != (flushed == pieces) {
			t.Fatalf("flushes asked for: %v, seen: %d", flush, flushed)
		}
	}
}

// Every way to end: DISC, DISC with requests before it, the end of the stream, the end in the middle of a request.
func TestTesterDisconnect(t *testing.T) {
	s, _ := one(t)
	for name, leave := range map[string]func(c *client){
		"DISC": func(c *client) { c.send(cmdDisc, 0, 0, 0, 0, nil); c.closed() },
		"DISC after a write": func(c *client) {
			c.put(append(append(rawRequest(cmdWrite, 0, 1, 0, 4096), block4(1)...), rawRequest(cmdDisc, 0, 0, 0, 0)...))
			c.expect(1, eOK, 0)
			c.closed()
		},
		"close":                       func(c *client) { c.Close() },
		"close within a header":       func(c *client) { c.put(rawRequest(cmdRead, 0, 1, 0, 4096)[:20]); c.Close() },
		"close within a payload":      func(c *client) { c.send(cmdWrite, 0, 1, 0, 1<<20, make([]byte, 1000)); c.Close() },
		"close within a refused one":  func(c *client) { c.send(cmdWrite, 0, 1, 1<<40, 1<<20, make([]byte, 9)); c.Close() },
		"close before many responses": func(c *client) { c.put(bytes.Repeat(rawRequest(cmdRead, 0, 1, 0, 1<<20), 40)); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			leave(enter(t, s, "disk"))
			await(t, "the volume is closed", func() bool { return !s.backend.volumes["disk"].isOpen() })
		})
	}
}

// zoneBytes is deliberately not whole blocks: neighbours share blocks, so their ragged requests meet.
const (
	zoneBytes = 10007
	zones     = 240
	testers   = 4
)

// traced is one request of a trace and what must come of it.
type traced struct {
	command, flags uint16
	off            uint64
	n              uint32
	payload        []byte
	want           errno
	data           []byte // of a read
}

// tester is one connection of the trace. Every testers-th zone is its own, so that what a read returns is known.
type tester struct {
	*client
	r          *rand.Rand
	self       int
	structured bool
	model      []byte // of the whole disk; only own zones count
}

// next is the next request, in a zone that no request of this round is in.
func (x *tester) next(zone int) traced {
	off := uint64(zone)*zoneBytes + uint64(x.r.IntN(5000))
	q := traced{off: off, n: uint32(1 + x.r.IntN(5000))}
	here := x.model[off:][:q.n]
	switch x.r.IntN(10) {
	default:
		q.command, q.payload = cmdWrite, noise(int(q.n), x.r.Uint64())
		q.flags = uint16(x.r.IntN(2)) * cmdFlagFUA
		copy(here, q.payload)
	case 4, 5, 6:
		q.command, q.data = cmdRead, bytes.Clone(here)
	case 7:
		q.command, q.flags = cmdWriteZeroes, cmdFlagNoHole
		clear(here)
	case 8:
		q.command, q.off, q.n = cmdFlush, 0, 0
		if x.r.IntN(2) == 0 {
			q.command, q.off, q.n = cmdTrim, off, 3
		}
	case 9: // refused, with a payload as often as not
		q.want = eINVAL
		q.command, q.flags = uint16(50+x.r.IntN(9)), cmdFlagFUA
		if x.r.IntN(2) == 0 {
			q.command, q.flags, q.payload = cmdWrite, 1<<7, make([]byte, q.n)
		}
	}
	return q
}

// round sends requests to a few zones at once and judges the replies, which come in any order.
func (x *tester) round() {
	open := map[uint64]traced{}
	var stream []byte
	for _, z := range x.r.Perm(zones / testers)[:1+x.r.IntN(30)] {
		q, cookie := x.next(z*testers+x.self), x.r.Uint64()
		open[cookie] = q
		stream = append(append(stream, rawRequest(q.command, q.flags, cookie, q.off, q.n)...), q.payload...)
	}
	sent := make(chan error, 1)
	go func() { _, err := x.Write(stream); sent <- err }()
	for len(open) > 0 {
		cookie, e, data := x.answer(open)
		q, known := open[cookie]
		if !known || e != q.want || e == eOK && q.command == cmdRead && !bytes.Equal(data, q.data) {
			x.t.Errorf("command %d flags %d %d+%d, known: %v: error %d, want %d, data as expected: %v", q.command, q.flags,
				q.off, q.n, known, e, q.want, bytes.Equal(data, q.data))
			return
		}
		delete(open, cookie)
	}
	if err := <-sent; err != nil {
		x.t.Error(err)
	}
}

// answer reads one reply in the form that it must have.
func (x *tester) answer(open map[uint64]traced) (cookie uint64, e errno, data []byte) {
	if !x.structured {
		if cookie, e = x.reply(); e == eOK && open[cookie].command == cmdRead {
			data = x.take(int(open[cookie].n))
		}
		return cookie, e, data
	}
	k, _ := x.eitherReply()
	switch k.kind {
	case chunkData:
		return k.cookie, eOK, k.data[8:]
	case chunkError, chunkErrorAt:
		e, _, _ = k.errorChunk(x.t)
	}
	return k.cookie, e, nil
}

// Four connections, two with structured replies, thirty requests in flight each, ragged ones that share blocks with
// those of another connection, refused ones among them: every read returns what was written last.
func TestTesterIntegrity(t *testing.T) {
	s, disk := one(t)
	disk.hook(func(context.Context, string, int64, int64) error { runtime.Gosched(); return nil })
	var wg sync.WaitGroup
	all := make([]*tester, testers)
	for i := range all {
		var options [][]byte
		if i%2 == 1 {
			options = append(options, structured)
		}
		all[i] = &tester{
			client: enter(t, s, "disk", options...), r: rand.New(rand.NewPCG(*traceSeed, uint64(i))),
			self: i, structured: i%2 == 1, model: make([]byte, 8<<20),
		}
	}
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	for _, x := range all {
		wg.Go(func() {
			for i := 0; i < rounds && !t.Failed(); i++ {
				x.round()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Fatalf("repeat with -trace.seed %d", *traceSeed)
	}
	got := disk.contents()
	for zone := range zones {
		at := zone * zoneBytes
		if !bytes.Equal(got[at:][:zoneBytes], all[zone%testers].model[at:][:zoneBytes]) {
			t.Fatalf("zone %d differs, -trace.seed %d", zone, *traceSeed)
		}
	}
}
