package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// site is one simulated pair.
type site struct {
	name  string
	keys  [2]ed25519.PrivateKey
	nodes [2]*node
	rid   register.ID
}

// node keeps one connection, as duetd does.
type node struct {
	conn  net.Conn
	ask   chan wire.Request
	reply chan answer
}

type answer struct {
	reply wire.Reply
	err   error
}

// makeSites draws keys and writes the enrolments, all at once: one by one each would read the others.
func makeSites(count int, dir string) ([]*site, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sites := make([]*site, count)
	for i := range sites {
		s := &site{name: fmt.Sprintf("site-%05d", i)}
		for n := range s.keys {
			var err error
			if _, s.keys[n], err = ed25519.GenerateKey(rand.Reader); err != nil {
				return nil, err
			}
		}
		text, err := json.Marshal(map[string]string{"name": s.name, "key_a": publicKey(s.keys[0]), "key_b": publicKey(s.keys[1])})
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, s.name+".json"), text, 0o600); err != nil {
			return nil, err
		}
		sites[i] = s
	}
	return sites, nil
}

func publicKey(key ed25519.PrivateKey) string {
	return pinned.FormatKey(key.Public().(ed25519.PublicKey))
}

const (
	dialsAtOnce = 64
	askLimit    = 60 * time.Second // for one answer; the storm's target is far below
)

// connect opens the connection of every node and leaves a goroutine with each.
// Beyond limit, the last sites have their node a only.
func connect(ctx context.Context, sites []*site, address string, key ed25519.PublicKey, ports, limit int) (int, error) {
	slots := make(chan struct{}, dialsAtOnce)
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	count, both := 0, max(0, limit-len(sites))
	for i, s := range sites {
		for n := range s.nodes {
			if n == 1 && i >= both {
				continue
			}
			// Each source address has its own ports: 10,000 of them are in every machine's range.
			source := net.IPv4(127, 0, 1, byte(1+count/ports))
			count++
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				conn, err := dial(ctx, source, address, s.keys[n], key)
				if err != nil {
					failed.Store(&err)
					return
				}
				s.nodes[n] = newNode(conn)
			})
			if err := failed.Load(); err != nil {
				return count, *err
			}
		}
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return count, *err
	}
	return count, nil
}

// dial connects until a STATUS is answered, and tries again as a node does: in TLS 1.3 a client that has done its part
// does not know yet whether the server is content.
func dial(ctx context.Context, source net.IP, address string, identity ed25519.PrivateKey, key ed25519.PublicKey) (net.Conn, error) {
	cfg, err := pinned.Client(identity, key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	for {
		conn, err := dialOnce(ctx, source, address, cfg)
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

const dialPause = 250 * time.Millisecond // client.retryFirst

func dialOnce(ctx context.Context, source net.IP, address string, cfg *tls.Config) (net.Conn, error) {
	raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: source}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err = conn.HandshakeContext(ctx); err == nil {
		_, err = exchange(conn, wire.Request{Op: wire.Status})
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func newNode(conn net.Conn) *node {
	n := &node{conn: conn, ask: make(chan wire.Request), reply: make(chan answer, 1)}
	go func() {
		for q := range n.ask {
			reply, err := exchange(conn, q)
			n.reply <- answer{reply, err}
		}
		conn.Close()
	}()
	return n
}

func exchange(conn net.Conn, q wire.Request) (wire.Reply, error) {
	frame := q.Encode()
	_ = conn.SetDeadline(time.Now().Add(askLimit))
	if _, err := conn.Write(frame[:]); err != nil {
		return wire.Reply{}, err
	}
	var reply [wire.ReplySize]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return wire.Reply{}, err
	}
	return wire.DecodeReply(reply)
}

// everySite has one request of each site answered ok, at most abreast at a time; all of them sent before any answer is
// awaited when abreast is their number.
func everySite(sites []*site, of int, abreast int, ask func(int, *site) wire.Request, done func(*site, wire.Reply)) error {
	for len(sites) > 0 {
		now := sites[:min(abreast, len(sites))]
		for i, s := range now {
			s.nodes[of].ask <- ask(i, s)
		}
		for _, s := range now {
			a := <-s.nodes[of].reply
			if a.err != nil || a.reply.Result != wire.OK {
				return fmt.Errorf("%s: %v, %w", s.name, a.reply.Result, a.err)
			}
			done(s, a.reply)
		}
		sites = sites[len(now):]
	}
	return nil
}

// idle keeps every node's renewals up for a while, spread evenly over the period, and counts those unanswered.
func idle(ctx context.Context, sites []*site, period, span time.Duration, watch func()) (asked int, err error) {
	began := time.Now()
	var nodes []*node
	for n := range 2 {
		for _, s := range sites {
			if s.nodes[n] != nil {
				nodes = append(nodes, s.nodes[n])
			}
		}
	}
	waits := make([]bool, len(nodes))
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	watched := began
	for {
		select {
		case <-ctx.Done():
			return asked, ctx.Err()
		case <-ticker.C:
		}
		now := time.Since(began)
		due := int(now.Seconds() / period.Seconds() * float64(len(nodes)))
		for ; asked < due; asked++ {
			at := asked % len(nodes)
			if err := heard(nodes[at], &waits[at]); err != nil {
				return asked, err
			}
			nodes[at].ask <- wire.Request{Op: wire.Status, Nonce: uint64(asked)}
			waits[at] = true
		}
		if time.Since(watched) > time.Second {
			watch()
			watched = time.Now()
		}
		if now > span {
			break
		}
	}
	for at := range nodes {
		if err := heard(nodes[at], &waits[at]); err != nil {
			return asked, err
		}
	}
	return asked, nil
}

func heard(n *node, waits *bool) error {
	if !*waits {
		return nil
	}
	*waits = false
	a := <-n.reply
	if a.err == nil && a.reply.Result != wire.OK {
		return fmt.Errorf("STATUS: %s", a.reply.Result)
	}
	return a.err
}
