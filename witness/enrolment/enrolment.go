// Package enrolment is the list of sites that a witness serves: one small JSON file per site in a folder, naming the
// keys of its two nodes. Enrolling is writing a file, revoking is removing one; the server needs no restart for
// either.
//
// It promises that a file is there whole or not at all (written aside, synced, renamed, folder synced), and that a key
// stands for one node of one site: a key found twice is nobody's, because two sites must never share a vote. Names are
// letters, digits, dots and dashes, so that a name is a file name and nothing else. A file that cannot be read is
// skipped and reported; the other sites go on.
package enrolment

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"duet/witness/pinned"
)

// Site is one enrolled site.
type Site struct {
	Name string
	KeyA ed25519.PublicKey
	KeyB ed25519.PublicKey
}

// file is the JSON form.
type file struct {
	Name string `json:"name"`
	KeyA string `json:"key_a"` // raw ed25519, base64
	KeyB string `json:"key_b"`
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)

// maxFileBytes of one enrolment; what is larger is not one.
const maxFileBytes = 4096

// Check says whether s can be enrolled.
func (s Site) Check() error {
	switch {
	case !nameForm.MatchString(s.Name):
		return fmt.Errorf("site name %q: use 1 to 63 letters, digits, dots and dashes, beginning with a letter or digit", s.Name)
	case len(s.KeyA) != ed25519.PublicKeySize || len(s.KeyB) != ed25519.PublicKeySize:
		return fmt.Errorf("site %s: a node key is not an ed25519 public key", s.Name)
	case s.KeyA.Equal(s.KeyB):
		return fmt.Errorf("site %s: both nodes have the same key; each node makes its own", s.Name)
	}
	return nil
}

// Write enrols s, or replaces the keys of the site of that name. Durable before it returns.
func Write(dir string, s Site) (err error) {
	if err := s.Check(); err != nil {
		return err
	}
	others, faults := read(dir)
	for _, other := range others {
		if other.Name != s.Name && (s.uses(other.KeyA) || s.uses(other.KeyB)) {
			return fmt.Errorf("site %s: a key of it is enrolled for site %s; remove %s first", s.Name, other.Name, filepath.Join(dir, other.Name+".json"))
		}
	}
	if len(others) == 0 && len(faults) > 0 && !errors.Is(faults[0], fs.ErrNotExist) {
		return errors.Join(faults...)
	}
	text, err := json.MarshalIndent(file{Name: s.Name, KeyA: pinned.FormatKey(s.KeyA), KeyB: pinned.FormatKey(s.KeyB)}, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(dir, s.Name+".json", append(text, '\n')); err != nil {
		return fmt.Errorf("enrol site %s: %w", s.Name, err)
	}
	return nil
}

func (s Site) uses(key ed25519.PublicKey) bool { return s.KeyA.Equal(key) || s.KeyB.Equal(key) }

// Parse reads one enrolment, which must be that of the site called name.
func Parse(name string, text []byte) (Site, error) {
	var f file
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return Site{}, fmt.Errorf("enrolment %s: %w", name, err)
	}
	if decoder.More() {
		return Site{}, fmt.Errorf("enrolment %s: more than one JSON value", name)
	}
	if f.Name != name {
		return Site{}, fmt.Errorf("enrolment %s names site %q; name and file name are the same", name, f.Name)
	}
	keyA, errA := pinned.ParseKey(f.KeyA)
	keyB, errB := pinned.ParseKey(f.KeyB)
	if err := errors.Join(errA, errB); err != nil {
		return Site{}, fmt.Errorf("enrolment %s: %w", name, err)
	}
	s := Site{Name: name, KeyA: keyA, KeyB: keyB}
	return s, s.Check()
}

// read takes all files of the folder, in the order of their names.
func read(dir string) (sites []Site, faults []error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, []error{fmt.Errorf("enrolments: %w", err)}
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		if info, err := entry.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > maxFileBytes {
			faults = append(faults, fmt.Errorf("enrolment %s is not a small regular file", name))
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err == nil {
			var s Site
			if s, err = Parse(name, text); err == nil {
				sites = append(sites, s)
				continue
			}
		}
		faults = append(faults, err)
	}
	return sites, faults
}

func writeFile(dir, name string, text []byte) (err error) {
	aside, err := os.CreateTemp(dir, ".enrol-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(aside.Name()))
		}
	}()
	_, err = aside.Write(text)
	if err = errors.Join(err, giveTo(aside, dir), aside.Sync(), aside.Close()); err != nil {
		return err
	}
	if err = os.Rename(aside.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, openErr := os.Open(dir)
	if openErr != nil {
		return openErr
	}
	return errors.Join(d.Sync(), d.Close())
}

// giveTo makes the file that of the folder's owner: an operator enrols as root, the service that reads it is not root.
func giveTo(file *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}
