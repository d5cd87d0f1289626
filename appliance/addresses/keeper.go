package addresses

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// askAgain is how long a conflict or an interface that is gone is left alone.
const askAgain = 5 * time.Second

// Address is a service address and where it belongs on this node.
type Address struct {
	IP        netip.Addr
	Interface string
}

// String is the form of the file of Config.Memory.
func (a Address) String() string { return a.IP.String() + " " + a.Interface }

// Phase is how far an address is on this node.
type Phase uint8

// The phases.
const (
	Absent  Phase = iota
	Asking        // nobody has answered the probe so far
	Held          // on the interface
	Claimed       // somebody else answers; it is asked for again
	Failed        // the interface or the kernel refuses; tried again
)

// String is the word of the status.
func (p Phase) String() string {
	return [...]string{"absent", "asking", "held", "claimed by another machine", "failed", "?", "?", "?"}[p&7]
}

// Config is everything a keeper needs.
type Config struct {
	Known  []Address // of the site: what an earlier process took and is not among these is dropped
	Memory string    // file on a file system that dies with the boot: what was taken
	// Conflict is told when another machine answers for an address, with its MAC, and when that is over. May be nil.
	Conflict func(a Address, mac string, on bool)
	Log      *slog.Logger
}

// Keeper holds the service addresses of this node. Its methods may be called from anywhere.
type Keeper struct {
	cfg Config

	mu    sync.Mutex
	taken map[Address]*holding
}

// holding is one address that is wanted here.
type holding struct {
	phase   Phase
	until   time.Time // monotonic; zero: no end
	adopted bool      // from an earlier process: what end the kernel has for it is not known
	cancel  context.CancelFunc
	done    chan struct{}
}

// gone: it was put on the interface and is not there any more: its end has come, or somebody has taken it away.
func (h *holding) gone(a Address) bool {
	if h.phase != Held {
		return false
	}
	there, err := a.present()
	return err == nil && !there
}

// New looks at what an earlier process has left: addresses that the site does not know are dropped, the others are held
// on, without a probe and announced again.
func New(cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg, taken: map[Address]*holding{}}
	left, err := k.recall()
	if err != nil {
		return nil, err
	}
	for _, a := range append(left, cfg.Known...) {
		if k.taken[a] != nil {
			continue
		}
		there, err := a.present()
		if err != nil {
			return nil, err
		}
		switch {
		case !there:
		case slices.Contains(cfg.Known, a):
			k.hold(a, time.Time{}, Held)
		default:
			k.cfg.Log.Warn("an address of before is dropped", "address", a.String())
			if err := a.remove(); err != nil {
				return nil, err
			}
		}
	}
	return k, k.remember()
}

