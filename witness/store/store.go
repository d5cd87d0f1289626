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
// page cache says then is not what the medium holds. A file that bbolt itself cannot make sense of is an error at
// start; the way on is to set it aside by hand or by NewIdentity.
//
// A site belongs to one enrolment, which the first CREATE of that site binds. Another site id under the same name is
// accepted only while no register of the old one was ever used (a founding that was cut off and started again), or
// when both node keys are new (both nodes replaced or reset). The four newest registers of a site are kept; deleting
// one is always safe, because an unknown register grants nothing.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"duet/witness/register"
)

// registersPerSite are kept: the one in use, one being admitted, and two of before, for lost answers.
const registersPerSite = 4

// Errors that a caller answers by. Any other error means that the store is dead.
var (
	ErrUnknownRegister = errors.New("unknown register")
	ErrUnknownSite     = errors.New("unknown site")
	ErrCorrupt         = register.ErrCorrupt
)

// Config says where the store lives.
type Config struct {
	Path        string // the file; its folder exists
	Machine     Machine
	NewIdentity bool // set everything aside and begin empty
}

// Owner is the enrolment on whose behalf a call is made.
type Owner struct {
	Name string
	Keys [2][32]byte // raw public keys of a and b
}

// Store is an open store. Its methods may be called concurrently; changes happen one after another.
type Store struct {
	db *bbolt.DB

	mu   sync.Mutex
	dead error // first failed write or sync

	step func(string) // of the crash test: called at each step of a change
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
			return &Store{db: db, step: func(string) {}}, opened, nil
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
	return &Store{db: db, step: func(string) {}}, opened, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Create makes a register with this content, or finds the one that the same site and nonce made before.
func (s *Store) Create(owner Owner, site register.ID, nonce uint64, content register.Content) (register.Register, error) {
	var made register.Register
	err := s.change(func(tx *bbolt.Tx) error {
		if err := bindSite(tx, owner, site); err != nil {
			return err
		}
		kept, err := listOrder(tx, site)
		if err != nil {
			return err
		}
		for _, at := range kept {
			old, err := load(tx, at.rid)
			if err == nil && old.CreateNonce == nonce {
				made = old
				return errUnchanged
			}
		}
		made = register.Register{Site: site, CreateNonce: nonce, Content: content, Sequence: 1}
		if _, err := rand.Read(made.RID[:]); err != nil {
			return err
		}
		if err := save(tx, made); err != nil {
			return err
		}
		return appendOrder(tx, site, kept, made.RID)
	})
	return made, err
}

// CAS is register.CAS on the register rid of this owner.
func (s *Store) CAS(owner Owner, rid register.ID, expected, next register.Content) (register.Register, bool, error) {
	return s.update(owner, rid, func(r register.Register) (register.Register, bool, bool) { return r.CAS(expected, next) })
}

// Push is register.Push on the register rid of this owner.
func (s *Store) Push(owner Owner, rid register.ID, epoch register.Epoch) (register.Register, bool, error) {
	return s.update(owner, rid, func(r register.Register) (register.Register, bool, bool) { return r.Push(epoch) })
}

// List names the registers of the owner's site, newest first.
func (s *Store) List(owner Owner) ([]register.ID, error) {
	var rids []register.ID
	err := s.view(func(tx *bbolt.Tx) error {
		bound, ok, err := loadSite(tx, owner.Name)
		if err != nil || !ok {
			return err
		}
		kept, err := listOrder(tx, bound.site)
		for _, k := range slices.Backward(kept) {
			rids = append(rids, k.rid)
		}
		return err
	})
	return rids, err
}

func (s *Store) update(owner Owner, rid register.ID, op func(register.Register) (register.Register, bool, bool)) (register.Register, bool, error) {
	var after register.Register
	var done bool
	err := s.change(func(tx *bbolt.Tx) error {
		r, err := load(tx, rid)
		if err != nil {
			return err
		}
		bound, ok, err := loadSite(tx, owner.Name)
		if err != nil {
			return err
		}
		if !ok || bound.site != r.Site {
			return ErrUnknownRegister // of somebody else: to this caller it does not exist
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

// errUnchanged ends a transaction that has nothing to write: a repeat costs no sync.
var errUnchanged = errors.New("unchanged")

// change runs one transaction; it is durable when change returns nil.
func (s *Store) change(do func(*bbolt.Tx) error) (err error) {
	if err := s.alive(); err != nil {
		return err
	}
	defer s.catch(&err)
	var answer error // a decision of do, which leaves the store as it was
	s.step("begin")
	err = s.db.Update(func(tx *bbolt.Tx) error {
		if answer = do(tx); answer != nil {
			return answer
		}
		s.step("commit")
		return nil
	})
	s.step("committed")
	switch {
	case answer == nil && err == nil, errors.Is(answer, errUnchanged):
		return nil
	case errors.Is(answer, ErrUnknownRegister), errors.Is(answer, ErrUnknownSite), errors.Is(answer, ErrCorrupt):
		return answer
	default:
		return s.die(err)
	}
}

func (s *Store) view(do func(*bbolt.Tx) error) (err error) {
	if err := s.alive(); err != nil {
		return err
	}
	defer s.catch(&err)
	return s.db.View(do)
}

func (s *Store) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// die is final: an error of write or sync says that nothing is known about the medium any more.
func (s *Store) die(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead == nil {
		s.dead = fmt.Errorf("the store failed and serves nothing until it is started again: %w", err)
	}
	return s.dead
}

// catch turns a panic of bbolt over a damaged file into the death of the store: other sites' requests get an error,
// not a closed connection without a reason, and nothing is answered from pages that contradict each other.
func (s *Store) catch(err *error) {
	if p := recover(); p != nil {
		*err = s.die(fmt.Errorf("damaged file: %v", p))
	}
}

func openFile(path string) (db *bbolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store %s: damaged file: %v", path, p)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("store %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w; restore nothing over it: move it away, and let the sites admit a new register", path, err)
	}
	// A process that was killed inside a commit may have left a register that can be read but is not durable, and the repeat
	// of that request is answered without another write. So what is read is made durable first, the name too.
	if err := errors.Join(db.Sync(), syncDir(filepath.Dir(path))); err != nil {
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

func load(tx *bbolt.Tx, rid register.ID) (register.Register, error) {
	record := tx.Bucket(bucketRegisters).Get(rid[:])
	if record == nil {
		return register.Register{}, ErrUnknownRegister
	}
	return register.Decode(rid, record)
}

func save(tx *bbolt.Tx, r register.Register) error {
	record := r.Encode()
	return tx.Bucket(bucketRegisters).Put(r.RID[:], record[:])
}

// place is one register in the order of creation.
type place struct {
	number uint64
	rid    register.ID
}

// listOrder is oldest first.
func listOrder(tx *bbolt.Tx, site register.ID) ([]place, error) {
	var list []place
	c := tx.Bucket(bucketOrder).Cursor()
	for key, value := c.Seek(site[:]); len(key) == 24 && register.ID(key[:16]) == site; key, value = c.Next() {
		if len(value) != 16 {
			return nil, fmt.Errorf("order of site %x: %w", site, ErrCorrupt)
		}
		list = append(list, place{binary.BigEndian.Uint64(key[16:]), register.ID(value)})
	}
	return list, nil
}

// appendOrder adds rid as the newest and deletes what is too old.
func appendOrder(tx *bbolt.Tx, site register.ID, kept []place, rid register.ID) error {
	number := uint64(1)
	if len(kept) > 0 {
		number = kept[len(kept)-1].number + 1
	}
	if err := tx.Bucket(bucketOrder).Put(orderKey(site, number), rid[:]); err != nil {
		return err
	}
	for ; len(kept) >= registersPerSite; kept = kept[1:] {
		if err := drop(tx, site, kept[0]); err != nil {
			return err
		}
	}
	return nil
}

func drop(tx *bbolt.Tx, site register.ID, at place) error {
	return errors.Join(tx.Bucket(bucketOrder).Delete(orderKey(site, at.number)), tx.Bucket(bucketRegisters).Delete(at.rid[:]))
}

func orderKey(site register.ID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 24), site[:]...), number)
}
