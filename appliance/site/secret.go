package site

// Secret is a password or key: it prints as *** and is stored only where the document itself is stored.
type Secret string

// String hides the value from logs and messages.
func (Secret) String() string { return "***" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "***" }
