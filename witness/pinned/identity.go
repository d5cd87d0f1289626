package pinned

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const pemType = "PRIVATE KEY" // RFC 5958, PKCS#8

// LoadOrCreate reads the identity at path, or makes one if no file is there. The folder must exist.
// Durable before it returns.
func LoadOrCreate(path string) (ed25519.PrivateKey, error) {
	key, err := Load(path)
	if err == nil { // a process that was killed in create may have left the name without making it durable
		return key, syncDir(filepath.Dir(path))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new identity: %w", err)
	}
	if err := create(path, key); err != nil {
		if errors.Is(err, fs.ErrExist) { // another process was faster: there is one identity, its
			return Load(path)
		}
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	return key, nil
}

// Load reads the identity at path.
func Load(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("identity %s: no PEM block %q; restore it or remove the file to get a new key", path, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity %s holds %T, not an ed25519 key", path, parsed)
	}
	return key, nil
}

// create writes the key so that path either does not exist or holds all of it: written aside and synced, linked to
// its name (a link never replaces an identity, a rename would), folder synced.
func create(path string, key ed25519.PrivateKey) (err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	aside, err := os.CreateTemp(dir, ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(aside.Name())) }()
	_, err = aside.Write(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
	err = errors.Join(err, aside.Sync(), aside.Close())
	if err != nil {
		return err
	}
	if err := os.Link(aside.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
