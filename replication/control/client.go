package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// callTimeout bounds a call whose context has no deadline. duetd resets the node when a grant is not confirmed
// within 1 s (protocol.md 5.1), so nothing may wait longer.
const callTimeout = 1 * time.Second

// Client is duetd's end of the socket. Its methods may be called from several goroutines. After the connection
// ended every call fails, Events is closed and the caller dials again.
type Client struct {
	conn     net.Conn
	instance string
	events   chan Event
	done     chan struct{}

	writing sync.Mutex // one request line at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *message
	err     error
}

// Dial connects and reads the greeting.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial duet-mirrord: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	r := newReader(conn)
	if _, ok := ctx.Deadline(); !ok {
		conn.SetReadDeadline(time.Now().Add(callTimeout))
	}
	m, err := readMessage(r)
	if err == nil && (m.Version != protocolVersion || m.Instance == "") {
		err = fmt.Errorf("greeting of version %d", m.Version)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("greeting of duet-mirrord: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	c := &Client{
		conn: conn, instance: m.Instance,
		events: make(chan Event, maxQueuedEvents), done: make(chan struct{}),
		waiting: map[uint64]chan *message{},
	}
	go c.read(r)
	return c, nil
}

// Instance is random per start of duet-mirrord: a changed one means that it lost its grant and its
// configuration.
func (c *Client) Instance() string { return c.instance }

// Events delivers what mirrord reports, beginning with what holds at the time of the connection: the lane if
// it is up, a finished copy that still stands, faults. It is closed when the connection ended. A reader that
// falls maxQueuedEvents behind loses the connection.
func (c *Client) Events() <-chan Event { return c.events }

// Done is closed when the connection ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is the reason of the end, nil before it.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. The grant stays in force up to its deadline.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Configure says what exists. It returns when the configuration is taken, not when legs are created.
func (c *Client) Configure(ctx context.Context, cfg Config) error {
	_, err := c.call(ctx, &message{Op: opConfigure, Config: &cfg})
	return err
}

// Grant replaces the grant. It returns when nothing more is issued under the old one.
func (c *Client) Grant(ctx context.Context, g Grant) error {
	_, err := c.call(ctx, &message{Op: opGrant, Grant: &g})
	return err
}

// Revoke takes the grant away; the sequence stays, so an older grant cannot come back.
func (c *Client) Revoke(ctx context.Context) error {
	_, err := c.call(ctx, &message{Op: opRevoke})
	return err
}

// Copy begins to bring the volumes of the session together; CopyDone or CopyFailed follow as events. Repeating
// it while the copy runs changes nothing.
func (c *Client) Copy(ctx context.Context, session uint64) error {
	_, err := c.call(ctx, &message{Op: opCopy, Session: session})
	return err
}

// DrainLimit bounds a drain: a disk or a peer that takes longer to finish what is under way is no reason to keep
// everything else waiting. The volumes stay held after it until the caller releases them.
const DrainLimit = 5 * time.Second

// Drain holds new requests to these volumes, and to no others: a volume that an earlier call named and this one does not
// is released. It returns when that is on its way, in the order of the calls; drained waits for the answer: the
// volumes of which nothing is under way any more, both legs having synced it. A hold also ends with a grant of another
// stage (mode, session, epoch, prepared) or with another owner for the volume, and with the daemon.
func (c *Client) Drain(ctx context.Context, volumes []string) (drained func(context.Context) ([]string, error), err error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	m := &message{Op: opDrain, Volumes: volumes}
	reply, err := c.begin(ctx, m)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]string, error) {
		defer c.forget(m)
		r, err := c.await(ctx, m, reply)
		if err != nil {
			return nil, err
		}
		return r.Volumes, nil
	}, nil
}

// Readmit begins to make a new leg in the place of this node's dead one of a volume. It is refused, with ErrRefused, while the
// leg works or counts in the grant. How it ends is seen in Status (the leg's state is not failed any more), or is a fault.
func (c *Client) Readmit(ctx context.Context, volume string) error {
	_, err := c.call(ctx, &message{Op: opReadmit, Volumes: []string{volume}})
	return err
}

// Scrub has a volume scrubbed next: both legs are read whole, compared, and repaired. It is refused, with ErrRefused, unless this
// node coordinates the volume with both legs in sync. How far it is, and how it ended, is in Status.
func (c *Client) Scrub(ctx context.Context, volume string) error {
	_, err := c.call(ctx, &message{Op: opScrub, Volumes: []string{volume}})
	return err
}

// Status is a snapshot.
func (c *Client) Status(ctx context.Context) (Status, error) {
	m, err := c.call(ctx, &message{Op: opStatus})
	if err != nil {
		return Status{}, err
	}
	if m.Status == nil {
		return Status{}, errors.New("status reply of duet-mirrord without a status")
	}
	return *m.Status, nil
}

func (c *Client) call(ctx context.Context, m *message) (*message, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	reply, err := c.begin(ctx, m)
	if err != nil {
		return nil, err
	}
	defer c.forget(m)
	return c.await(ctx, m, reply)
}

// limited gives ctx the deadline of a call if it has none.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callTimeout)
}

// begin sends a request. Its answer must be awaited or forgotten.
func (c *Client) begin(ctx context.Context, m *message) (chan *message, error) {
	reply := make(chan *message, 1)
	c.mu.Lock()
	c.next++
	m.ID = c.next
	c.waiting[m.ID] = reply
	c.mu.Unlock()
	if err := c.send(ctx, m); err != nil {
		c.forget(m)
		return nil, fmt.Errorf("%s: %w", m.Op, err)
	}
	return reply, nil
}

func (c *Client) forget(m *message) {
	c.mu.Lock()
	delete(c.waiting, m.ID)
	c.mu.Unlock()
}

func (c *Client) await(ctx context.Context, m *message, reply chan *message) (*message, error) {
	select {
	case r := <-reply:
		if r.Error != "" {
			return nil, fmt.Errorf("%s: %w: %s", m.Op, ErrRefused, r.Error)
		}
		return r, nil
	case <-c.done:
		return nil, fmt.Errorf("%s: %w", m.Op, c.Err())
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", m.Op, ctx.Err())
	}
}

func (c *Client) send(ctx context.Context, m *message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	return writeMessage(c.conn, m)
}

// read completes calls and queues events until the connection ends.
func (c *Client) read(r *bufio.Reader) {
	var err error
	for err == nil {
		var m *message
		if m, err = readMessage(r); err == nil {
			err = c.take(m)
		}
	}
	c.conn.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("connection to duet-mirrord ended: %w", err)
	c.mu.Unlock()
	close(c.done)
	close(c.events)
}

func (c *Client) take(m *message) error {
	if m.Event != nil {
		select {
		case c.events <- *m.Event:
			return nil
		default:
			return errors.New("events were not read")
		}
	}
	c.mu.Lock()
	reply := c.waiting[m.ID]
	delete(c.waiting, m.ID)
	c.mu.Unlock()
	if reply != nil {
		reply <- m
	}
	return nil
}
