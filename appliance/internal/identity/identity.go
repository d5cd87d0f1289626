// Package identity is who a node is: one ed25519 key, made at the first start and never changed, and the TLS
// configurations that follow from it.
//
// Node to node, everything runs over TLS 1.3 with a self-signed certificate on both sides. The only thing checked is
// the raw public key of the other side: no dates, because a site may be cut off for years and clocks lie, and no
// names, because a key says more (architecture.md section 9). What key is trusted is the caller's decision, made
// while the handshake runs; a refused key ends the handshake before any application byte.
//
// The key file is written aside, synced, renamed and its directory synced. A file that exists but cannot be read is
// a fault, never a reason to make another identity: the peer would refuse it.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"duet/appliance/internal/durable"
)

// Identity is this node's key.
type Identity struct {
	key  ed25519.PrivateKey
	pem  []byte
	cert tls.Certificate
}

// Load reads the key file, or makes one when there is none.
func Load(path string) (*Identity, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newKeyPEM(); err != nil {
			return nil, fmt.Errorf("identity %s: %w", path, err)
		}
		if err = durable.WriteFile(path, b, 0o600); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	return id, nil
}

func newKeyPEM() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Parse reads a PKCS #8 PEM with an ed25519 key.
func Parse(b []byte) (*Identity, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is %T, want ed25519", parsed)
	}
	cert, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return &Identity{key: key, pem: b, cert: cert}, nil
}

// selfSigned wraps the key in the certificate that TLS wants; only the key in it is ever looked at.
func selfSigned(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "duet node"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no expiry
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Private is the signing key, for the clients that build their own TLS.
func (id *Identity) Private() ed25519.PrivateKey { return id.key }

// Public is the raw public key, 32 bytes.
func (id *Identity) Public() ed25519.PublicKey { return id.key.Public().(ed25519.PublicKey) }

// PEM is the key file as stored.
func (id *Identity) PEM() []byte { return id.pem }

// Trust decides on the key that the other side has just proved to hold.
type Trust func(peer ed25519.PublicKey) error

// Server is the configuration of the side that listens.
func (id *Identity) Server(trust Trust) *tls.Config {
	c := id.common(trust)
	c.ClientAuth = tls.RequireAnyClientCert
	c.SessionTicketsDisabled = true // a resumed handshake would skip the check of the key
	return c
}

// Client is the configuration of the side that dials.
func (id *Identity) Client(trust Trust) *tls.Config {
	c := id.common(trust)
	c.InsecureSkipVerify = true //nolint:gosec // the chain says nothing here; VerifyConnection checks the raw key
	return c
}

func (id *Identity) common(trust Trust) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{id.cert},
		VerifyConnection: func(cs tls.ConnectionState) error {
			key, err := PeerKey(cs)
			if err != nil {
				return err
			}
			return trust(key)
		},
	}
}

// PeerKey is the raw key that the other side of a connection proved to hold.
func PeerKey(cs tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, errors.New("peer showed no certificate")
	}
	key, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("peer's key is not ed25519")
	}
	return key, nil
}
