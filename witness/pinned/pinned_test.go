package pinned

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// handshake brings both sides together over TCP and lets one byte travel.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{near, far} {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	c, s := tls.Client(near, client), tls.Server(far, server)
	var both sync.WaitGroup
	both.Go(func() {
		defer far.Close()
		if serverErr = s.Handshake(); serverErr == nil {
			_, serverErr = s.Write([]byte{1})
		}
	})
	both.Go(func() {
		defer near.Close()
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	})
	both.Wait()
	return clientErr, serverErr
}

func TestBothKeysCount(t *testing.T) {
	node, witness, stranger := newKey(t), newKey(t), newKey(t)
	only := func(want ed25519.PrivateKey) func(ed25519.PublicKey) error {
		return func(got ed25519.PublicKey) error {
			if !got.Equal(public(want)) {
				return ErrKey
			}
			return nil
		}
	}
	for _, test := range []struct {
		name           string
		dials, expects ed25519.PrivateKey
		ok             bool
	}{
		{"both known", node, witness, true},
		{"unknown client", stranger, witness, false},
		{"unknown server", node, stranger, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, err := Client(test.dials, public(test.expects))
			if err != nil {
				t.Fatal(err)
			}
			server, err := Server(witness, only(node))
			if err != nil {
				t.Fatal(err)
			}
			clientErr, serverErr := handshake(t, client, server)
			if ok := clientErr == nil && serverErr == nil; ok != test.ok {
				t.Errorf("client %v, server %v", clientErr, serverErr)
			}
			if !test.ok && !errors.Is(clientErr, ErrKey) && !errors.Is(serverErr, ErrKey) {
				t.Errorf("nobody says why: client %v, server %v", clientErr, serverErr)
			}
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		server, err := Server(witness, only(node))
		if err != nil {
			t.Fatal(err)
		}
		client := &tls.Config{InsecureSkipVerify: true}
		if clientErr, serverErr := handshake(t, client, server); clientErr == nil || serverErr == nil {
			t.Errorf("a client without a key comes in: %v, %v", clientErr, serverErr)
		}
	})
}

func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.pem")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	var keys [8]ed25519.PrivateKey
	var all sync.WaitGroup
	for i := range keys { // several processes at first start: one identity
		all.Go(func() {
			var err error
			if keys[i], err = LoadOrCreate(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, key := range keys {
		if !key.Equal(keys[0]) {
			t.Error("two identities")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for name, text := range map[string]string{"empty": "", "not PEM": "x", "not a key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s: the file was replaced", name)
		}
	}
}

func TestKeyText(t *testing.T) {
	key := public(newKey(t))
	if back, err := ParseKey(FormatKey(key)); err != nil || !back.Equal(key) {
		t.Errorf("%v, %v", back, err)
	}
	for _, text := range []string{"", "x", FormatKey(key[:31]), FormatKey(key) + "AAAA"} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
}
