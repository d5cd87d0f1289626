// Package pinned makes TLS configurations in which a connection is trusted by one raw ed25519 public key and by
// nothing else: no names, no authorities, no dates. A site may be cut off for years and its clocks may be
// wrong, so a certificate that expires would stop the mirror for no gain (architecture.md section 7).
//
// Both ends present a self-signed certificate made from their own key at start; the other end compares the
// public key inside it with the pinned one. TLS 1.3 only; session tickets are off, so every connection proves
// possession of its key anew. A wrong key fails the TLS handshake with ErrWrongKey on the side that noticed.
package pinned

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrWrongKey says that the other end proved a key that is not the pinned one.
var ErrWrongKey = errors.New("the peer has another key than the pinned one")

// Config is for both ends: it serves as client and as server configuration.
func Config(key ed25519.PrivateKey, peer ed25519.PublicKey) (*tls.Config, error) {
	if len(key) != ed25519.PrivateKeySize || len(peer) != ed25519.PublicKeySize {
		return nil, errors.New("a key has the wrong length")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("self-signed certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert,
		// Chain and name are not verified on purpose: VerifyConnection below is the whole check, and unlike
		// VerifyPeerCertificate it runs on every connection.
		InsecureSkipVerify:          true,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // replication.md 12.3
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrWrongKey
			}
			k, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || !k.Equal(peer) {
				return ErrWrongKey
			}
			return nil
		},
	}, nil
}

// ParseKey reads a PKCS #8 ed25519 private key in PEM.
func ParseKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("identity key is not PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity key is %T, not ed25519", k)
	}
	return key, nil
}
