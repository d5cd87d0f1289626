package peerlink

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
)

// Reason says why a connection was turned away. Its text is the key under which status counts it.
type Reason string

// The reasons. The first two are a wrong configuration or a replaced node, and raise faults of their own.
const (
	WrongKey      Reason = "wrong-key"      // another key than the pinned one
	OtherVersion  Reason = "other-version"  // of the protocol
	OwnKey        Reason = "own-key"        // this node's own: a cloned disk, or a mirror
	UnknownKey    Reason = "unknown-key"    // nothing is pinned yet, and the path does not stay inside the chassis
	OwnSlot       Reason = "own-slot"       // the other side is the same node of a chassis
	OtherSite     Reason = "other-site"     // the right key, and it belongs to another site
	OtherChassis  Reason = "other-chassis"  // nothing is pinned yet, and the serials differ
	SecondPeer    Reason = "second-peer"    // two peers at once before one is pinned
	TooMany       Reason = "too-many"       // connections that have not greeted
	Malformed     Reason = "malformed"      // no frame, no greeting, a frame too long
	NoTLS         Reason = "no-tls"         // no handshake came about
	reasonUnknown Reason = "not-understood" // none of these
)

// What is dropped inside an authenticated connection. The first is ordinary: every message goes out on every path, and
// again when a path comes back.
const (
	Repeated       = "repeated"        // a message that was taken already
	OutOfOrder     = "out-of-order"    // a message before its turn; it comes again
	OtherSession   = "other-session"   // a frame of a session that is not held here
	EarlierProcess = "earlier-process" // a frame of the peer's duetd before its restart
)

// errRefused marks what is told as a fault: somebody is there who should not be.
var errRefused = errors.New("refused")

// refusal is an errRefused with its reason.
type refusal struct {
	reason Reason
	text   string
}

// Error is for people.
func (r *refusal) Error() string { return errRefused.Error() + ": " + r.text }

// Unwrap makes it an errRefused.
func (r *refusal) Unwrap() error { return errRefused }

func refuse(reason Reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// reasonOf an error that isRefusal.
func reasonOf(err error) Reason {
	var r *refusal
	var op *net.OpError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, errFrame):
		return Malformed
	case errors.As(err, &noTLS), errors.As(err, &op):
		return NoTLS
	}
	return reasonUnknown
}

// Refused counts the connections that were turned away since the start, by reason.
func (l *Link) Refused() map[Reason]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.reasons)
}

// Dropped counts the frames that were dropped inside authenticated connections since the start.
func (l *Link) Dropped() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.dropped
	return map[string]uint64{
		Repeated: d.repeated, OutOfOrder: d.outOfOrder, OtherSession: d.otherSession, EarlierProcess: d.earlierProcess,
	}
}

// drops is the machine's count.
type drops struct {
	repeated, outOfOrder, otherSession, earlierProcess uint64
}
