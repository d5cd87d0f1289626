// Package etcdstore keeps the registers of many sites in etcd, where one witness machine is not enough. Any number of
// duet-witness processes may serve the same sites over one etcd at the same time.
//
// It promises what the embedded store promises: a change is durable (on a majority of etcd's disks) before it is
// answered, register ids are made here by crypto/rand, and nothing is guessed. A site is one value under one key;
// CREATE, CAS and PUSH read it linearizably, decide by package register, and write it back in one etcd transaction that
// compares the revision they read. Two processes that race therefore have an order, and the loser decides again.
//
// An etcd that cannot be reached, or whose answer got lost, gives no answer (register.ErrNoAnswer), never "unknown":
// the transaction may have taken effect. It is not repeated here, because between two tries somebody else may act and
// the answer would deny what happened; the node repeats, and a repeat is answered as the first time. Reads are repeated
// until the deadline that every call has.
//
// The embedded store is bound to its machine. Here the header names the etcd cluster and a generation, which is part of
// every key; each process leaves a marker at each start and remembers it, with the highest revision it saw, in a file
// (binding.go). What does not fit together is an etcd that was restored, copied or emptied: a new generation begins,
// to which every register is unknown. Every transaction compares the header, so all processes follow at once.
package etcdstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"duet/witness/register"
)

// Config says which etcd, and where this process remembers what it saw of it.
type Config struct {
	Endpoints   []string    // host:port each
	TLS         *tls.Config // nil: none
	Memory      string      // file; its folder exists
	Machine     [32]byte    // digest of this machine: a Memory that was copied from another one is not believed
	NewIdentity bool        // set everything aside and begin empty
	Log         *slog.Logger
}

const (
	callLimit  = 4 * time.Second        // one request to the store: two elections of etcd at its defaults, below a node's patience of 5 s
	readPause  = 100 * time.Millisecond // before a read that failed is tried again
	keepAlive  = 5 * time.Second        // probe of a silent connection to etcd, and its limit
	memorySpan = 5 * time.Second        // between two notes of the highest revision
)

// redial paces the client's connections to an etcd that is away. gRPC's default waits up to two minutes between two tries,
// and for so long an etcd that is back would not be asked; a refused connection costs next to nothing.
var redial = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: callLimit,
}

// Store is an open store. Its methods may be called concurrently.
type Store struct {
	cfg     Config
	kv      *clientv3.Client
	binding chan struct{} // held while the header is read or written
	bound   atomic.Pointer[bound]
	seen    atomic.Int64 // highest revision of etcd in any answer
	memory  memory       // held by binding
	lock    fileLock
	failure atomic.Pointer[error] // why the last call had no answer; nil after one that had

	ctx    context.Context
	cancel context.CancelFunc
	noter  sync.WaitGroup
	close  func() error
}

// bound is the generation that this process serves.
type bound struct {
	generation register.ID
	cluster    uint64
	revision   int64 // of the header key: compared in every transaction
}

