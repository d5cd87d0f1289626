package link

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/block"
	"duet/replication/internal/batch"
)

// Times and limits of a lane (replication.md 12.1).
const (
	pingEvery         = 250 * time.Millisecond
	silentFor         = 750 * time.Millisecond // then the lane is lost
	maxInFlightFrames = 4096
	maxInFlightBytes  = 64 << 20
	maxQueuedBytes    = 8 << 20 // per batch handed to the socket
	drainRounds       = 2       // batches that one goroutine writes for the others
)

// ErrLost is the result of every frame whose answer did not come before its lane ended. Nobody knows whether
// the peer has done it.
var ErrLost = errors.New("the data lane was lost")

// Result tells the end of a frame that was sent with a request: the peer's status, or ErrLost.
type Result func(status uint32, err error)

// BatchResult is a Result that must not wait, and may leave what costs a call into the kernel to the end of a batch.
type BatchResult func(b *batch.Batch, status uint32, err error)

// Lane is one incarnation of the connection between the nodes: authenticated, of one session, ordered.
type Lane struct {
	Session     uint64
	Incarnation uint64
	Path        string
	PeerBoot    string
	PeerProcess string // random per start of the peer's daemon
	Clear       bool   // not encrypted

	conn   net.Conn // TLS, or the socket itself
	socket *socket
	owner  *Link
	in     batch.Batch // of the lane's reader

	heard atomic.Int64 // ns since start, of the last byte received
	start time.Time
	dead  chan struct{}

	mu       sync.Mutex
	room     *sync.Cond
	err      error
	sequence uint64
	queue    []*Frame
	acks     []byte
	writing  bool
	heads    []byte // memory of whoever is writing
	pending  map[uint32]*pendingFrame
	request  uint32
	inFlight int // bytes of pending

	received      int // frames taken and not yet acknowledged by this side
	receivedBytes int
	debts         map[uint32]int
}

type pendingFrame struct {
	bytes  int
	result BatchResult
	into   []byte // where the data of the answer goes
}

// newLane makes a lane of an authenticated connection. clear: from here on nothing is encrypted on it.
func newLane(conn *tls.Conn, owner *Link, clear bool) *Lane {
	s := conn.NetConn().(*socket) // by newSocket, as for every connection here
	l := &Lane{
		conn: conn, socket: s, owner: owner, start: time.Now(), dead: make(chan struct{}),
		pending: map[uint32]*pendingFrame{}, debts: map[uint32]int{},
	}
	l.room = sync.NewCond(&l.mu)
	if clear {
		s.clear = true
		l.conn = s
	}
	return l
}

// Dead is closed when the lane ended.
func (l *Lane) Dead() <-chan struct{} { return l.dead }

// Reading is the batch of the lane's reader: for what the handler does within its call, and for what is done when results are told.
func (l *Lane) Reading() *batch.Batch { return &l.in }

// Send queues f in the order of the lane and lets the calling goroutine write to the socket if nobody does. With
// a result it blocks until there is room in flight, and result is called exactly once, from another goroutine
// or, if the lane is dead already, from this call. The payload must stay unchanged until then.
func (l *Lane) Send(f *Frame, result Result) { l.send(f, result, nil) }

// Ask is Send of a request whose answer has data: exactly len(into) bytes with status 0, none with another. into is used
// until result is called.
func (l *Lane) Ask(f *Frame, into []byte, result Result) { l.send(f, result, into) }

func (l *Lane) send(f *Frame, result Result, into []byte) {
	var told BatchResult
	if result != nil {
		told = func(_ *batch.Batch, status uint32, err error) { result(status, err) }
	}
	if !l.enqueue(f, told, into, true) && told != nil {
		result(0, ErrLost)
	}
	l.push()
}

// Begin is Send that does not wait: the frame is queued now and goes out when b ends. false: there is no room, or the lane is dead,
// and result is not called.
func (l *Lane) Begin(b *batch.Batch, f *Frame, result BatchResult) bool {
	if !l.enqueue(f, result, nil, false) {
		return false
	}
	l.owe(b)
	return true
}

