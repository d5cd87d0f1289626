package pair

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/pair/peerlink"
	"duet/replication/control"
)

// View is what others may know of the driver at one moment. It is a copy; nothing in it decides anything.
type View struct {
	State    membership.State
	At       membership.Boottime
	LaneUp   bool
	LanePath string
	PeerKey  ed25519.PublicKey
	Timers   [membership.TimerCount]membership.Boottime
	Watchdog bool // armed, and resets before W0
}

// View is the newest one.
func (d *Driver) View() View {
	return *d.view.Load()
}

func (d *Driver) publish() {
	d.view.Store(&View{
		State: d.state, At: d.now(), LaneUp: d.lane.up, LanePath: d.lane.path, PeerKey: d.peerKey, Timers: d.timers,
		Watchdog: d.dog != nil && d.dog.inTime,
	})
}

// showStopped: a driver that has stopped serving must not go on to be shown as paired or solo. The process may stay up to
// say why.
func (d *Driver) showStopped() {
	v := *d.view.Load()
	v.State.Mode, v.State.Session, v.State.Lease, v.LaneUp, v.Watchdog = membership.Init, 0, 0, false, false
	v.At = d.now()
	d.view.Store(&v)
}

// Paths is the state of every path to the peer.
func (d *Driver) Paths() []peerlink.PathStatus {
	return d.link.Paths()
}

// MirrorStatus asks duet-mirrord; false: it does not answer.
func (d *Driver) MirrorStatus(ctx context.Context) (control.Status, bool) {
	return d.mirror.status(ctx)
}

// Tell sends a message of the composition root to the peer's, inside the present session, reliable and in order.
func (d *Driver) Tell(kind byte, body []byte) {
	d.post(input{do: func() {
		d.link.Send(uint64(d.state.Session), append([]byte{kindApp, kind}, body...))
	}})
}

// Found gives the order of R27.
func (d *Driver) Found(f membership.Found) { d.postEvent(f) }

// Wake asks again for everything that is wanted, now.
func (d *Driver) Wake() { d.post(input{do: func() { d.wantAt = 0 }}) }

// Moment is one thing that happened, with both clocks: the one that counts and the one for people.
type Moment struct {
	What       string
	Detail     string
	BoottimeMS int64
	Wall       time.Time
}

// trail is the bounded list of what happened last.
type trail struct {
	mu      sync.Mutex
	moments []Moment
}

const maxMoments = 256

func (t *trail) note(what, detail string) {
	m := Moment{What: what, Detail: detail, BoottimeMS: boottime.Now() / int64(time.Millisecond), Wall: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.moments); n > 0 && t.moments[n-1].What == what && t.moments[n-1].Detail == detail {
		return // what repeats itself must not push out what happened once
	}
	if len(t.moments) >= maxMoments {
		t.moments = append(t.moments[:0], t.moments[maxMoments/4:]...)
	}
	t.moments = append(t.moments, m)
}

// Note adds a moment of the composition root's.
func (d *Driver) Note(what, detail string) { d.trail.note(what, detail) }

// Moments is what happened last, oldest first.
func (d *Driver) Moments() []Moment {
	d.trail.mu.Lock()
	defer d.trail.mu.Unlock()
	return append([]Moment(nil), d.trail.moments...)
}

// trace is where the flight recorder listens: every input with its number, and the effects it had.
func (d *Driver) trace(in membership.Input, effects []membership.Effect) {
	if !d.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	d.log.Debug("step", "number", d.number, "input", fmt.Sprintf("%T%+v", in.Event, in.Event), "now", int64(in.Now),
		"fresh", uint64(in.Fresh), "effects", len(effects))
	for i, e := range effects {
		d.log.Debug("effect", "number", d.number, "index", i, "effect", fmt.Sprintf("%T", e))
	}
}
