package site

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"duet/appliance/internal/durable"
)

// The files of a store.
const (
	documentFile = "site.json"
	runtimeFile  = "runtime.json"
)

// A candidate is a version of the document that a record may come to name (protocol.md R25): durable here before it does.
const (
	candidatePrefix = "candidate-"
	candidatesMax   = 4 // current, pending, the one before, and one that was cut off
)

// Store keeps the document and the runtime document in a directory, durably: a method that returned nil has reached
// the disk (write aside, fsync, rename, fsync of the directory), and after a crash either the old or the new content is
// there, whole. A failed write or sync is final: the page cache is not trusted after it, so every later change fails.
type Store struct {
	dir   string
	write func(path string, data []byte, perm os.FileMode) error

	mu      sync.Mutex // guards the fields below
	doc     *Document
	others  []candidate // oldest first
	runtime Runtime
	broken  error
}

type candidate struct {
	file string
	hash [sha256.Size]byte
	doc  Document
}

// OpenStore reads what is there. A file that cannot be read or understood is an error: a node never guesses that it
// belongs to no site.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, write: durable.WriteFile}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("site store: %w", err)
	}
	// A process that was killed behind a rename may have left a name that can be read but is not durable.
	if err := durable.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("site store: %w", err)
	}
	data, err := os.ReadFile(s.path(documentFile))
	if err == nil {
		doc, perr := Parse(data)
		if perr == nil {
			perr = Check(doc).Err()
		}
		if perr != nil {
			return nil, fmt.Errorf("%s: %w", s.path(documentFile), perr)
		}
		s.doc = &doc
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("site store: %w", err)
	}
	if err := s.readCandidates(); err != nil {
		return nil, err
	}
	data, err = os.ReadFile(s.path(runtimeFile))
	if err == nil {
		if s.runtime, err = ParseRuntime(data); err != nil {
			return nil, fmt.Errorf("%s: %w", s.path(runtimeFile), err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("site store: %w", err)
	}
	return s, nil
}

// Document is the stored document; false: none.
func (s *Store) Document() (Document, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil {
		return Document{}, false
	}
	return s.doc.clone(), true
}

// SaveDocument replaces the document by one that Check accepts.
func (s *Store) SaveDocument(d Document) error {
	if err := Check(d).Err(); err != nil {
		return err
	}
	data, err := d.Canonical()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.replace(documentFile, data); err != nil {
		return err
	}
	d = d.clone()
	s.doc = &d
	return nil
}

// readCandidates reads what is there; one that cannot be read was cut off before anybody relied on it.
func (s *Store) readCandidates() error {
	names, err := filepath.Glob(s.path(candidatePrefix + "*.json"))
	if err != nil {
		return fmt.Errorf("site store: %w", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("site store: %w", err)
		}
		if c, err := readCandidate(data); err == nil {
			s.others = append(s.others, c)
		}
	}
	slices.SortFunc(s.others, func(x, y candidate) int { return cmp.Compare(x.doc.Version, y.doc.Version) })
	return nil
}

func readCandidate(data []byte) (candidate, error) {
	doc, err := Parse(data)
	if err == nil {
		err = Check(doc).Err()
	}
	if err != nil {
		return candidate{}, err
	}
	hash, err := doc.Hash()
	return candidate{fmt.Sprintf("%s%x.json", candidatePrefix, hash[:8]), hash, doc}, err
}

// SaveCandidate makes a version durable beside the present document. Of more than candidatesMax the oldest goes.
func (s *Store) SaveCandidate(d Document) error {
	data, err := d.Canonical()
	if err != nil {
		return err
	}
	c, err := readCandidate(data)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(c.hash) != nil {
		return s.broken
	}
	if err := s.replace(c.file, data); err != nil {
		return err
	}
	s.others = append(s.others, c)
	for len(s.others) > candidatesMax {
		if err := os.Remove(s.path(s.others[0].file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fail(err)
		}
		s.others = s.others[1:]
	}
	return nil
}

// Find is the stored version with this hash, the document itself or a candidate.
func (s *Store) Find(hash [sha256.Size]byte) (Document, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.find(hash); d != nil {
		return d.clone(), true
	}
	return Document{}, false
}

func (s *Store) find(hash [sha256.Size]byte) *Document {
	if s.doc != nil {
		if h, err := s.doc.Hash(); err == nil && h == hash {
			return s.doc
		}
	}
	for i := range s.others {
		if s.others[i].hash == hash {
			return &s.others[i].doc
		}
	}
	return nil
}

// Runtime is the stored runtime document; the zero value if there is none.
func (s *Store) Runtime() Runtime {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runtime.clone()
}

// SaveRuntime replaces the runtime document if r is newer; an older or equal one changes nothing and is no error.
func (s *Store) SaveRuntime(r Runtime) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.Newer(s.runtime) {
		return s.broken
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("runtime document: %w", err)
	}
	if err := s.replace(runtimeFile, data); err != nil {
		return err
	}
	s.runtime = r.clone()
	return nil
}

// Forget removes both: a founding that was cut off before it committed (protocol.md 9.2).
func (s *Store) Forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	names := []string{runtimeFile, documentFile}
	for _, c := range s.others {
		names = append(names, c.file)
	}
	for _, name := range names {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fail(err)
		}
	}
	s.doc, s.others, s.runtime = nil, nil, Runtime{}
	if err := durable.SyncDir(s.dir); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// replace makes data the durable content of a file.
func (s *Store) replace(name string, data []byte) error {
	if s.broken != nil {
		return s.broken
	}
	if err := s.write(s.path(name), data, 0o600); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Store) fail(err error) error {
	s.broken = fmt.Errorf("site store is dead: %w", err)
	return s.broken
}
