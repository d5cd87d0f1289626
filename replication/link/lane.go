package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/block"
)

// Times and limits of a lane (replication.md 12.1).
const (
	pingEvery         = 250 * time.Millisecond
	silentFor         = 750 * time.Millisecond // then the lane is lost
	maxInFlightFrames = 4096
	maxInFlightBytes  = 64 << 20
	maxQueuedBytes    = 8 << 20 // per batch handed to the socket
)

// ErrLost is the result of every frame whose answer did not come before its lane ended. Nobody knows whether
// the peer has done it.
var ErrLost = errors.New("the data lane was lost")

// Result tells the end of a frame that was sent with a request: the peer's status, or ErrLost.
type Result func(status uint32, err error)

// Lane is one incarnation of the connection between the nodes: authenticated, of one session, ordered.
type Lane struct {
	Session     uint64
	Incarnation uint64
	Path        string
	PeerBoot    string
	PeerProcess string // random per start of the peer's daemon

	conn  net.Conn
	owner *Link

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
	pending  map[uint32]*pendingFrame
	request  uint32
	inFlight int // bytes of pending

	received      int // frames taken and not yet acknowledged by this side
	receivedBytes int
	debts         map[uint32]int
}

type pendingFrame struct {
	bytes  int
	result Result
	into   []byte // where the data of the answer goes
}

func newLane(conn net.Conn, owner *Link) *Lane {
	l := &Lane{
		conn: conn, owner: owner, start: time.Now(), dead: make(chan struct{}),
		pending: map[uint32]*pendingFrame{}, debts: map[uint32]int{},
	}
	l.room = sync.NewCond(&l.mu)
	return l
}

// Dead is closed when the lane ended.
func (l *Lane) Dead() <-chan struct{} { return l.dead }

// Send queues f in the order of the lane and lets the calling goroutine write to the socket if nobody does. With
// a result it blocks until there is room in flight, and result is called exactly once, from another goroutine
// or, if the lane is dead already, from this call. The payload must stay unchanged until then.
func (l *Lane) Send(f *Frame, result Result) {
	if l.enqueue(f, result, nil, true) {
		l.drain()
	}
}

// Ask is Send of a request whose answer has data: exactly len(into) bytes with status 0, none with another. into is used
// until result is called.
func (l *Lane) Ask(f *Frame, into []byte, result Result) {
	if l.enqueue(f, result, into, true) {
		l.drain()
	}
}

// Post is Send for callers that must not block on the socket or on room, such as the lane's own reader.
func (l *Lane) Post(f *Frame, result Result) {
	if l.enqueue(f, result, nil, false) {
		go l.drain()
	}
}

// Ack answers a request that the peer sent.
func (l *Lane) Ack(request, status uint32) {
	l.mu.Lock()
	n, ok := l.debts[request]
	if !ok || l.err != nil {
		l.mu.Unlock()
		return
	}
	delete(l.debts, request)
	l.received--
	l.receivedBytes -= n
	l.acks = binary.LittleEndian.AppendUint32(l.acks, request)
	l.acks = binary.LittleEndian.AppendUint32(l.acks, status)
	mine := !l.writing
	l.writing = true
	l.mu.Unlock()
	if mine {
		l.drain()
	}
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
	mine := l.append(&Frame{Type: Reply, Request: request, Payload: payload, sent: sent})
	l.mu.Unlock()
	if mine {
		l.drain()
	}
}

// Close ends the lane. It does not wait.
func (l *Lane) Close(err error) { l.fail(err) }

// enqueue says whether the caller must drain.
func (l *Lane) enqueue(f *Frame, result Result, into []byte, wait bool) bool {
	l.mu.Lock()
	n := HeaderBytes + max(len(f.Payload), len(into))
	for wait && result != nil && l.err == nil && (len(l.pending) >= maxInFlightFrames || l.inFlight+n > maxInFlightBytes) {
		l.room.Wait()
	}
	if l.err != nil {
		l.mu.Unlock()
		if result != nil {
			result(0, ErrLost)
		}
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
	mine := l.append(f)
	l.mu.Unlock()
	return mine
}

// append puts a frame into the lane's order and says whether the caller must drain. The caller holds mu.
func (l *Lane) append(f *Frame) bool {
	l.sequence++
	f.Sequence = l.sequence
	f.Session, f.Incarnation = uint32(l.Session), uint32(l.Incarnation)
	f.Epoch = l.owner.stamp()
	l.queue = append(l.queue, f)
	mine := !l.writing
	l.writing = true
	return mine
}

// drain writes until the queue is empty: whoever finds the writer idle becomes it, so depth 1 needs no wake-up
// and depth 32 is batched (replication.md section 13).
func (l *Lane) drain() {
	var heads []byte
	for {
		l.mu.Lock()
		if l.err != nil || (len(l.queue) == 0 && len(l.acks) == 0) {
			l.writing = false
			l.room.Broadcast()
			l.mu.Unlock()
			return
		}
		if n := min(len(l.acks), MaxPayload); n > 0 {
			l.sequence++
			f := &Frame{
				Type: Acks, Sequence: l.sequence, Session: uint32(l.Session), Incarnation: uint32(l.Incarnation),
				Epoch: l.owner.stamp(), Payload: append([]byte(nil), l.acks[:n]...),
			}
			l.acks = l.acks[:copy(l.acks, l.acks[n:])]
			l.queue = append(l.queue, f)
		}
		batch := l.batch()
		l.mu.Unlock()
		heads = heads[:0]
		if err := l.write(batch, heads); err != nil {
			l.fail(fmt.Errorf("write: %w", err))
		}
		release(batch)
	}
}

// release tells whose payloads are free again.
func release(frames []*Frame) {
	for _, f := range frames {
		if f.sent != nil {
			f.sent()
		}
	}
}

func (l *Lane) batch() []*Frame {
	bytes, n := 0, 0
	for n < len(l.queue) && (n == 0 || bytes < maxQueuedBytes) {
		bytes += HeaderBytes + len(l.queue[n].Payload)
		n++
	}
	batch := l.queue[:n:n]
	l.queue = l.queue[n:]
	return batch
}

// write hands a batch to TLS: small frames are joined, large payloads go as they are.
func (l *Lane) write(batch []*Frame, buf []byte) error {
	const join = 16 << 10
	for _, f := range batch {
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
		_, err := l.conn.Write(buf)
		return err
	}
	return nil
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
		p.result(0, ErrLost)
	}
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
	r := &reader{r: bufio.NewReaderSize(&hearing{l}, 64<<10), get: block.Get, put: block.Put}
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
			f.result(0, ErrLost) // its caller must hear the end; the lane is over
			return fmt.Errorf("%w: answer without data to request %d", ErrFrame, request)
		}
		f.result(status, nil)
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
		f.result(0, ErrLost)
		return fmt.Errorf("%w: answer of %d bytes, asked for %d", ErrFrame, len(r.Payload), len(f.into))
	}
	copy(f.into, r.Payload)
	f.result(0, nil)
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
			l.Post(&Frame{Type: Ping}, nil)
		}
	}
}

// hearing notes when bytes arrive.
type hearing struct{ l *Lane }

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.l.conn.Read(p)
	h.l.heard.Store(int64(time.Since(h.l.start)))
	return n, err
}
