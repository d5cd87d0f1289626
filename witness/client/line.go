package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"duet/witness/pinned"
	"duet/witness/wire"
)

// lastWords is how long a connection that takes no more is read: what the other side said has arrived with its end.
const lastWords = time.Second

// line is one open connection. Its fields belong to the keeper; its two goroutines touch only conn and out.
type line struct {
	conn    net.Conn
	out     chan wire.Request
	ended   chan struct{}
	sent    map[key]time.Time // asked here and not answered, since when
	heard   time.Time
	replies int
}

type lineEvent struct {
	line  *line
	reply wire.Reply
	err   error // the line is dead
}

func newLine(k *keeper, conn net.Conn) *line {
	l := &line{conn: conn, out: make(chan wire.Request, asksMax), ended: make(chan struct{}), sent: make(map[key]time.Time), heard: time.Now()}
	report := func(e lineEvent) bool {
		select {
		case k.events <- e:
			return true
		case <-l.ended:
			return false
		case <-k.c.ctx.Done():
			return false
		}
	}
	k.c.done.Go(func() { l.read(report) })
	k.c.done.Go(func() { l.write() })
	return l
}

// send writes r once to this line: TCP repeats what is lost, and the server answers every request.
func (l *line) send(r wire.Request) {
	at := key{r.Op, r.Nonce}
	if _, again := l.sent[at]; again || len(l.sent) >= asksMax {
		return // full of unanswered requests: the next line takes it
	}
	select {
	case l.out <- r:
		l.sent[at] = time.Now()
	default: // the writer hangs: the next line takes it
	}
}

// close ends the line; its goroutines end by it.
func (l *line) close() {
	close(l.ended)
	l.conn.Close()
}

func (l *line) write() {
	for {
		select {
		case r := <-l.out:
			frame := r.Encode()
			if l.conn.SetWriteDeadline(time.Now().Add(writeLimit)) != nil {
				return
			}
			if _, err := l.conn.Write(frame[:]); err != nil {
				// The reader tells the keeper, and why: a server that refused the key said so before it closed.
				l.conn.SetReadDeadline(time.Now().Add(lastWords))
				return
			}
		case <-l.ended:
			return
		}
	}
}

func (l *line) read(report func(lineEvent) bool) {
	for {
		var frame [wire.ReplySize]byte
		_, err := io.ReadFull(l.conn, frame[:])
		var reply wire.Reply
		if err == nil {
			reply, err = wire.DecodeReply(frame)
		}
		if err != nil {
			err = fmt.Errorf("witness %s: %w", l.conn.RemoteAddr(), explain(err))
		}
		if !report(lineEvent{line: l, reply: reply, err: err}) || err != nil {
			return
		}
	}
}

// connect dials and proves both keys.
func connect(ctx context.Context, cfg Config, config *tls.Config) (net.Conn, error) {
	raw, err := cfg.Dial(ctx, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("witness %s: %w", cfg.Address, err)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("witness %s: %w", cfg.Address, explain(err))
	}
	return conn, nil
}

// explain names the two refusals of a key. In TLS 1.3 a client learns only by its first read that the server refused
// its certificate, and crypto/tls gives that alert no exported type: the text is pinned by a test.
func explain(err error) error {
	switch {
	case errors.Is(err, pinned.ErrKey):
		return ErrServerKey
	case strings.Contains(err.Error(), "remote error: tls: bad certificate"):
		return ErrKeyRefused
	default:
		return err
	}
}
