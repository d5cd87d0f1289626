package tlsrecord

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
)

// Server lets crypto/tls do the whole handshake on raw, and takes over what remains of the connection: its two keys.
// raw is left exactly behind the client's last handshake record. cfg must refuse TLS below 1.3 and session tickets (a
// ticket would be a record of crypto/tls after the handshake).
func Server(ctx context.Context, raw net.Conn, cfg *tls.Config) (tls.ConnectionState, *Session, error) {
	if cfg.MinVersion < tls.VersionTLS13 || !cfg.SessionTicketsDisabled {
		panic("tlsrecord: the configuration allows what it cannot take over")
	}
	// The secrets have no other way out of crypto/tls: ConnectionState exports what is derived for other protocols, and
	// QUIC's interface has another handshake. They go from here into the session and nowhere else.
	var secrets secretLines
	cfg = cfg.Clone()
	cfg.KeyLogWriter = &secrets
	conn := tls.Server(&wholeRecords{Conn: raw}, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, nil, err
	}
	state := conn.ConnectionState()
	session, err := newSession(state.CipherSuite, secrets.client, secrets.server)
	if err != nil {
		return tls.ConnectionState{}, nil, err
	}
	return state, session, nil
}

// secretLines takes the two traffic secrets from lines "LABEL RANDOM SECRET" (crypto/tls, Config.KeyLogWriter; the NSS
// key log format). crypto/tls writes each line in one call.
type secretLines struct{ client, server []byte }

func (s *secretLines) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return 0, errors.New("a line of another form")
	}
	secret := make([]byte, hex.DecodedLen(len(fields[2])))
	if _, err := hex.Decode(secret, fields[2]); err != nil {
		return 0, fmt.Errorf("key log: %w", err)
	}
	switch string(fields[0]) {
	case "CLIENT_TRAFFIC_SECRET_0":
		s.client = secret
	case "SERVER_TRAFFIC_SECRET_0":
		s.server = secret
	}
	return len(line), nil
}

// wholeRecords hands out no byte behind the record that its reader is in: crypto/tls reads as much as it gets, and what
// it would hold back of the first request could not be taken over.
type wholeRecords struct {
	net.Conn
	header [HeaderSize]byte
	got    int // bytes of the header
	body   int // bytes of the record still to come
}

func (w *wholeRecords) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if w.body > 0 {
		n, err := w.Conn.Read(p[:min(len(p), w.body)])
		w.body -= n
		return n, err
	}
	n, err := w.Conn.Read(p[:min(len(p), HeaderSize-w.got)])
	w.got += copy(w.header[w.got:], p[:n])
	if w.got == HeaderSize {
		w.got, w.body = 0, int(binary.BigEndian.Uint16(w.header[3:]))
	}
	return n, err
}
