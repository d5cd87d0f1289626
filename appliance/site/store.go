package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"duet/appliance/internal/durable"
)

// The files of a store.
const (
	documentFile = "site.json"
	runtimeFile  = "runtime.json"
)

// Store keeps the document and the runtime document in a directory, durably: a method that returned nil has reached
// the disk (write aside, fsync, rename, fsync of the directory), and after a crash either the old or the new content is
// there, whole. A failed write or sync is final: the page cache is not trusted after it, so every later change fails.
type Store struct {
	dir   string
	write func(path string, data []byte, perm os.FileMode) error

	mu      sync.Mutex // guards the fields below
	doc     *Document
	runtime Runtime
	broken  error
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
	for _, name := range []string{runtimeFile, documentFile} {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fail(err)
		}
	}
	s.doc, s.runtime = nil, Runtime{}
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