// Take begins to hold an address, for this long from now on (0: without an end), or gives one that is held a new end.
// Asking and announcing go on beside. It is not an error that somebody else holds it: see Phase and Config.Conflict.
func (k *Keeper) Take(a Address, lifetime time.Duration) error {
	if !valid(a.IP) {
		return fmt.Errorf("%s cannot be a service address", a.IP)
	}
	var until time.Time
	if lifetime != 0 {
		until = time.Now().Add(lifetime)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.taken[a]; h != nil && !h.gone(a) {
		renew := h.phase == Held && (h.adopted || !h.until.Equal(until))
		h.until = until
		if !renew {
			return nil
		}
		h.adopted = false
		return a.put(lifetime)
	} else if h != nil {
		h.cancel()
	}
	k.hold(a, until, Asking)
	if err := k.remember(); err != nil {
		h := k.taken[a]
		h.cancel() // it waits for mu before it does anything, and then it has ended
		delete(k.taken, a)
		return err
	}
	return nil
}

// Drop takes an address away, now; nil also when it was not there.
func (k *Keeper) Drop(a Address) error {
	k.mu.Lock()
	h := k.taken[a]
	delete(k.taken, a)
	k.mu.Unlock()
	if h != nil {
		h.cancel()
		<-h.done
		if h.phase == Claimed && k.cfg.Conflict != nil {
			k.cfg.Conflict(a, "", false)
		}
	}
	if err := a.remove(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.remember()
}

// Phase says how far an address is here.
func (k *Keeper) Phase(a Address) Phase {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.taken[a]; h != nil && !h.gone(a) {
		return h.phase
	}
	return Absent
}

// Close ends what goes on beside. The addresses stay: the next process holds them on, or the kernel ends them.
func (k *Keeper) Close() {
	k.mu.Lock()
	var all []*holding
	for _, h := range k.taken {
		all = append(all, h)
	}
	k.mu.Unlock()
	for _, h := range all {
		h.cancel()
		<-h.done
	}
}

// hold begins to carry an address. The caller has mu, or nobody else has the keeper yet.
func (k *Keeper) hold(a Address, until time.Time, phase Phase) {
	ctx, cancel := context.WithCancel(context.Background())
	h := &holding{phase: phase, until: until, adopted: phase == Held, cancel: cancel, done: make(chan struct{})}
	k.taken[a] = h
	go func() {
		defer close(h.done)
		k.carry(ctx, a, h)
	}()
}

// carry asks, takes, announces.
func (k *Keeper) carry(ctx context.Context, a Address, h *holding) {
	for phase := h.phase; phase != Held; {
		claimed := phase == Claimed
		holder, err := whoHas(ctx, a)
		if ctx.Err() != nil {
			return
		}
		next := Held
		switch {
		case err != nil:
			next = Failed
			k.cfg.Log.Warn("an address cannot be asked for", "address", a.String(), "error", err.Error())
		case holder != nil:
			next = Claimed
		default:
			next = k.place(ctx, a, h)
		}
		phase = next
		k.mu.Lock()
		h.phase = next
		k.mu.Unlock()
		if k.cfg.Conflict != nil && (next == Claimed || claimed) {
			k.cfg.Conflict(a, holder.String(), next == Claimed)
		}
		if next != Held && !pause(ctx, askAgain) {
			return
		}
	}
	began := time.Now()
	for _, after := range announceAfter {
		if !pause(ctx, time.Until(began.Add(after))) {
			return
		}
		if err := announce(a); err != nil {
			k.cfg.Log.Warn("an address cannot be announced", "address", a.String(), "error", err.Error())
		}
	}
}

// place puts it on the interface, unless nobody wants it any more.
func (k *Keeper) place(ctx context.Context, a Address, h *holding) Phase {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil || k.taken[a] != h {
		return Asking
	}
	var left time.Duration
	if !h.until.IsZero() {
		if left = time.Until(h.until); left <= 0 {
			return Failed // its time has passed; a new end may come
		}
	}
	if err := a.put(left); err != nil {
		k.cfg.Log.Warn("an address cannot be taken", "address", a.String(), "error", err.Error())
		return Failed
	}
	return Held
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// remember writes what is taken, before it is taken. The caller has mu.
func (k *Keeper) remember() error {
	var lines []string
	for a := range k.taken {
		lines = append(lines, a.String()+"\n")
	}
	slices.Sort(lines)
	text := strings.Join(lines, "")
	if err := os.WriteFile(k.cfg.Memory+".new", []byte(text), 0o600); err != nil {
		return fmt.Errorf("memory of addresses: %w", err)
	}
	if err := os.Rename(k.cfg.Memory+".new", k.cfg.Memory); err != nil {
		return fmt.Errorf("memory of addresses: %w", err)
	}
	return nil
}

// recall reads it. A line that cannot be read is of no address that this package has written.
func (k *Keeper) recall() ([]Address, error) {
	b, err := os.ReadFile(k.cfg.Memory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("memory of addresses: %w", err)
	}
	var all []Address
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		text, name, ok := strings.Cut(s.Text(), " ")
		if ip, err := netip.ParseAddr(text); ok && err == nil {
			all = append(all, Address{ip, name})
		}
	}
	return all, nil
}
