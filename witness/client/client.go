// Package client asks a witness.
package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"time"

	"duet/witness/wire"
)

// Config says whom to ask and as whom.
type Config struct {
	Address   string // host:port
	ServerKey ed25519.PublicKey
	Identity  ed25519.PrivateKey
	Log       *slog.Logger  // nil: silent
	Redial    time.Duration // zero: 3 s. Another connection is tried this often while a request waits
}

// Errors of Do.
var (
	ErrKeyRefused = errors.New("the witness does not know the key of this node")
	ErrServerKey  = errors.New("the witness proved another key than the pinned one")
	ErrClosed     = errors.New("the client is closed")
)

// Client keeps one connection to a witness.
type Client struct{ cfg Config }

// New makes a client; it dials at the first request.
func New(cfg Config) (*Client, error) { return &Client{cfg}, nil }

// Do sends the request and waits for a reply with its nonce until ctx ends. A request that is repeated (same nonce)
// takes the reply to any of its repeats, so a reply that is late for one call serves the next.
func (c *Client) Do(ctx context.Context, r wire.Request) (wire.Reply, error) {
	return wire.Reply{}, ErrClosed
}

// Close ends the connection and all waiting calls.
func (c *Client) Close() error { return nil }