// Open makes a store. It does not wait for etcd, except for NewIdentity, which is done when Open returns.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := lockFile(cfg.Memory)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, binding: make(chan struct{}, 1), lock: lock}
	s.memory, err = readMemory(cfg.Memory, cfg.Machine)
	if err != nil && !cfg.NewIdentity {
		return nil, errors.Join(err, lock.close())
	}
	s.seen.Store(s.memory.Revision)
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}
	var urls []string
	for _, endpoint := range cfg.Endpoints {
		urls = append(urls, scheme+endpoint)
	}
	s.kv, err = clientv3.New(clientv3.Config{
		Endpoints: urls, TLS: cfg.TLS, Context: s.ctx, Logger: zap.NewNop(),
		DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAlive,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(redial)},
	})
	if err != nil {
		s.cancel()
		return nil, errors.Join(fmt.Errorf("etcd: %w", err), lock.close())
	}
	s.close = sync.OnceValue(s.end)
	s.noter.Go(s.note)
	if cfg.NewIdentity {
		if err := s.newIdentity(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close leaves what waits without an answer.
func (s *Store) Close() error { return s.close() }

func (s *Store) end() error {
	s.cancel()
	s.noter.Wait()
	err := s.remember()
	if closed := s.kv.Close(); !errors.Is(closed, context.Canceled) {
		err = errors.Join(err, closed)
	}
	return errors.Join(err, s.lock.close())
}

// Kind is the word for this store in a status.
func (s *Store) Kind() string { return "etcd" }

// Health is why the last call had no answer, or nil.
func (s *Store) Health() error {
	if failure := s.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// Create is register.Site.Create for this owner.
func (s *Store) Create(ctx context.Context, owner register.Owner, site register.ID, nonce uint64, content register.Content) (register.Register, error) {
	var rid register.ID
	if _, err := rand.Read(rid[:]); err != nil {
		return register.Register{}, err
	}
	var made register.Register
	err := s.change(ctx, owner, &site, func(before found) (after register.Site, changed bool, err error) {
		taken := before.siteOwner != "" && before.siteOwner != owner.Name
		after, made, err = before.site.Create(owner, site, taken, nonce, content, rid)
		return after, made.RID == rid, err
	})
	return made, err
}

// CAS is register.CAS on the register rid of this owner.
func (s *Store) CAS(ctx context.Context, owner register.Owner, rid register.ID, expected, next register.Content) (register.Register, bool, error) {
	return s.update(ctx, owner, rid, func(r register.Register) (register.Register, bool, bool) { return r.CAS(expected, next) })
}

// Push is register.Push on the register rid of this owner.
func (s *Store) Push(ctx context.Context, owner register.Owner, rid register.ID, epoch register.Epoch) (register.Register, bool, error) {
	return s.update(ctx, owner, rid, func(r register.Register) (register.Register, bool, bool) { return r.Push(epoch) })
}

func (s *Store) update(ctx context.Context, owner register.Owner, rid register.ID, op func(register.Register) (register.Register, bool, bool)) (after register.Register, done bool, err error) {
	err = s.change(ctx, owner, nil, func(before found) (register.Site, bool, error) {
		r, err := before.site.Find(rid)
		if err != nil {
			return register.Site{}, false, err
		}
		var changed bool
		after, done, changed = op(r)
		return before.site.With(after), changed, nil
	})
	return after, done, err
}

// List names the registers of the owner's site, newest first.
func (s *Store) List(ctx context.Context, owner register.Owner) ([]register.ID, error) {
	var rids []register.ID
	err := s.change(ctx, owner, nil, func(before found) (register.Site, bool, error) {
		rids = nil
		for _, k := range slices.Backward(before.site.Kept) {
			rids = append(rids, k.RID)
		}
		return register.Site{}, false, nil
	})
	return rids, err
}

// change reads the owner's site, has it decided, and writes it back if nobody wrote meanwhile; else once more. siteID
// asks for the owner of that site id too.
func (s *Store) change(ctx context.Context, owner register.Owner, siteID *register.ID, decide func(found) (register.Site, bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := s.decideAndWrite(ctx, owner, siteID, decide)
	if errors.Is(err, register.ErrNoAnswer) {
		s.failure.Store(&err)
	} else {
		s.failure.Store(nil)
	}
	return err
}

func (s *Store) decideAndWrite(ctx context.Context, owner register.Owner, siteID *register.ID, decide func(found) (register.Site, bool, error)) error {
	for {
		before, err := s.read(ctx, owner.Name, siteID)
		if err != nil {
			return err
		}
		after, changed, err := decide(before)
		if err != nil || !changed {
			return err
		}
		written, err := s.write(ctx, owner.Name, siteID, before, after)
		if err != nil || written {
			return err
		}
	}
}

func noAnswer(why error) error { return fmt.Errorf("%w: etcd: %w", register.ErrNoAnswer, why) }
