package store

import (
	"bytes"
	"crypto/sha256"
	"os"
)

// Machine is where a store lives. A store that finds itself on another machine has been copied or restored, and what
// it remembers may be old: it serves none of it (protocol.md section 11, "the store is bound to its machine").
type Machine struct {
	ID       string // /etc/machine-id
	Hardware string // hardware UUID; empty where it cannot be read
}

// ThisMachine reads the two identities of the running machine.
func ThisMachine() Machine {
	return Machine{ID: firstLine("/etc/machine-id"), Hardware: firstLine("/sys/class/dmi/id/product_uuid")}
}

// Digest stands for the machine id where a file on it has to know its machine.
func (m Machine) Digest() [sha256.Size]byte { return m.binding().id }

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "" // absent or not readable to this user: not known, which binds to nothing
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

// binding is what the store keeps of a machine: digests, so that a store that is sent to somebody says nothing about
// the machine. Not known is all zero.
type binding struct{ id, hardware [sha256.Size]byte }

func (m Machine) binding() (b binding) {
	if m.ID != "" {
		b.id = sha256.Sum256([]byte("duet-witness machine-id\n" + m.ID))
	}
	if m.Hardware != "" {
		b.hardware = sha256.Sum256([]byte("duet-witness hardware\n" + m.Hardware))
	}
	return b
}

// same says whether now may be the machine that kept was written on: what both know must be equal. A hardware UUID
// that became unreadable (another user, another kernel) does not unbind, or an update would lose every site.
func (kept binding) same(now binding) bool {
	unknown := [sha256.Size]byte{}
	equal := func(a, b [sha256.Size]byte) bool { return a == unknown || b == unknown || a == b }
	return equal(kept.id, now.id) && equal(kept.hardware, now.hardware)
}
