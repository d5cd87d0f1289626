package site

import "io"

// Founding is what setup adds to a person's answers.
type Founding struct {
	Random     io.Reader // crypto/rand.Reader
	KeyA, KeyB []byte    // ed25519 public keys of the nodes
	RID        string    // register id, 32 hex digits; empty without a witness
	GUIDA      string    // of the BMCs, as read; may be empty
	GUIDB      string
}

// Found fills ids, slots, keys and version 1.
func Found(answers Document, f Founding) (Document, error) { return answers, nil }

// SetRID names the register that the witness made.
func (d *Document) SetRID(rid string) { d.Witness.RID = rid }

// Resource is a thing with an owner: a VM with its volumes, or one unattached volume. Slot 0, the pair, is not listed.
type Resource struct {
	Slot    int
	VM      *VM // nil: an unattached volume
	Volumes []Volume
}

// Resources of the document in order of their slots.
func (d Document) Resources() []Resource { return nil }

// Canonical is the document's one byte form: what is hashed, stored and sent.
func (d Document) Canonical() ([]byte, error) { return nil, nil }

// Hash is the SHA-256 of Canonical.
func (d Document) Hash() ([32]byte, error) { return [32]byte{}, nil }

// Parse reads a stored or received document (canonical form) or a person's answers; unknown fields are refused.
func Parse(data []byte) (Document, error) { return Document{}, nil }
