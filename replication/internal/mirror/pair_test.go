package mirror

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/build/testport"
	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/control"
	"duet/replication/meta"
	"duet/replication/volume"
)

// Two nodes in one process: real TLS over loopback, legs in memory, grants by script.

const (
	testSite   = "00112233445566778899aabbccddeeff"
	testVolume = "0123456789abcdef0123456789abcdef"
	testSize   = 6 << 20 // an extent and a half
)

// drive is a node's memory of legs; it outlives the daemon, and a power cut drops what was not synced.
type drive struct {
	mu   sync.Mutex
	site meta.ID
	node uint8
	data map[meta.ID]*crashdev.Device
	meta map[meta.ID]*crashdev.Device
	wrap func(block.Device) block.Device // around data, for faults
	open []*session
}

func newDrive(node uint8) *drive {
	site, err := parseID(testSite)
	if err != nil {
		panic(err)
	}
	return &drive{site: site, node: node, data: map[meta.ID]*crashdev.Device{}, meta: map[meta.ID]*crashdev.Device{}}
}

func (d *drive) Create(_ context.Context, id meta.ID, size int64, _ func(done, total int64)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	md := crashdev.New(meta.SizeFor(size))
	err := meta.Format(md, meta.Superblock{
		Site: d.site, Volume: id, Node: d.node, VolumeBytes: uint64(size), Flags: meta.FlagZeroed,
	})
	d.data[id], d.meta[id] = crashdev.New(size), md
	return err
}

// Renew makes a new leg over what the old one left on the disk; a device that died works again.
func (d *drive) Renew(id meta.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	every := func(crashdev.Pending) bool { return true }
	d.data[id] = d.data[id].CutPick(every)
	md := crashdev.New(d.meta[id].Size())
	size := uint64(d.data[id].Size())
	err := meta.Format(md, meta.Superblock{Site: d.site, Volume: id, Node: d.node, VolumeBytes: size})
	d.meta[id] = md
	return err
}

func (d *drive) Has(id meta.ID) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta[id] != nil, nil
}

// Open hides Close from the device: the drive is opened again by the next daemon.
func (d *drive) Open(id meta.ID) (block.Device, block.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, md := &session{Device: d.data[id]}, &session{Device: d.meta[id]}
	d.open = append(d.open, data, md)
	if d.wrap != nil {
		return d.wrap(data), md, nil
	}
	return data, md, nil
}

// detach takes the devices away from the daemon that has them open.
func (d *drive) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.open {
		s.Close()
	}
	d.open = nil
}

// session is one daemon's use of a device: after its end the device takes nothing from it any more, as after a
// SIGKILL.
type session struct {
	block.Device
	mu     sync.RWMutex
	closed bool
}

func (s *session) do(f func() error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return block.ErrClosed
	}
	return f()
}

func (s *session) ReadAt(p []byte, off int64) error {
	return s.do(func() error { return s.Device.ReadAt(p, off) })
}

func (s *session) WriteAt(p []byte, off int64, d block.Durability) error {
	return s.do(func() error { return s.Device.WriteAt(p, off, d) })
}

func (s *session) Zero(off, n int64, d block.Durability) error {
	return s.do(func() error { return s.Device.Zero(off, n, d) })
}

func (s *session) Sync() error { return s.do(s.Device.Sync) }

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// cut is a power cut of the drive.
func (d *drive) cut(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.data {
		d.data[id] = d.data[id].Cut(seed)
		d.meta[id] = d.meta[id].Cut(seed + 1)
	}
}

// cutWhole is a cut of a drive that never tears a 4 KiB block. With every leg torn no good copy is left; to notice
// that takes the sum table, which is not there yet.
func (d *drive) cutWhole(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := mathrand.New(mathrand.NewPCG(seed, 9))
	arrives := map[[2]int64]bool{}
	pick := func(p crashdev.Pending) bool {
		key := [2]int64{int64(p.Write), p.Off / block.Unit}
		if _, known := arrives[key]; !known {
			arrives[key] = r.IntN(2) == 0
		}
		return arrives[key]
	}
	for id := range d.data {
		d.data[id] = d.data[id].CutPick(pick)
		d.meta[id] = d.meta[id].Cut(seed + 1)
	}
}

