package node

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/pair"
	"duet/appliance/pair/peerlink"
	"duet/appliance/pair/recordfile"
	"duet/appliance/site"
	"duet/appliance/support/flight"
	"duet/appliance/vms"
	"duet/replication/control"
	"duet/witness/client"
	"duet/witness/pinned"
)

// The files of a node's data directory and the sockets of its run directory.
const (
	identityFile = "identity.pem"
	recordFile   = "record"
	storeDir     = "site"
	apiSocket    = "duetd.sock"
	mirrorSocket = "mirrord.sock"
	nbdSocket    = "nbd.sock"
	vmLogDir     = "/var/log/duet"
)

// Node is everything of this node.
type Node struct {
	boot   site.Bootstrap
	self   membership.Node
	bootID string
	log    *slog.Logger

	key     ed25519.PrivateKey
	keyPEM  []byte
	records *recordfile.File
	store   *site.Store
	vms     *vms.Manager
	guests  *guests
	db      *database
	driver  *pair.Driver
	watch   *watch
	arbiter *arbiter
	faults  *faults
	setup   *setup
	left    atomic.Bool // by order; a start of this process ends it

	replacing atomic.Bool // the witness, in the site document
	flight    *flight.Recorder
	history   *history

	mu      sync.Mutex // guards what the driver's hooks change and others read
	doc     *site.Document
	witness *client.Client
	former  *client.Client // of a witness that is being replaced
	fencer  *fencer
	pending *site.Document // received, not yet founded upon
	began   time.Time      // of the present session
	ctx     context.Context
	tasks   sync.WaitGroup

	runtimeMu sync.Mutex // held from reading the runtime document to writing the next one
}

// Config is everything a node needs besides what the factory wrote.
type Config struct {
	Boot    site.Bootstrap
	ProcDir string // where the processes of this node are: "/proc"
	Log     *slog.Logger
}

// New opens what this node keeps. Nothing runs yet.
func New(cfg Config) (*Node, error) {
	boot, log := cfg.Boot, cfg.Log
	n := &Node{boot: boot, log: log, faults: newFaults()}
	if boot.Node == "b" {
		n.self = membership.B
	}
	for _, dir := range []string{boot.DataDir, boot.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("folder: %w", err)
		}
	}
	var err error
	if n.bootID, err = boottime.BootID(); err != nil {
		return nil, err
	}
	path := filepath.Join(boot.DataDir, identityFile)
	if n.key, err = pinned.LoadOrCreate(path); err != nil {
		return nil, err
	}
	if n.keyPEM, err = os.ReadFile(path); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if n.store, err = site.OpenStore(filepath.Join(boot.DataDir, storeDir)); err != nil {
		return nil, event.New(event.DocumentUnread).Because(err)
	}
	if n.records, err = recordfile.Open(filepath.Join(boot.DataDir, recordFile)); err != nil {
		return nil, event.New(event.RecordUnwritable).Because(err)
	}
	n.vms = vms.New(vms.Config{
		LibvirtSocket: boot.LibvirtSocket, NBDSocket: filepath.Join(boot.RunDir, nbdSocket), LogDir: vmLogDir,
		Accel: boot.Accel, ProcDir: cfg.ProcDir, Log: log.With("subsystem", "vms"),
	})
	n.history = newHistory(filepath.Join(boot.DataDir, ledgerFile), n.faults, log.With("subsystem", "fence"))
	n.guests = &guests{node: n, starting: map[membership.ResourceID]bool{}}
	if n.db, err = newDatabase(n); err != nil {
		return nil, err
	}
	n.watch = &watch{node: n}
	n.arbiter = &arbiter{node: n}
	n.setup = &setup{node: n}
	n.startFlight()
	n.driver, err = pair.New(n.driverConfig())
	if err != nil {
		n.flight.Close()
		return nil, errors.Join(err, n.records.Close())
	}
	return n, nil
}

func (n *Node) driverConfig() pair.Config {
	var paths []peerlink.Path
	for _, p := range n.boot.Paths {
		paths = append(paths, peerlink.Path{Name: p.Name, Local: p.Local, Peer: p.Peer, Chassis: p.Chassis})
	}
	return pair.Config{
		Timing: pair.Durations(n.self),
		Link: peerlink.Config{
			Node: uint8(n.self), Serial: n.boot.ChassisSerial, Key: n.key, Port: n.boot.PeerPort, Paths: paths,
			Timing: peerlink.Default(), Log: n.log.With("subsystem", "link"),
		},
		BootID: n.bootID, RunDir: n.boot.RunDir, Records: n.records,
		MirrorSocket: filepath.Join(n.boot.RunDir, mirrorSocket), Watchdog: n.boot.Watchdog,
		Workloads: workloads{n.guests, n.db}, Recorder: n.flight, Log: n.log.With("subsystem", "pair"),
		Hooks: pair.Hooks{
			Adopt: n.adopt, Belongs: n.belongs, Documents: n.documents, Holds: n.holdsDocument, Began: n.sessionBegan, Told: n.told, Reported: n.reported,
			Refused: n.refused, MirrorFault: n.mirrorFault, Reset: n.reset,
		},
	}
}