// Post is Send without a result, for callers that must not block on the socket, such as the lane's own reader.
func (l *Lane) Post(f *Frame) {
	if l.enqueue(f, nil, nil, false) && l.takePen() {
		go l.drain()
	}
}

// Ack answers a request that the peer sent.
func (l *Lane) Ack(request, status uint32) {
	if l.ack(request, status) {
		l.push()
	}
}

// BeginAck is Ack that does not wait: the answer goes out when b ends.
func (l *Lane) BeginAck(b *batch.Batch, request, status uint32) {
	if l.ack(request, status) {
		l.owe(b)
	}
}

// owe has the queue written at the end of b. The lane's own reader must not wait for the socket: if both readers did, both would
// wait for ever.
func (l *Lane) owe(b *batch.Batch) {
	if b != &l.in {
		b.Owe(l)
	} else if l.takePen() {
		go l.drain()
	}
}

func (l *Lane) ack(request, status uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.debts[request]
	if !ok || l.err != nil {
		return false
	}
	delete(l.debts, request)
	l.received--
	l.receivedBytes -= n
	l.acks = binary.LittleEndian.AppendUint32(l.acks, request)
	l.acks = binary.LittleEndian.AppendUint32(l.acks, status)
	return true
}

// Reply answers a request of the peer with data. sent is called once, when the payload is not used any more.
func (l *Lane) Reply(request uint32, payload []byte, sent func()) {
	l.mu.Lock()
	n, ok := l.debts[request]
	if !ok || l.err != nil {
		l.mu.Unlock()
		sent()
		return
	}
	delete(l.debts, request)
	l.received--
	l.receivedBytes -= n
	l.append(&Frame{Type: Reply, Request: request, Payload: payload, sent: sent})
	l.mu.Unlock()
	l.push()
}

// Close ends the lane. It does not wait.
func (l *Lane) Close(err error) { l.fail(err) }

// enqueue puts a frame into the lane's order; false: it did not.
func (l *Lane) enqueue(f *Frame, result BatchResult, into []byte, wait bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := HeaderBytes + max(len(f.Payload), len(into))
	for result != nil && l.err == nil && (len(l.pending) >= maxInFlightFrames || l.inFlight+n > maxInFlightBytes) {
		if !wait {
			return false
		}
		l.room.Wait()
	}
	if l.err != nil {
		return false
	}
	if result != nil {
		l.request++
		if l.request == 0 {
			l.request++
		}
		f.Request = l.request
		l.pending[f.Request] = &pendingFrame{n, result, into}
		l.inFlight += n
	}
	l.append(f)
	return true
}

// append puts a frame into the lane's order. The caller holds mu.
func (l *Lane) append(f *Frame) {
	l.sequence++
	f.Sequence = l.sequence
	f.Session, f.Incarnation = uint32(l.Session), uint32(l.Incarnation)
	f.Epoch = l.owner.stamp()
	l.queue = append(l.queue, f)
}

// takePen makes the caller the one that writes to the socket, if there is something to write and nobody does.
func (l *Lane) takePen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing || l.err != nil || len(l.queue) == 0 && len(l.acks) == 0 {
		return false
	}
	l.writing = true
	return true
}

// push writes what is queued, unless somebody does: whoever finds the writer idle becomes it, so depth 1 needs no wake-up
// and depth 32 is batched (replication.md section 13).
func (l *Lane) push() {
	if l.takePen() {
		l.drain()
	}
}

// Flush is batch.Flusher.
func (l *Lane) Flush() { l.push() }

// drain writes until the queue is empty. After some rounds a goroutine of its own goes on, so that nobody writes for the others
// for as long as they like.
func (l *Lane) drain() {
	for range drainRounds {
		if !l.drainOnce() {
			return
		}
	}
	go func() {
		for l.drainOnce() { //nolint:revive // all is done there
		}
	}()
}

