// Package store keeps the registers of many sites in one file, durably.
//
// It promises that whatever it answered is on the medium: every change is one transaction of bbolt, synced before the
// call returns, and a crash at any point leaves the register as it was before or as it is after, never between. It
// makes the register ids, by crypto/rand: an id that a node chose could come back to life when a late duplicate of
// its CREATE reaches an emptied store (protocol.md section 11, mutant N21).
//
// It refuses to guess. The file is bound to its machine: on another one, or on order, it is set aside whole and a new,
// empty store begins, to which every old id is unknown. A register whose record does not match its checksum is
// corrupt, not empty. After an error of write or sync the store is dead until the process is started again: what the
// page cache says then is not what the medium holds, so a start reads the medium (medium.go). A file that bbolt itself cannot make sense of is an error at
// start; the way on is to set it aside by hand or by NewIdentity.
//
// Which site an enrolment is bound to, and which registers of it stay, is register.Site. Changes that wait at the same
// time share one transaction and one sync: a thousand sites that ask at once, after a common power cut, wait for a few
// syncs and not for a thousand.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"duet/witness/register"
)

// Config says where the store lives.
type Config struct {
	Path        string // the file; its folder exists
	Machine     Machine
	NewIdentity bool // set everything aside and begin empty
}

// Store is an open store. Its methods may be called concurrently; changes happen one after another.
type Store struct {
	db      *bbolt.DB
	changes chan change
	quit    chan struct{}
	writer  sync.WaitGroup
	close   func() error

	mu   sync.Mutex
	dead error // first failed write or sync

	step func(string) // of the crash test: called at each step of a transaction
}

var (
	bucketHeader    = []byte("header")
	bucketSites     = []byte("sites")     // enrolment name → siteRecord
	bucketOwners    = []byte("owners")    // site id → enrolment name
	bucketRegisters = []byte("registers") // rid → register record
	bucketOrder     = []byte("order")     // site id, creation number 8 → rid

	keyFormat  = []byte("format")
	keyMachine = []byte("machine")
	format     = []byte("duet-witness 1")
)

// Opened says what Open found.
type Opened struct {
	SetAside string // the file that the old registers are in now; empty: none
	Why      string
}

const lockWait = 2 * time.Second // for another process that holds the file

// Open opens or makes the store. The header of a new one is durable before it returns.
func Open(cfg Config) (*Store, Opened, error) {
	var opened Opened
	if cfg.NewIdentity {
		opened.Why = "a new identity was asked for"
	} else {
		db, err := openFile(cfg.Path)
		if err != nil {
			return nil, opened, err
		}
		opened.Why, err = bind(db, cfg.Machine.binding())
		if err == nil && opened.Why == "" {
			return start(db), opened, nil
		}
		if err = errors.Join(err, db.Close()); err != nil {
			return nil, opened, fmt.Errorf("store %s: %w", cfg.Path, err)
		}
	}
	aside, err := setAside(cfg.Path)
	if err != nil {
		return nil, opened, fmt.Errorf("set aside %s: %w", cfg.Path, err)
	}
	opened.SetAside = aside
	db, err := openFile(cfg.Path)
	if err != nil {
		return nil, opened, err
	}
	if _, err := bind(db, cfg.Machine.binding()); err != nil {
		return nil, opened, errors.Join(fmt.Errorf("store %s: %w", cfg.Path, err), db.Close())
	}
	return start(db), opened, nil
}

func start(db *bbolt.DB) *Store {
	s := &Store{db: db, changes: make(chan change), quit: make(chan struct{}), step: func(string) {}}
	s.writer.Go(s.write)
	s.close = sync.OnceValue(func() error {
		close(s.quit)
		s.writer.Wait()
		return s.db.Close()
	})
	return s
}

// Close leaves what waits without an answer, and closes the file.
func (s *Store) Close() error { return s.close() }

// Kind is the word for this store in a status.
func (s *Store) Kind() string { return "embedded" }

// Health is why the store answers nothing, or nil.
func (s *Store) Health() error { return s.alive() }

