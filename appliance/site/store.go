package site

// Runtime is the small replicated state beside the document: what a person or a test has changed since founding.
type Runtime struct {
	Epoch         uint64          `json:"epoch"`   // of the writer when it wrote
	Version       uint64          `json:"version"` // grows with every change
	SetupComplete bool            `json:"setup_complete"`
	OutletsProven map[string]bool `json:"outlets_proven"` // by node: "a", "b"
	BMCProven     map[string]bool `json:"bmc_proven"`     // by node
	StoppedVMs    map[string]bool `json:"stopped_vms"`    // by VM id: stopped by a person
}

// Newer says whether r replaces o: higher (epoch, version).
func (r Runtime) Newer(o Runtime) bool { return false }

// Store keeps the document and the runtime document in a directory, durably: a method that returned has reached the
// disk (write aside, fsync, rename, fsync of the directory). A failed sync is final: every later call fails.
type Store struct{ dir string }

// OpenStore reads what is there.
func OpenStore(dir string) (*Store, error) { return &Store{dir: dir}, nil }

// Document is the stored document; false: none.
func (s *Store) Document() (Document, bool) { return Document{}, false }

// SaveDocument replaces the document.
func (s *Store) SaveDocument(d Document) error { return nil }

// Runtime is the stored runtime document; the zero value if there is none.
func (s *Store) Runtime() Runtime { return Runtime{} }

// SaveRuntime replaces the runtime document if r is newer; an older or equal one changes nothing and is no error.
func (s *Store) SaveRuntime(r Runtime) error { return nil }

// Forget removes both (a founding that was cut off before it committed).
func (s *Store) Forget() error { return nil }