// contents of the only volume's leg.
func (d *drive) contents() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, _ := parseID(testVolume) // a constant
	return d.data[id].Contents()
}

// host is a node: drive, key, daemon.
type host struct {
	t     *testing.T
	p     *pair
	node  control.Node
	drive *drive
	key   ed25519.PrivateKey
	boot  string

	m      *Mirror
	events chan control.Event
	seq    uint64
}

type pair struct {
	mu    sync.Mutex // guards m of the nodes against clients that reconnect
	t     *testing.T
	port  int
	nodes [2]*host
	log   *slog.Logger
	clock func() int64
	size  int64    // of the volume
	more  []string // volumes besides it

	differences atomic.Int64 // proofs that found the legs different: a bug in the copy, where no drive lies
}

func newPair(t *testing.T) *pair {
	t.Helper()
	out := io.Discard
	if os.Getenv("DUET_TEST_LOG") != "" {
		out = os.Stderr
	}
	p := &pair{t: t, port: testport.New(t), log: slog.New(slog.NewTextHandler(out, nil)), clock: volume.Boottime, size: testSize}
	for n := range p.nodes {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[n] = &host{t: t, p: p, node: control.Node(n), drive: newDrive(uint8(n)), key: key, boot: fmt.Sprintf("%032x", n+1)}
	}
	return p
}

func startPair(t *testing.T) *pair {
	p := newPair(t)
	for _, h := range p.nodes {
		h.start()
	}
	return p
}

func (h *host) start() {
	h.t.Helper()
	h.events = make(chan control.Event, 4096)
	events := h.events
	emit := func(e control.Event) {
		if e.Fault != nil && e.Fault.Code == "REPL-2005" {
			h.p.differences.Add(1)
		}
		events <- e
	}
	m := New(Options{
		Log: h.p.log.With("node", string(rune('a'+h.node))), Instance: rand.Text(),
		Pool:  func(meta.ID, uint8) Pool { return h.drive },
		Emit:  emit,
		Clock: func() int64 { return h.p.clock() },
	})
	if err := m.Configure(h.config()); err != nil {
		h.t.Fatal(err)
	}
	h.p.mu.Lock()
	h.m = m
	h.p.mu.Unlock()
	h.t.Cleanup(func() { m.Close() })
}

func (h *host) config() control.Config {
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	addresses := [2]string{"127.0.0.1", "127.0.0.2"}
	volumes := []control.VolumeConfig{{ID: testVolume, Name: "disk", SizeBytes: h.p.size}}
	for _, id := range h.p.more {
		volumes = append(volumes, control.VolumeConfig{ID: id, Name: id, SizeBytes: h.p.size})
	}
	return control.Config{
		Site: testSite, Node: h.node, BootID: h.boot, Port: h.p.port,
		IdentityPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		PeerKey:     h.p.nodes[h.node^1].key.Public().(ed25519.PublicKey),
		Paths:       []control.Path{{Name: "mirror0", Local: addresses[h.node], Peer: addresses[h.node^1]}},
		Volumes:     volumes,
	}
}

// crash is SIGKILL: devices refuse what is still on its way, nothing is closed clean.
func (h *host) crash() {
	h.drive.detach()
	h.m.grace = 0
	h.m.Close() // its devices are gone
}

// powerCut is crash, and the drive forgets; the node comes back with another boot id.
func (h *host) powerCut(seed uint64) {
	h.crash()
	h.drive.cut(seed)
	h.boot = fmt.Sprintf("%032x", seed+100)
	h.seq = 0
}

func (h *host) grant(g control.Grant) {
	h.t.Helper()
	h.seq++
	g.BootID, g.Sequence = h.boot, h.seq
	if g.Deadline == 0 && (g.Mode == control.Paired || g.Mode == control.Frozen) {
		g.Deadline = h.p.clock() + int64(time.Hour)
	}
	if g.Volumes == nil {
		g.Volumes = []control.VolumeGrant{{Volume: testVolume, Owner: 0, Legs: g.Members}}
	}
	begin := time.Now()
	if err := h.m.Grant(g); err != nil {
		h.t.Fatal(err)
	}
	if d := time.Since(begin); d > 100*time.Millisecond {
		h.t.Errorf("the grant took %v", d)
	}
}

