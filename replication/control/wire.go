package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Limits of the socket. A message is one line of JSON.
const (
	maxMessageBytes = 1 << 20 // 32 volumes with all their fields take some 20 KiB
	maxQueuedEvents = 256     // a client that does not read loses its connection and asks again
	protocolVersion = 1
)

// The operations of a request.
const (
	opConfigure = "configure"
	opGrant     = "grant"
	opRevoke    = "revoke"
	opCopy      = "copy"
	opDrain     = "drain"
	opReadmit   = "readmit"
	opScrub     = "scrub"
	opStatus    = "status"
)

// message is everything that travels: the greeting, requests, replies and events.
type message struct {
	Version  int    `json:"version,omitempty"`  // greeting
	Instance string `json:"instance,omitempty"` // greeting

	ID      uint64   `json:"id,omitempty"` // request and its reply
	Op      string   `json:"op,omitempty"`
	Config  *Config  `json:"config,omitempty"`
	Grant   *Grant   `json:"grant,omitempty"`
	Session uint64   `json:"session,omitempty"`
	Volumes []string `json:"volumes,omitempty"` // of a drain, and of its reply
	Error   string   `json:"error,omitempty"`
	Status  *Status  `json:"status,omitempty"`

	Event *Event `json:"event,omitempty"`
}

// ErrRefused is the answer to a request that mirrord understood and refused, for example an older grant.
var ErrRefused = errors.New("refused by duet-mirrord")

func writeMessage(w io.Writer, m *message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(b) >= maxMessageBytes {
		return fmt.Errorf("control message of %d bytes, the limit is %d", len(b), maxMessageBytes)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxMessageBytes) }

// readMessage takes one line. A line longer than the limit fails: the stream cannot be trusted after it.
func readMessage(r *bufio.Reader) (*message, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("control message longer than %d bytes", maxMessageBytes)
		}
		return nil, err
	}
	m := new(message)
	if err := json.Unmarshal(line, m); err != nil {
		return nil, fmt.Errorf("decode control message: %w", err)
	}
	return m, nil
}