// drainOnce writes one batch; false: nothing was left, and the pen is down.
func (l *Lane) drainOnce() bool {
	l.mu.Lock()
	if l.err != nil || (len(l.queue) == 0 && len(l.acks) == 0) {
		l.writing = false
		l.room.Broadcast()
		l.mu.Unlock()
		return false
	}
	if n := min(len(l.acks), MaxPayload); n > 0 {
		l.append(&Frame{Type: Acks, Payload: append([]byte(nil), l.acks[:n]...)})
		l.acks = l.acks[:copy(l.acks, l.acks[n:])]
	}
	frames := l.next()
	l.mu.Unlock()
	if err := l.write(frames); err != nil {
		l.fail(fmt.Errorf("write: %w", err))
	}
	release(frames)
	return true
}

// release tells whose payloads are free again.
func release(frames []*Frame) {
	for _, f := range frames {
		if f.sent != nil {
			f.sent()
		}
	}
}

// next takes the frames that are written together. The caller holds mu.
func (l *Lane) next() []*Frame {
	bytes, n := 0, 0
	for n < len(l.queue) && (n == 0 || bytes < maxQueuedBytes) {
		bytes += HeaderBytes + len(l.queue[n].Payload)
		n++
	}
	frames := l.queue[:n:n]
	l.queue = l.queue[n:]
	return frames
}

// write hands frames to TLS, small ones joined, and what TLS makes of them to the socket in as few calls as fit. Only who has
// the pen calls it.
func (l *Lane) write(frames []*Frame) error {
	const join = 16 << 10 // one record of TLS
	buf := l.heads[:0]
	defer func() { l.heads = buf[:0] }()
	l.socket.cork()
	for _, f := range frames {
		buf = f.appendHeader(buf)
		if len(f.Payload) <= join {
			buf = append(buf, f.Payload...)
			if len(buf) < 4*join {
				continue
			}
		}
		if _, err := l.conn.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
		if len(f.Payload) > join {
			if _, err := l.conn.Write(f.Payload); err != nil {
				return err
			}
		}
	}
	if len(buf) > 0 {
		if _, err := l.conn.Write(buf); err != nil {
			return err
		}
	}
	return l.socket.uncork()
}

// fail is the end of the lane; the first reason counts.
func (l *Lane) fail(err error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = err
		close(l.dead)
	}
	l.room.Broadcast()
	l.mu.Unlock()
	if first {
		closeRaw(l.conn)
	}
}

// finish waits until nobody uses a payload any more and then completes what was pending.
func (l *Lane) finish() {
	l.mu.Lock()
	for l.writing {
		l.room.Wait()
	}
	pending, queue := l.pending, l.queue
	l.pending = map[uint32]*pendingFrame{}
	l.queue, l.acks = nil, nil
	l.mu.Unlock()
	release(queue)
	for _, p := range pending {
		p.result(&l.in, 0, ErrLost)
	}
	l.in.End()
}

// run reads until the lane ends. It calls handler for every frame, in lane order.
func (l *Lane) run(h Handler) error {
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { l.watch(stop) })
	err := l.read(h)
	l.fail(err)
	close(stop)
	watch.Wait()
	l.finish()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Lane) read(h Handler) error {
	// Before it waits for more, what came before is done. A record of TLS is no reason to: more of them may be there.
	l.socket.before, l.socket.after = l.in.End, l.hear
	in := io.Reader(l.conn)
	if !l.socket.clear {
		in = bufio.NewReaderSize(l.conn, 64<<10)
	}
	r := &reader{r: in, get: block.Get, put: block.Put}
	for sequence := uint64(1); ; sequence++ {
		f, err := r.next(MaxPayload)
		if err != nil {
			return err
		}
		if err := l.check(f, sequence); err != nil {
			return err
		}
		switch f.Type {
		case Ping:
		case Acks:
			err = l.take(f.Payload)
		case Reply:
			err = l.takeReply(f)
		default:
			if err := h.LaneFrame(l, f); err != nil {
				return err
			}
			continue // the payload went with the frame
		}
		if f.Payload != nil {
			block.Put(f.Payload)
		}
		if err != nil {
			return err
		}
	}
}