// serve grants Paired to both.
func (p *pair) serve(epoch, session uint64) {
	p.t.Helper()
	for _, h := range p.nodes {
		h.grant(control.Grant{Mode: control.Paired, Epoch: epoch, Session: session, Members: 3})
	}
}

func (h *host) vol() guest {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return guest{h.m.volumes[testVolume].vol}
}

func (h *host) stage() string { return h.vol().Status().Stage }

// patience is no bound of the product: under a loaded machine the histories run at a tenth of their speed.
const patience = time.Minute

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func (h *host) awaitStage(want string) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for h.stage() != want {
		if time.Now().After(deadline) {
			h.t.Fatalf("node %c is %s, not %s: %+v", 'a'+h.node, h.stage(), want, h.vol().Status())
		}
		<-tick.C
	}
}

// awaitEvent skips others.
func (h *host) awaitEvent(what string, match func(control.Event) bool) control.Event {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-h.events:
			if match(e) {
				return e
			}
		case <-deadline:
			h.t.Fatalf("node %c: no event %s", 'a'+h.node, what)
		}
	}
}

func (h *host) awaitCopyDone(session uint64) [32]byte {
	h.t.Helper()
	e := h.awaitEvent("copy done", func(e control.Event) bool { return e.CopyDone != nil && e.CopyDone.Session == session })
	return e.CopyDone.Digest
}

func fill(n int, with byte) []byte {
	p := block.Alloc(n)
	for i := range p {
		p[i] = with
	}
	return p
}

func (h *host) write(off int64, with byte, n int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.vol().WriteAt(ctx, fill(n, with), off, false); err != nil {
		h.t.Fatalf("write: %v", err)
	}
}

func (h *host) flush() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.vol().Flush(ctx); err != nil {
		h.t.Fatalf("flush: %v", err)
	}
}

func (h *host) read(off int64, n int) []byte {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p := block.Alloc(n)
	if err := h.vol().ReadAt(ctx, p, off); err != nil {
		h.t.Fatalf("read: %v", err)
	}
	return p
}

func (p *pair) sameLegs() {
	p.t.Helper()
	a, b := p.nodes[0].drive.contents(), p.nodes[1].drive.contents()
	if !bytes.Equal(a, b) {
		for i := 0; i < len(a); i += 4096 {
			if !bytes.Equal(a[i:i+4096], b[i:i+4096]) {
				p.t.Fatalf("legs differ, first in block %d: %x.. and %x..", i/4096, a[i:i+4], b[i:i+4])
			}
		}
	}
}

// rejoin brings the other node up to date while h is solo, and pairs.
func (p *pair) rejoin(solo control.Node, epoch, session uint64) {
	p.t.Helper()
	s, j := p.nodes[solo], p.nodes[solo^1]
	only := control.Set(1 << solo)
	s.grant(control.Grant{Mode: control.Solo, Epoch: epoch, Session: session, Members: only, Volumes: owned(solo, only)})
	j.grant(control.Grant{Mode: control.Joining, Epoch: epoch, Session: session, Members: only, Volumes: owned(solo, only)})
	if err := s.m.Copy(session); err != nil {
		p.t.Fatal(err)
	}
	if a, b := s.awaitCopyDone(session), j.awaitCopyDone(session); a != b {
		p.t.Fatalf("digests differ: %x and %x", a, b)
	}
	j.grant(control.Grant{Mode: control.Prepared, Epoch: epoch, Prepared: epoch + 2, Session: session, Members: 3, Volumes: owned(solo, 3)})
	for _, h := range []*host{s, j} {
		h.grant(control.Grant{Mode: control.Paired, Epoch: epoch + 2, Session: session, Members: 3, Volumes: owned(solo, 3)})
	}
	s.awaitStage("paired")
	j.awaitStage("paired")
}

func owned(by control.Node, legs control.Set) []control.VolumeGrant {
	return []control.VolumeGrant{{Volume: testVolume, Owner: by, Legs: legs}}
}

func (h *host) solo(epoch uint64) {
	h.t.Helper()
	only := control.Set(1 << h.node)
	h.grant(control.Grant{Mode: control.Solo, Epoch: epoch, Members: only, Volumes: owned(h.node, only)})
}
