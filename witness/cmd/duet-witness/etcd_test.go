package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/witness/etcdstore/etcdtest"
	"duet/witness/register"
	"duet/witness/wire"
)

// certificates are an authority, etcd's certificate and a witness's, as files.
type certificates struct{ ca, serverCert, serverKey, clientCert, clientKey string }

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	issue := func(name string, template *x509.Certificate) (cert, key string) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer := authorityKey
		if template == authority {
			private = authorityKey
		}
		der, err := x509.CreateCertificate(rand.Reader, template, authority, &private.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalECPrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return write(name+".pem", "CERTIFICATE", der), write(name+".key", "EC PRIVATE KEY", keyDER)
	}
	leaf := func(serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "duet-witness"}, NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
	}
	var c certificates
	c.ca, _ = issue("ca", authority)
	c.serverCert, c.serverKey = issue("etcd", leaf(2))
	c.clientCert, c.clientKey = issue("witness", leaf(3))
	return c
}

// Two witness processes with one identity over one etcd that wants client certificates: either answers for the site, the
// other goes on when one is killed, and one without a certificate gets no answer from etcd and gives none.
func TestTwoProcessesOverOneEtcd(t *testing.T) {
	c := newCertificates(t)
	etcd := etcdtest.Start(t, "--cert-file", c.serverCert, "--key-file", c.serverKey, "--client-cert-auth", "--trusted-ca-file", c.ca)
	first := newProcess(t)
	a, b := first.enrol("s")
	first.extra = []string{"--store", "etcd://" + etcd.Endpoint, "--etcd-ca", c.ca, "--etcd-cert", c.clientCert, "--etcd-key", c.clientKey}
	second := newProcess(t)
	if err := os.RemoveAll(second.data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(second.data, os.DirFS(first.data)); err != nil { // the key and the enrolments
		t.Fatal(err)
	}
	second.key, second.extra = first.key, first.extra
	first.start()
	second.start()
	made, err := insist(t.Context(), first.client(a), wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID{1}, New: register.Content{Epoch: 1, Set: register.Both}})
	if err != nil || made.Result != wire.OK {
		t.Fatalf("%+v, %v\n%s", made, err, first.log.String())
	}
	vote := func(nonce uint64, set register.Set) wire.Request {
		return wire.Request{Op: wire.CAS, Nonce: nonce, RID: made.RID, Expected: register.Content{Epoch: 1, Set: register.Both}, New: register.Content{Epoch: 2, Set: set}}
	}
	if got, err := insist(t.Context(), first.client(a), vote(2, register.OnlyA)); err != nil || got.Result != wire.OK {
		t.Fatalf("%+v, %v", got, err)
	}
	first.kill()
	if got, err := insist(t.Context(), second.client(b), vote(3, register.OnlyB)); err != nil || got.Result != wire.Failed || got.Content.Set != register.OnlyA {
		t.Errorf("the loser, at the other process: %+v, %v", got, err)
	}
	if _, text, _ := call(t, "status", "--data", second.data); !strings.Contains(text, "etcd, healthy") {
		t.Error(text)
	}
	bare := newProcess(t)
	bare.extra = []string{"--store", "etcd://" + etcd.Endpoint, "--etcd-ca", c.ca}
	bare.start()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, text, _ := call(t, "status", "--data", bare.data); strings.Contains(text, "no answers: ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("etcd lets a witness without a certificate in, or status does not say")
		}
		<-time.After(50 * time.Millisecond)
	}
}
