// Package client asks a witness over one kept connection.
//
// It promises that a request reaches the witness if any network way opens while somebody waits for it: a request that
// waits on a silent connection is sent again over a fresh one, with the old one kept open beside it, because on a
// railway line a reply may take 5 s and a connection that lost packets may be slower than a new one. Replies are
// matched by operation and nonce, may come in any order, and serve whoever waits for them then: a reply that is late
// for one call answers the repeat of it (protocol.md section 5.3, "a late reply to a live nonce is valid"). Repeating
// is the caller's business, with the same nonce; deciding what a reply means is too.
//
// It refuses a server that proves another key than the pinned one, and reports a witness that does not know this
// node's key. Neither ends the client: both may be mended from the other side, so it goes on trying at its own pace.
// A call ends by its context, and then says what the last connection failed of.
package client

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/witness/pinned"
	"duet/witness/wire"
)

// Config says whom to ask and as whom.
type Config struct {
	Address   string // host:port
	ServerKey ed25519.PublicKey
	Identity  ed25519.PrivateKey
	Log       *slog.Logger // nil: silent
	// Dial opens a connection; nil: TCP. Tests and other networks give their own.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// The pace, and its reasons.
const (
	hedgeAfter   = 3 * time.Second        // a waiting request this old gets another connection: half a lease, below one round trip at its worst
	dialsMax     = 5                      // at once; a new one ends the oldest. 5 × 3 s covers TCP and TLS at 5 s a round trip
	dialLimit    = 30 * time.Second       // for one attempt nobody replaces
	retryFirst   = 250 * time.Millisecond // after a refused dial, doubling; a new request begins there again
	retryIdleMax = 30 * time.Second       // while nobody waits
	linesMax     = 2                      // open connections: the newest, and the one before for its late replies
	asksMax      = 64                     // requests that wait; a node has one or two
	lateMax      = 16                     // replies kept for a repeat that comes after them
	writeLimit   = 30 * time.Second       // for one frame
)

// Errors of Do.
var (
	ErrKeyRefused = errors.New("the witness does not know the key of this node: enrol it there")
	ErrServerKey  = errors.New("the witness proved another key than the pinned one")
	ErrClosed     = errors.New("the witness client is closed")
	ErrBusy       = errors.New("too many requests wait for the witness")
)

// Client keeps one connection to a witness.
type Client struct {
	cfg    Config
	tls    *tls.Config
	asks   chan ask
	quits  chan *waiter
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	open   atomic.Bool
}

// New makes a client; it dials at the first request and then keeps the connection up.
func New(cfg Config) (*Client, error) {
	if len(cfg.ServerKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("witness %s: its key is not an ed25519 public key", cfg.Address)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	c := &Client{cfg: cfg, asks: make(chan ask), quits: make(chan *waiter)}
	var err error
	if c.tls, err = pinned.Client(cfg.Identity, cfg.ServerKey); err != nil {
		return nil, fmt.Errorf("witness client: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.done.Go(func() { newKeeper(c).run() })
	return c, nil
}

// Connected says whether a connection to the witness is open now. An open one may lead nowhere; a closed one is news.
func (c *Client) Connected() bool { return c.open.Load() }

// Close ends the connection and all waiting calls.
func (c *Client) Close() error {
	c.cancel()
	c.done.Wait()
	return nil
}

// Do sends the request and waits for a reply to its nonce until ctx ends.
func (c *Client) Do(ctx context.Context, r wire.Request) (wire.Reply, error) {
	w := &waiter{key: key{r.Op, r.Nonce}, answer: make(chan answer, 1)}
	select {
	case c.asks <- ask{r, w}:
	case <-ctx.Done():
		return wire.Reply{}, fmt.Errorf("witness %s: %w", c.cfg.Address, ctx.Err())
	case <-c.ctx.Done():
		return wire.Reply{}, ErrClosed
	}
	select {
	case a := <-w.answer:
		return a.reply, a.err
	case <-c.ctx.Done():
		return wire.Reply{}, ErrClosed
	case <-ctx.Done():
	}
	select { // the keeper knows why there was no answer, or has one after all
	case c.quits <- w:
		a := <-w.answer
		if a.err != nil {
			a.err = fmt.Errorf("%w: %w", ctx.Err(), a.err)
		}
		return a.reply, a.err
	case a := <-w.answer:
		return a.reply, a.err
	case <-c.ctx.Done():
		return wire.Reply{}, ErrClosed
	}
}

type key struct {
	op    wire.Op
	nonce uint64
}

type ask struct {
	request wire.Request
	waiter  *waiter
}

type answer struct {
	reply wire.Reply
	err   error
}

type waiter struct {
	key    key
	answer chan answer // buffered: the keeper never waits for a caller
}
