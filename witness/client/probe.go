package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// Probe is what one visit to a witness showed.
type Probe struct {
	Connect   time.Duration // TCP and TLS, both keys proved: what a first question after a long silence costs
	RoundTrip time.Duration // of STATUS on the open connection
	RIDs      []register.ID // registers of this site, newest first
}

// Visit asks a witness for STATUS once, over a connection of its own that it closes: to try an address and a key before
// they are used, and to measure. Whether the witness knows this node is part of the answer: ErrKeyRefused, ErrServerKey.
func Visit(ctx context.Context, cfg Config) (Probe, error) {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	config, err := pinned.Client(cfg.Identity, cfg.ServerKey)
	if err != nil {
		return Probe{}, fmt.Errorf("witness client: %w", err)
	}
	began := time.Now()
	conn, err := connect(ctx, cfg, config)
	if err != nil {
		return Probe{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	connected := time.Now()
	reply, err := exchange(conn, wire.Request{Op: wire.Status, Nonce: 1})
	if err != nil {
		return Probe{}, fmt.Errorf("witness %s: %w", cfg.Address, errors.Join(ctx.Err(), explain(err)))
	}
	if reply.Result != wire.OK {
		return Probe{}, fmt.Errorf("witness %s: STATUS is answered %q", cfg.Address, reply.Result)
	}
	return Probe{Connect: connected.Sub(began), RoundTrip: time.Since(connected), RIDs: reply.RIDs}, nil
}

func exchange(conn net.Conn, q wire.Request) (wire.Reply, error) {
	frame := q.Encode()
	_, wrote := conn.Write(frame[:])
	if wrote != nil { // closed by the other side; what it said before is there to read
		conn.SetReadDeadline(time.Now().Add(lastWords))
	}
	var raw [wire.ReplySize]byte
	if _, err := io.ReadFull(conn, raw[:]); err != nil {
		return wire.Reply{}, errors.Join(err, wrote)
	}
	return wire.DecodeReply(raw)
}

// dialTCP opens a connection without the kernel's probes of idle ones: STATUS each 30 s shows whether the line lives, and
// the probes would be half of its bytes.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", address)
}
