package tlsrecord

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
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
	if want, is := os.Getenv(wantSuite), tls.CipherSuiteName(e.state.CipherSuite); want != "" && is != want {
		t.Fatalf("the suite is %s, want %s", is, want)
	}
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

// The suites that crypto/tls chooses between: by AES in hardware, so a process that is told that it has none talks the
// other one.
func TestConversationWithoutAES(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestConversation$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=cpu.aes=off", wantSuite+"="+tls.CipherSuiteName(tls.TLS_CHACHA20_POLY1305_SHA256))
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestConversation")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// wantSuite names the environment variable with the suite that TestConversation has to talk.
const wantSuite = "TLSRECORD_WANT_SUITE"

// Each suite of TLS 1.3, by the client half of the same secrets. Both halves derive alike, so this says nothing about the
// keys: TestConversation and the vectors do.
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

// Keys, iv and first records of traces that others made: RFC 8448 section 3 (the server's ticket, its record 0, is not
// ours to make), and for the suite with SHA-384, which crypto/tls never chooses, the connection that "The Illustrated
// TLS 1.3 Connection" takes apart (tls13.xargs.org).
func TestVectors(t *testing.T) {
	var fifty []byte
	for i := range byte(50) {
		fifty = append(fifty, i)
	}
	for _, v := range []struct {
		name           string
		suite          uint16
		client, server string // traffic secrets
		key, iv        string // of the server
		said, content  string // the client's record 0
		answered       string // the server's record 1, with the same content; empty: the trace has none
	}{
		{
			name: "RFC 8448", suite: tls.TLS_AES_128_GCM_SHA256,
			client: "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
			server: "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
			key:    "9f02283b6c9c07efc26bb9f2ac92e356", iv: "cf782b88dd83549aadf1e984",
			said: "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2" +
				"977014bd1e3deae63aeebb21694915e4", content: string(fifty),
			answered: "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5" +
				"f0a21c0047c2abf332540dd032e167c2955d",
		},
		{
			name: "SHA-384", suite: tls.TLS_AES_256_GCM_SHA384,
			client: "9e47af27cb60d818a9ea7d233cb5ed4cc525fcd74614fb24b0ee59acb8e5aa7ff8d88b89792114208fec291a6fa96bad",
			server: "86c967fd7747a36a0685b4ed8d0e6b4c02b4ddaf3cd294aa44e9f6b0183bf911e89a189ba5dfd71fccffb5cc164901f8",
			key:    "01f78623f17e3edcc09e944027ba3218d57c8e0db93cd3ac419309274700ac27", iv: "196a750b0c5049c0cc51a541",
			said: "1703030015828139cb7b73aaabf5b82fbf9a2961bcde10038a32", content: "ping",
		},
	} {
		t.Run(v.name, func(t *testing.T) {
			s, err := newSession(v.suite, unhex(t, v.client), unhex(t, v.server))
			if err != nil {
				t.Fatal(err)
			}
			if key := unhex(t, v.key); !bytes.Equal(s.out.key[:len(key)], key) || !bytes.Equal(s.out.iv[:], unhex(t, v.iv)) {
				t.Errorf("key %x, iv %x", s.out.key, s.out.iv)
			}
			if got, err := s.Open(unhex(t, v.said)); err != nil || string(got) != v.content {
				t.Errorf("the client said %q, %v", got, err)
			}
			s.out.seq = 1
			if got, err := s.Seal(nil, []byte(v.content)); err != nil || v.answered != "" && !bytes.Equal(got, unhex(t, v.answered)) {
				t.Errorf("the server's record is %x, %v", got, err)
			}
		})
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	out, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
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
