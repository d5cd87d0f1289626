package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Reason is why somebody was refused. Its text is what status and log say, and stays as it is.
type Reason uint8

// The reasons, from the first byte of a stranger to the request of a node that knows everything and may not.
const (
	Overload        Reason = iota // too many connections or handshakes at once
	Handshake                     // no TLS 1.3 in time: silence, another protocol, an old TLS, a replayed handshake
	UnknownKey                    // a key that is not enrolled
	Revoked                       // a key that was, at its next word
	BadRecord                     // not the next record of the connection: replayed, changed, out of turn
	Oversized                     // a record larger than any of this protocol
	Truncated                     // the connection ended inside a record
	OldVersion                    // a request of another version of the protocol
	Malformed                     // a request that is none
	SlowReader                    // does not take its answers
	WrongNode                     // names another node than itself
	WrongSite                     // CREATE for a site that is not the caller's
	UnknownRegister               // a rid that this store did not make, or not for this site
	CorruptRegister               // a register that cannot be read
	NoAnswer                      // the store could not be asked: the connection is closed without a word
	reasonCount
)

var reasonTexts = [reasonCount]string{
	"overload", "handshake", "unknown key", "revoked", "bad record", "oversized", "truncated", "old version", "malformed",
	"slow reader", "wrong node", "wrong site", "unknown register", "corrupt register", "no answer",
}

// String is the reason as status and log say it.
func (r Reason) String() string { return reasonTexts[r] }

// refusals counts by reason, and logs few of many: a stranger that knocks all day must not fill a small disk.
type refusals struct {
	log    *slog.Logger
	counts [reasonCount]atomic.Uint64

	mu     sync.Mutex
	window [reasonCount]time.Time // when the present one began
	logged [reasonCount]int       // in it
	silent [reasonCount]uint64    // not logged, since the last line
}

const (
	logWindow    = time.Minute
	logPerWindow = 5 // lines of one reason
)

// note counts a refusal, and logs it if that was not done too often.
func (f *refusals) note(r Reason, attrs ...any) {
	f.counts[r].Add(1)
	f.mu.Lock()
	now := time.Now()
	if now.Sub(f.window[r]) > logWindow {
		f.window[r], f.logged[r] = now, 0
	}
	if f.logged[r]++; f.logged[r] > logPerWindow {
		f.silent[r]++
		f.mu.Unlock()
		return
	}
	silent := f.silent[r]
	f.silent[r] = 0
	f.mu.Unlock()
	attrs = append([]any{"reason", r.String()}, attrs...)
	if silent > 0 {
		attrs = append(attrs, "unlogged_before", silent)
	}
	f.log.Log(context.Background(), slog.LevelWarn, "refused", attrs...)
}

func (f *refusals) byReason() map[string]uint64 {
	counts := make(map[string]uint64)
	for r := range reasonCount {
		if n := f.counts[r].Load(); n > 0 {
			counts[r.String()] = n
		}
	}
	return counts
}
