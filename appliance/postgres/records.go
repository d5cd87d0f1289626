package postgres

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"duet/appliance/internal/durable"
	"duet/appliance/postgres/decide"
)

// maxRecords are kept: current, pending, prepared, and some that were written and never recorded.
const maxRecords = 12

// Records keeps versions of the database record by their hash. A version is durable here before a membership record names
// it (protocol.md R25), and stays as long as one may.
type Records struct {
	dir string
	mu  sync.Mutex
	all []storedRecord // in the order in which they were saved last
}

type storedRecord struct {
	hash   [sha256.Size]byte
	record decide.Record
}

// OpenRecords reads what is there. A file that is no record with the hash of its name was cut off before anybody relied on it.
func OpenRecords(dir string) (*Records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("database records: %w", err)
	}
	if err := durable.SyncDir(dir); err != nil { // a rename that was read may not have been durable
		return nil, fmt.Errorf("database records: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("database records: %w", err)
	}
	type aged struct {
		storedRecord
		at time.Time
	}
	var found []aged
	for _, e := range entries {
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("database records: %w", err)
		}
		r, err := decide.ParseRecord(body)
		hash := sha256.Sum256(body)
		if err != nil || hex.EncodeToString(hash[:]) != e.Name() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("database records: %w", err)
		}
		found = append(found, aged{storedRecord{hash, r}, info.ModTime()})
	}
	slices.SortStableFunc(found, func(a, b aged) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	s := &Records{dir: dir}
	for _, f := range found {
		s.all = append(s.all, f.storedRecord)
	}
	return s, nil
}

// Save makes a version durable and gives its hash. named: these are never dropped in its favour.
func (s *Records) Save(body []byte, named func(hash [sha256.Size]byte) bool) ([sha256.Size]byte, error) {
	hash := sha256.Sum256(body)
	r, err := decide.ParseRecord(body)
	if err != nil {
		return hash, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(hash); i >= 0 { // used last
		s.all = append(slices.Delete(s.all, i, i+1), storedRecord{hash, r})
		return hash, nil
	}
	if err := durable.WriteFile(filepath.Join(s.dir, hex.EncodeToString(hash[:])), body, 0o600); err != nil {
		return hash, fmt.Errorf("database record: %w", err)
	}
	s.all = append(s.all, storedRecord{hash, r})
	for i := 0; i < len(s.all)-1 && len(s.all) > maxRecords; {
		if named(s.all[i].hash) {
			i++
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, hex.EncodeToString(s.all[i].hash[:]))); err != nil {
			return hash, fmt.Errorf("database record: %w", err)
		}
		s.all = slices.Delete(s.all, i, i+1)
	}
	return hash, nil
}

// Find gives the version with this hash.
func (s *Records) Find(hash [sha256.Size]byte) (decide.Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(hash); i >= 0 {
		return s.all[i].record, true
	}
	return decide.Record{}, false
}

func (s *Records) index(hash [sha256.Size]byte) int {
	return slices.IndexFunc(s.all, func(r storedRecord) bool { return r.hash == hash })
}
