package tlsrecord

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
	"unsafe"

	"duet/witness/pinned"
)

func keys(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

type established struct {
	client  *tls.Conn
	raw     net.Conn // the server's side, behind the handshake
	session *Session
	state   tls.ConnectionState
}

// establish makes a real connection; early is what the client says before it could hear anything.
func establish(t testing.TB, early []byte) established {
	t.Helper()
	serverKey, serverIdentity := keys(t)
	_, clientIdentity := keys(t)
	clientConfig, err := pinned.Client(clientIdentity, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	serverConfig, err := pinned.Server(serverIdentity, func(ed25519.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := established{client: tls.Client(conn, clientConfig)}
	said := make(chan error, 1)
	go func() {
		err := e.client.Handshake()
		if err == nil && early != nil {
			_, err = e.client.Write(early)
		}
		said <- err
	}()
	e.raw, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.client.Close(); e.raw.Close() })
	for _, c := range []net.Conn{conn, e.raw} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	e.state, e.session, err = Server(t.Context(), e.raw, serverConfig)
	if err := errors.Join(err, <-said); err != nil {
		t.Fatal(err)
	}
	return e
}

// record reads the next record of the client, as it is on the wire.
func (e established) record(t testing.TB) []byte {
	t.Helper()
	header := make([]byte, HeaderSize)
	if _, err := io.ReadFull(e.raw, header); err != nil {
		t.Fatal(err)
	}
	size, err := Length(header)
	if err != nil {
		t.Fatal(err)
	}
	record := append(header, make([]byte, size-HeaderSize)...)
	if _, err := io.ReadFull(e.raw, record[HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	return record
}

// A client of crypto/tls talks to a session for a while and notices nothing.
func TestConversation(t *testing.T) {
	e := establish(t, []byte("said before the server was ready"))
	if got, err := e.session.Open(e.record(t)); err != nil || string(got) != "said before the server was ready" {
		t.Fatalf("%q, %v", got, err)
	}
	for i := range 300 { // the sequence number grows beyond a byte
		text := bytes.Repeat([]byte{byte(i)}, 1+i%PlaintextMax)
		if _, err := e.client.Write(text); err != nil {
			t.Fatal(err)
		}
		got, err := e.session.Open(e.record(t))
		if err != nil || !bytes.Equal(got, text) {
			t.Fatalf("message %d: %x, %v", i, got, err)
		}
		sealed, err := e.session.Seal(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.raw.Write(sealed); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, len(text))
		if _, err := io.ReadFull(e.client, back); err != nil || !bytes.Equal(back, text) {
			t.Fatalf("answer %d: %x, %v", i, back, err)
		}
	}
	if err := e.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.session.Open(e.record(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("goodbye: %v", err)
	}
}

func TestGoodbye(t *testing.T) {
	e := establish(t, nil)
	sealed, err := e.session.Goodbye(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.raw.Write(sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client heard %v", err)
	}
}

// Each suite of TLS 1.3, by the client half of the same secrets: crypto/tls chooses one by the machine.
func TestSuites(t *testing.T) {
	for suite, size := range map[uint16]int{tls.TLS_AES_128_GCM_SHA256: 32, tls.TLS_CHACHA20_POLY1305_SHA256: 32, tls.TLS_AES_256_GCM_SHA384: 48} {
		client, server := bytes.Repeat([]byte{1}, size), bytes.Repeat([]byte{2}, size)
		s, err := newSession(suite, client, server)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newSession(suite, server, client)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			sealed, err := c.Seal(nil, []byte("hello"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Open(sealed); err != nil || string(got) != "hello" {
				t.Errorf("%s, record %d: %q, %v", tls.CipherSuiteName(suite), i, got, err)
			}
		}
	}
	if _, err := newSession(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, make([]byte, 32), make([]byte, 32)); err == nil {
		t.Error("a suite of TLS 1.2")
	}
}

// The key and iv of RFC 8448 section 3, "{server} derive write traffic keys for application data", and its record.
func TestVectorRFC8448(t *testing.T) {
	secret := unhex(t, "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
	var h half
	if err := h.derive(tls.TLS_AES_128_GCM_SHA256, secret); err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "9f02283b6c9c07efc26bb9f2ac92e356"); !bytes.Equal(h.key[:16], want) {
		t.Errorf("key %x, want %x", h.key[:16], want)
	}
	if want := unhex(t, "cf782b88dd83549aadf1e984"); !bytes.Equal(h.iv[:], want) {
		t.Errorf("iv %x, want %x", h.iv, want)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	var out []byte
	for i := 0; i < len(text); i += 2 {
		out = append(out, nibble(text[i])<<4|nibble(text[i+1]))
	}
	return out
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// Whatever is not the next record, whole and unchanged, ends the session.
func TestRefuses(t *testing.T) {
	e := establish(t, nil)
	write := func(text string) []byte {
		if _, err := e.client.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return e.record(t)
	}
	first, second := write("first"), write("second")
	for name, records := range map[string][][]byte{
		"replayed":    {first, first},
		"out of turn": {second},
		"changed":     {flip(first, HeaderSize)},
		"tag changed": {flip(first, len(first)-1)},
		"shortened":   {first[:len(first)-1]},
		"empty":       {{23, 3, 3, 0, 0}},
		"plain alert": {{21, 3, 3, 0, 2, 1, 0}},
	} {
		s := *e.session
		var err error
		for _, record := range records {
			_, err = s.Open(bytes.Clone(record))
		}
		if !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Open(bytes.Clone(first)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: the session lives on: %v", name, err)
		}
		if _, err := s.Seal(nil, []byte("x")); err == nil {
			t.Errorf("%s: the dead session talks", name)
		}
	}
	if _, err := Length([]byte{23, 3, 3, 0x40, 0}); !errors.Is(err, ErrOversized) {
		t.Errorf("a record of 16 KiB: %v", err)
	}
	for kind, want := range map[byte]error{22: ErrRecord, typeAlert: ErrRecord} { // KeyUpdate; an alert that is none
		peer := Session{suite: e.session.suite, out: e.session.in}
		sealed, err := peer.seal(nil, []byte{24, 0, 0, 1, 0}, kind)
		if err != nil {
			t.Fatal(err)
		}
		s := *e.session
		if _, err := s.Open(sealed); !errors.Is(err, want) {
			t.Errorf("type %d: %v", kind, err)
		}
	}
}

func flip(record []byte, at int) []byte {
	changed := bytes.Clone(record)
	changed[at] ^= 1
	return changed
}

// The reason for this package: what one idle connection costs.
func TestSessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 120 {
		t.Errorf("%d bytes", size)
	}
}

func FuzzOpen(f *testing.F) {
	secret := bytes.Repeat([]byte{1}, 32)
	client, err := newSession(tls.TLS_AES_128_GCM_SHA256, secret, secret)
	if err != nil {
		f.Fatal(err)
	}
	fresh := *client
	sealed, err := client.Seal(nil, []byte("a request"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:7])
	f.Add([]byte{23, 3, 3, 0, 17, 1, 2, 3})
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) >= HeaderSize {
			if size, err := Length(record); err == nil && (size < HeaderSize || size > RecordMax) {
				t.Errorf("length %d", size)
			}
		}
		s := fresh
		if content, err := s.Open(bytes.Clone(record)); err == nil && string(content) != "a request" {
			t.Errorf("%x opens to %q", record, content)
		}
	})
}
