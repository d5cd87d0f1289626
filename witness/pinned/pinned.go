// Package pinned makes mutual TLS 1.3 between parties that know each other's raw ed25519 key, and keeps the key of
// this party in a file.
//
// It promises that a connection exists only between the two pinned keys: certificates are self-signed wrappers of the
// key, and neither dates, names nor an authority count, because a site that was cut off for years, with clocks that
// start in 1970, must still be able to talk (architecture.md section 9). It refuses TLS below 1.3, session tickets
// (a resumed session would skip the proof of the key) and every key that the caller's check does not accept.
//
// The identity file is PKCS#8 PEM, mode 0600, written aside, synced, renamed, and its folder synced: a node never
// answers with a key that it could forget. A file that exists and cannot be read is an error, never replaced.
package pinned

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrKey is why a connection was refused: the other side proved a key that is not accepted here.
var ErrKey = errors.New("the other side's key is not accepted")

// Client is the configuration of a party that dials and accepts exactly one key.
func Client(identity ed25519.PrivateKey, server ed25519.PublicKey) (*tls.Config, error) {
	cfg, err := base(identity)
	if err != nil {
		return nil, err
	}
	// The chain, the names and the dates say nothing here; VerifyConnection below is the whole verification. It runs
	// on every handshake, after the other side has proved that it holds the private key.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = verify(func(key ed25519.PublicKey) error {
		if !key.Equal(server) {
			return ErrKey
		}
		return nil
	})
	return cfg, nil
}

// Server is the configuration of a party that listens; accept says whether a key may come in.
func Server(identity ed25519.PrivateKey, accept func(ed25519.PublicKey) error) (*tls.Config, error) {
	cfg, err := base(identity)
	if err != nil {
		return nil, err
	}
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = verify(accept)
	return cfg, nil
}

// PeerKey is the key that the other side of an established connection proved.
func PeerKey(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, fmt.Errorf("no certificate: %w", ErrKey)
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%T is not an ed25519 key: %w", state.PeerCertificates[0].PublicKey, ErrKey)
	}
	return key, nil
}

// FormatKey is the raw public key in base64, as people copy it.
func FormatKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// ParseKey reads what FormatKey wrote.
func ParseKey(text string) (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("key %q is not base64: %w", text, err)
	}
	if len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key %q has %d bytes, an ed25519 key has %d", text, len(raw), ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(raw), nil
}

func base(identity ed25519.PrivateKey) (*tls.Config, error) {
	cert, err := selfSigned(identity)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		// What is said here is not secret for long; a hybrid key share would double the bytes of a handshake
		// over a railway line (protocol.md section 11, cost).
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

func verify(accept func(ed25519.PublicKey) error) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		key, err := PeerKey(state)
		if err != nil {
			return err
		}
		return accept(key)
	}
}

// selfSigned wraps the key in the certificate that TLS wants. Its dates span everything a wrong clock can say.
func selfSigned(identity ed25519.PrivateKey) (tls.Certificate, error) {
	if len(identity) != ed25519.PrivateKeySize {
		return tls.Certificate{}, fmt.Errorf("identity has %d bytes, an ed25519 private key has %d", len(identity), ed25519.PrivateKeySize)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "duet"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no well-defined end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, identity.Public(), identity)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: identity}, nil
}
