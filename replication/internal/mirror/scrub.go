package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/replication/control"
	"duet/replication/volume"
)

const (
	// scrubFirst and scrubEvery say when a volume is scrubbed without an order: so long after the daemon began, and so long
	// after its last pass ended.
	scrubFirst = time.Hour
	scrubEvery = 7 * 24 * time.Hour
	// scrubLook is how often it is looked whether one is due.
	scrubLook = 10 * time.Second
	// scrubBusy and scrubIdle bound a scrub, in bytes a second of each leg, while clients use the volume and while nobody does.
	scrubBusy = 16 << 20
	scrubIdle = 256 << 20
)

// Scrub has a volume scrubbed next, after those that were ordered before. It is refused where this node does not coordinate the
// volume with both legs in sync.
func (m *Mirror) Scrub(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.volumes[id]
	switch {
	case e == nil:
		return fmt.Errorf("unknown volume %s", id)
	case m.closed:
		return volume.ErrClosed
	case e.scrubbing.Running || e.scrubOrdered:
		return errors.New("the volume is being scrubbed")
	case !e.vol.PairedHere():
		return volume.ErrNotPaired
	}
	e.scrubOrdered = true
	select {
	case m.scrubAsked <- struct{}{}:
	default: // it is looked anyway
	}
	return nil
}

// scrubs makes one pass at a time, for as long as the daemon lives.
func (m *Mirror) scrubs() {
	defer close(m.scrubsOver)
	tick := time.NewTicker(scrubLook)
	defer tick.Stop()
	began := m.opts.Clock()
	for {
		for e := m.scrubDue(began); e != nil; e = m.scrubDue(began) {
			m.scrub(e)
		}
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		case <-m.scrubAsked:
		}
	}
}

// scrubDue takes the next volume to be scrubbed; nil: none now.
func (m *Mirror) scrubDue(began int64) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.opts.Clock()
	var due *entry
	for _, vc := range m.config.Volumes {
		e := m.volumes[vc.ID]
		if e == nil || m.closed || !e.vol.PairedHere() {
			continue
		}
		if e.scrubOrdered {
			due = e
			break
		}
		since, every := e.scrubTried, int64(scrubEvery)
		if since == 0 {
			since, every = began, int64(scrubFirst)
		}
		if due == nil && now-since >= every {
			due = e
		}
	}
	if due != nil {
		due.scrubOrdered = false
		due.scrubbing.Running, due.scrubbing.DoneBytes = true, 0
	}
	return due
}

// scrub makes one pass and notes how it ended. One that was cut short by a change of the pair is due again like one that ended.
func (m *Mirror) scrub(e *entry) {
	m.opts.Log.Info("scrub begins", "volume", e.id)
	err := e.vol.Scrub(m.ctx, m.pace(e))
	now := m.opts.Clock()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &e.scrubbing
	s.Running, s.Why = false, ""
	e.scrubTried = now
	if err != nil {
		s.Why = err.Error()
	} else {
		s.DoneBytes = e.vol.Size()
		s.Passes++
		s.Ended = now
	}
	m.opts.Log.Info("scrub ended", "volume", e.id, "error", err)
}

// pace keeps a scrub at its rate and tells how far it is.
func (m *Mirror) pace(e *entry) volume.Pace {
	last, ops := int64(0), e.vol.Operations()
	began := time.Now()
	return func(ctx context.Context, done int64) error {
		m.mu.Lock()
		e.scrubbing.DoneBytes = done
		m.mu.Unlock()
		rate := int64(scrubIdle)
		if now := e.vol.Operations(); now != ops {
			rate, ops = scrubBusy, now
		}
		wait := time.Duration(done-last)*time.Second/time.Duration(rate) - time.Since(began)
		last = done
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		began = time.Now()
		return ctx.Err()
	}
}

// scrubStatus is the part of a volume's status that the mirror has. The caller holds mu.
func (m *Mirror) scrubStatus(e *entry, st *control.VolumeStatus) {
	st.Scrub.Running, st.Scrub.Ordered = e.scrubbing.Running, e.scrubOrdered
	st.Scrub.DoneBytes, st.Scrub.Passes = e.scrubbing.DoneBytes, e.scrubbing.Passes
	st.Scrub.Ended, st.Scrub.Why = e.scrubbing.Ended, e.scrubbing.Why
}