// subsystem is one row of the ordered list of Run.
type subsystem struct {
	name string
	run  func(context.Context) error
}

// Run starts the subsystems in order and stops them in the reverse order: the interface to people comes first and goes
// last, so that a node that cannot serve can still say why.
func (n *Node) Run(ctx context.Context, ready func()) error {
	n.ctx = ctx
	placed, err := n.belongs(n.driver.Record())
	if err != nil {
		return err
	}
	rows := []subsystem{
		{"api", n.serveAPI},
		{"fence ledger", n.history.run},
		{"watch", n.watch.run},
		{"arbiter", n.arbiter.run},
		{"guests", n.guests.run},
		{"database", n.db.run},
		{"pair", func(ctx context.Context) error { return n.driver.Run(ctx, placed) }},
	}
	failed := make(chan error, len(rows))
	var stops []func()
	for _, s := range rows {
		sub, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := s.run(sub); err != nil && sub.Err() == nil {
				n.log.Error("subsystem ended", "name", s.name, "error", err.Error())
				failed <- fmt.Errorf("%s: %w", s.name, err)
			}
		}()
		stops = append(stops, func() { cancel(); <-done })
	}
	ready()
	err = n.await(ctx, failed)
	for _, stop := range slices.Backward(stops) {
		stop()
	}
	n.tasks.Wait()
	return errors.Join(err, n.close())
}

// await ends with the context or with a subsystem. A node whose record cannot be written stays up without serving, to
// say why: a restart would trust the medium again.
func (n *Node) await(ctx context.Context, failed <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if errors.Is(err, pair.ErrHalted) {
			n.faults.raise(event.New(event.RecordUnwritable).Because(err))
			<-ctx.Done()
			return nil
		}
		return err
	}
}

func (n *Node) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	if n.witness != nil {
		errs = append(errs, n.witness.Close())
	}
	if n.former != nil {
		errs = append(errs, n.former.Close())
	}
	if n.fencer != nil {
		errs = append(errs, n.fencer.close())
	}
	n.flight.Close()
	return errors.Join(append(errs, n.history.close(), n.records.Close())...)
}

// reset makes this node go down hard: it could not stop what it must stop (protocol.md 5.1). In a container the
// kernel ends the container's first process instead of the machine (reboot(2), "Behavior inside PID namespaces").
func (n *Node) reset(why string) {
	n.log.Error("this node is reset", "why", why)
	if n.boot.Reset == site.ResetReboot {
		syncBriefly()
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
			n.log.Error("reset is not possible; the hardware watchdog is left to do it", "error", err.Error())
		}
	}
}

// resetSync is how long a reset waits for logs to reach a disk. What must be stopped has until W0, and a disk that hangs
// may be why it did not stop: sync(2) would then never return.
const resetSync = 200 * time.Millisecond

func syncBriefly() {
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(resetSync):
	}
}

// Hooks of the driver that only inform.

func (n *Node) sessionBegan(_ membership.Session, peerFresh bool) {
	n.left.Store(false)
	n.mu.Lock()
	n.began = time.Now()
	n.arbiter.toldAt = 0
	n.mu.Unlock()
	if !peerFresh {
		n.tasks.Go(n.sendRuntime)
		n.fencePeerIsBack()
	}
}

func (n *Node) refused(r peerlink.Refusal) {
	switch r.Reason {
	case peerlink.WrongKey:
		n.faults.raise(event.New(event.WrongPeerKey, "address", r.From))
		return
	case peerlink.OtherVersion:
		n.faults.raise(event.New(event.OtherPeerVersion, "peer", n.peer().String(), "reason", r.Why))
		return
	default: // the others are told by their words
	}
	n.faults.raise(event.New(event.LinkRefused, "address", r.From, "path", r.Path, "reason", r.Why))
}

func (n *Node) mirrorFault(f control.Fault) {
	n.log.Error("fault of the mirror", "code", f.Code, "what", f.What, "why", f.Why, "volume", f.Volume)
	n.driver.Note("mirror-fault", f.Code+" "+f.What)
	n.faults.raiseAbout(f.Volume, event.Reported(event.Code(f.Code), event.Words{What: f.What, Why: f.Why, Next: f.Next}, "volume", f.Volume))
}

// peer is the other slot.
func (n *Node) peer() membership.Node { return n.self.Peer() }

func (n *Node) document() (site.Document, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doc == nil {
		return site.Document{}, false
	}
	return *n.doc, true
}

// parseID reads 32 hex digits.
func parseID(text string) (membership.ID, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(membership.ID{}) {
		return membership.ID{}, fmt.Errorf("id %q is not 32 hex digits", text)
	}
	return membership.ID(b), nil
}
