package pair

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of hardware.md section 7: the reset comes watchdogTimeout after the last pet, a pet needs an acknowledgement
// that is at most ackFresh older than its send, so a node is reset at the latest 5.5 s after the send time of the last
// acknowledged beat, and W0 is 6 s.
const (
	watchdogTimeout = 5 * time.Second
	ackFresh        = 500 * time.Millisecond
	petIdle         = time.Second            // solo, or nothing runs here
	petPoll         = 100 * time.Millisecond // how soon a fresh ack is noticed
)

// pets is why the watchdog may be petted now. The driver writes it, the watchdog's thread reads it.
type pets struct {
	solo  atomic.Bool
	idle  func() bool  // nothing runs here: no workload, no live grant
	acked atomic.Int64 // send time of the newest beat that was acknowledged; 0: none

	grantedTo atomic.Int64 // this node's exports may be written until then
	hold      atomic.Bool  // reset is wanted: never again
}

// watchdog pets the device from a thread of its own. Petting is a write of one byte; 'V' is never written while
// anything runs, so a dying process does not disarm it (Documentation/watchdog/watchdog-api.rst, magic close).
type watchdog struct {
	f    *os.File
	pets *pets
	log  *slog.Logger
	now  func() int64
	end  chan struct{}
	once sync.Once
	done chan struct{}

	inTime bool // it resets before W0; one that does not still ends a hang, and people are told
}

// openWatchdog arms the device.
func openWatchdog(path string, p *pets, now func() int64, log *slog.Logger) (*watchdog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	w := &watchdog{f: f, pets: p, log: log, now: now, end: make(chan struct{}), done: make(chan struct{})}
	if err := setTimeout(int(f.Fd())); err != nil {
		log.Error("watchdog does not reset in time; its own timeout stays", "code", "SYS-9008", "error", err.Error())
	} else {
		w.inTime = true
	}
	go w.run()
	return w, nil
}

// setTimeout reads back: a driver may round, or have a fixed time of its own.
func setTimeout(fd int) error {
	want := int(watchdogTimeout.Seconds())
	if err := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, want); err != nil {
		return fmt.Errorf("set its timeout: %w", err)
	}
	got, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return fmt.Errorf("read its timeout: %w", err)
	}
	if got <= 0 || got > want {
		return fmt.Errorf("it waits %d s instead of %d s", got, want)
	}
	return nil
}

func (w *watchdog) run() {
	runtime.LockOSThread()
	defer close(w.done)
	t := time.NewTicker(petPoll)
	defer t.Stop()
	var last int64
	for {
		if w.due(last) {
			if _, err := w.f.Write([]byte{'p'}); err != nil {
				w.log.Error("watchdog cannot be petted", "error", err.Error())
			}
			last = w.now()
		}
		select {
		case <-t.C:
		case <-w.end:
			return
		}
	}
}

// due says whether a pet is allowed and worth it now.
func (w *watchdog) due(last int64) bool {
	p := w.pets
	switch {
	case p.hold.Load():
		return false
	case p.acked.Load() > last && w.now()-p.acked.Load() <= int64(ackFresh): // by its age now: this thread may be late too
		return true
	case w.now()-last < int64(petIdle):
		return false
	}
	return p.solo.Load() || p.idle()
}

// stop ends petting. The device is disarmed only on an orderly stop with nothing running here.
func (w *watchdog) stop() {
	w.once.Do(func() { close(w.end) })
	<-w.done
	if !w.pets.hold.Load() && w.pets.idle() {
		if _, err := w.f.Write([]byte{'V'}); err != nil {
			w.log.Error("watchdog cannot be disarmed", "error", err.Error())
		}
	}
	_ = w.f.Close()
}