// check refuses a frame of another session, incarnation or epoch, and any gap (protocol.md section 8).
func (l *Lane) check(f *Frame, sequence uint64) error {
	switch {
	case f.Sequence != sequence:
		return fmt.Errorf("%w: sequence %d instead of %d", ErrFrame, f.Sequence, sequence)
	case f.Session != uint32(l.Session) || f.Incarnation != uint32(l.Incarnation):
		return fmt.Errorf("%w: session or incarnation", ErrFrame)
	}
	switch f.Type {
	case Write, Zero, Flush, Resync, ResyncBad, ProxyWrite, ProxyZero, ProxyFlush, ProxyRead, LegRead:
		if !l.owner.accepts(l.Session, f.Epoch) {
			return fmt.Errorf("%w: epoch %d is not granted", ErrFrame, f.Epoch)
		}
	case Hello:
		return fmt.Errorf("%w: second hello", ErrFrame)
	default:
	}
	if f.Request == 0 || f.Type == Reply {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := HeaderBytes + len(f.Payload)
	if f.Type == ProxyRead || f.Type == LegRead {
		n = HeaderBytes + int(min(f.Length, MaxPayload)) // what its answer takes
	}
	if _, double := l.debts[f.Request]; double {
		return fmt.Errorf("%w: request %d twice", ErrFrame, f.Request)
	}
	l.debts[f.Request] = n
	l.received++
	l.receivedBytes += n
	if l.received > maxInFlightFrames || l.receivedBytes > maxInFlightBytes {
		return fmt.Errorf("%w: more in flight than allowed", ErrFrame)
	}
	return nil
}

// take completes acknowledged requests.
func (l *Lane) take(p []byte) error {
	if len(p) == 0 || len(p)%8 != 0 {
		return fmt.Errorf("%w: acks of %d bytes", ErrFrame, len(p))
	}
	for ; len(p) > 0; p = p[8:] {
		request, status := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
		f, err := l.settle(request)
		if err != nil {
			return err
		}
		if status == 0 && f.into != nil {
			f.result(&l.in, 0, ErrLost) // its caller must hear the end; the lane is over
			return fmt.Errorf("%w: answer without data to request %d", ErrFrame, request)
		}
		f.result(&l.in, status, nil)
	}
	return nil
}

// takeReply completes a request that asked for data.
func (l *Lane) takeReply(r *Frame) error {
	f, err := l.settle(r.Request)
	if err != nil {
		return err
	}
	if len(f.into) != len(r.Payload) || r.Status != 0 {
		f.result(&l.in, 0, ErrLost)
		return fmt.Errorf("%w: answer of %d bytes, asked for %d", ErrFrame, len(r.Payload), len(f.into))
	}
	copy(f.into, r.Payload)
	f.result(&l.in, 0, nil)
	return nil
}

// settle takes a request out of those that wait for an answer.
func (l *Lane) settle(request uint32) (*pendingFrame, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.pending[request]
	if f == nil {
		return nil, fmt.Errorf("%w: answer to unknown request %d", ErrFrame, request)
	}
	delete(l.pending, request)
	l.inFlight -= f.bytes
	l.room.Broadcast()
	return f, nil
}

// watch sends pings and notices silence.
func (l *Lane) watch(stop chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if silence := time.Since(l.start) - time.Duration(l.heard.Load()); silence > silentFor {
				l.fail(fmt.Errorf("silent for %v", silence.Round(time.Millisecond)))
				return
			}
			l.Post(&Frame{Type: Ping})
		}
	}
}

// hear notes when bytes arrive.
func (l *Lane) hear() { l.heard.Store(int64(time.Since(l.start))) }