// Count says how many sites are bound and how many registers are kept.
func (s *Store) Count(context.Context) (sites, registers int, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		sites, registers = tx.Bucket(bucketSites).Stats().KeyN, tx.Bucket(bucketRegisters).Stats().KeyN
		return nil
	})
	return sites, registers, err
}

// Create is register.Site.Create for this owner.
func (s *Store) Create(ctx context.Context, owner register.Owner, site register.ID, nonce uint64, content register.Content) (register.Register, error) {
	var made register.Register
	err := s.change(ctx, func(tx *bbolt.Tx) error {
		before, places, err := loadSite(tx, owner.Name)
		if err != nil {
			return err
		}
		other := tx.Bucket(bucketOwners).Get(site[:])
		var rid register.ID
		if _, err := rand.Read(rid[:]); err != nil {
			return err
		}
		var after register.Site
		after, made, err = before.Create(owner, site, other != nil && string(other) != owner.Name, nonce, content, rid)
		if err != nil {
			return err
		}
		if made.RID != rid {
			return errUnchanged
		}
		return saveCreated(tx, owner, before, after, places, made)
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

// List names the registers of the owner's site, newest first.
func (s *Store) List(_ context.Context, owner register.Owner) ([]register.ID, error) {
	var rids []register.ID
	err := s.view(func(tx *bbolt.Tx) error {
		bound, ok, err := loadBinding(tx, owner.Name)
		if err != nil || !ok {
			return err
		}
		kept, err := listOrder(tx, bound.ID)
		for _, k := range slices.Backward(kept) {
			rids = append(rids, k.rid)
		}
		return err
	})
	return rids, err
}

func (s *Store) update(ctx context.Context, owner register.Owner, rid register.ID, op func(register.Register) (register.Register, bool, bool)) (register.Register, bool, error) {
	var after register.Register
	var done bool
	err := s.change(ctx, func(tx *bbolt.Tx) error {
		r, err := load(tx, rid)
		if err != nil {
			return err
		}
		bound, ok, err := loadBinding(tx, owner.Name)
		if err != nil {
			return err
		}
		if !ok || bound.ID != r.Site {
			return register.ErrUnknownRegister // of somebody else: to this caller it does not exist
		}
		var changed bool
		after, done, changed = op(r)
		if !changed {
			return errUnchanged
		}
		return save(tx, after)
	})
	return after, done, err
}

func openFile(path string) (db *bbolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store %s: damaged file: %v", path, p)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, OpenFile: openMedium})
	if errors.Is(err, errInUse) {
		return nil, fmt.Errorf("store %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w; restore nothing over it: move it away, and let the sites admit a new register", path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil { // its name is to be durable too
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), db.Close())
	}
	return db, nil
}

// bind compares the header with this machine, or writes it into an empty file. why is not empty when the store
// belongs elsewhere.
func bind(db *bbolt.DB, now binding) (why string, err error) {
	err = db.Update(func(tx *bbolt.Tx) error {
		header := tx.Bucket(bucketHeader)
		if header == nil {
			return initialise(tx, now)
		}
		if got := header.Get(keyFormat); string(got) != string(format) {
			return fmt.Errorf("its format is %q, this program knows %q", got, format)
		}
		raw := header.Get(keyMachine)
		if len(raw) != 64 {
			return fmt.Errorf("its header is damaged")
		}
		kept := binding{id: [32]byte(raw[:32]), hardware: [32]byte(raw[32:])}
		if !kept.same(now) {
			why = "it was written on another machine: a copy or a restored image"
		}
		return nil
	})
	return why, err
}

func initialise(tx *bbolt.Tx, now binding) error {
	for _, name := range [][]byte{bucketHeader, bucketSites, bucketOwners, bucketRegisters, bucketOrder} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	header := tx.Bucket(bucketHeader)
	return errors.Join(header.Put(keyFormat, format), header.Put(keyMachine, append(now.id[:], now.hardware[:]...)))
}

// setAside renames the file to a name that is free. Durable before it returns; a missing file is nothing to do.
func setAside(path string) (string, error) {
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.aside-%d", path, i)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		err := os.Rename(path, aside)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return aside, syncDir(filepath.Dir(path))
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
