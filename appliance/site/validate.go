package site

// FieldError is one wrong field of a document.
type FieldError struct {
	Field string `json:"field"` // path: "volumes[1].size_bytes"
	What  string `json:"what"`
	Why   string `json:"why"`
	Next  string `json:"next"`
}

// Validate names every wrong field of the answers of a person (before founding).
func Validate(d Document) []FieldError { return nil }

// Limits of one site. They equal membership's table sizes (checked by a test).
const (
	MaxResources = 32 // slot 0 is the pair
	MaxVolumes   = 32
)
