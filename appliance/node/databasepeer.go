package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres"
	"duet/appliance/postgres/decide"
)

// The two managers talk inside the session of their nodes. A word that is lost with it is said again in the next one.

const (
	sayEvery   = 400 * time.Millisecond // three of them within the time after which a word is not believed (decide.Config.PeerFresh)
	sayMoved   = 100 * time.Millisecond // where the log ends changes with every commit
	sayLook    = 20 * time.Millisecond  // a switchover waits for four words in turn
	tellAgain  = time.Second            // a record that the other node has not taken
	pauseLimit = 2 * time.Second        // of a pause or resume on the peer: the marker has 3 s for all of it
)

// databaseOther is the manager on the other node: postgres.Other.
type databaseOther struct{ *database }

// Peer is its last word; At is when it was heard here.
func (o databaseOther) Peer() decide.Peer {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.peer
}

// PauseReplay asks, and returns when it is so.
func (o databaseOther) PauseReplay(ctx context.Context, pause bool) error {
	if o.node.driver.View().State.Session == 0 {
		return errors.New("the other node is not connected")
	}
	answer := make(chan error, 1)
	o.mu.Lock()
	o.lastAsk++
	id := o.lastAsk
	o.asks[id] = answer
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.asks, id)
	}()
	on := byte(0)
	if pause {
		on = 1
	}
	o.node.driver.Tell(msgPause, append(binary.BigEndian.AppendUint64(nil, id), on))
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the other node did not pause or resume its replay: %w", ctx.Err())
	}
}

// say tells the peer what its manager needs, again and again: an old word is not believed there.
func (d *database) say(ctx context.Context, m *postgres.Manager, w *databaseWays) {
	tick := time.NewTicker(sayLook)
	defer tick.Stop()
	var last decide.Peer
	var at, told time.Time
	for {
		if time.Since(told) >= tellAgain && d.tellWriting() {
			told = time.Now()
		}
		word := m.Said()
		fresh := word.At != 0
		word.At = 0
		due := time.Since(at) >= sayEvery || word != last && time.Since(at) >= sayMoved || !sameButLog(word, last)
		if fresh && due && d.node.driver.View().State.Session != 0 {
			body, err := json.Marshal(databaseWord{word, d.shown(m, w)})
			if err != nil {
				d.node.log.Error("word of the database", "error", err.Error())
			}
			d.node.driver.Tell(msgDatabase, body)
			last, at = word, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tellWriting tells the record that is being written once more, and says whether there is one. The peer may have lost it: what cannot be
// stored there is not taken, and the order to prepare it, which is repeated, does not carry it.
func (d *database) tellWriting() bool {
	st := d.node.driver.View().State
	ref := st.Writing[membership.DocDatabase]
	if ref.Version == 0 || st.Session == 0 {
		return false
	}
	if r, ok := d.records.Find(ref.Hash); ok {
		d.node.driver.Tell(msgRecord, decide.AppendRecord(nil, r))
	}
	return true
}

// sameButLog: they differ at most in where the log ends.
func sameButLog(a, b decide.Peer) bool {
	a.At, a.End, a.Replay = b.At, b.End, b.Replay
	return a == b
}

// told takes what the other manager says. It runs on the driver's goroutine and is quick.
func (d *database) told(body []byte) error {
	var word databaseWord
	if err := json.Unmarshal(body, &word); err != nil {
		return fmt.Errorf("word of the database: %w", err)
	}
	p := word.Peer
	p.At = membership.Boottime(boottime.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := !sameButLog(p, d.peer)
	d.peer, d.peerShown = p, word.Shown
	if changed && d.manager != nil {
		d.manager.Wake()
	}
	return nil
}

// toldRecord keeps a version before the peer's DOCPREP or HELLO names it.
func (d *database) toldRecord(body []byte) error {
	_, err := d.records.Save(body, d.named)
	return err
}

func (d *database) toldPause(body []byte) error {
	if len(body) != 9 {
		return errors.New("not a pause of the replay")
	}
	d.node.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(d.node.ctx, pauseLimit)
		defer cancel()
		err := errors.New("no server runs there")
		if m := d.running(); m != nil {
			err = m.PauseReplay(ctx, body[8] == 1)
		}
		answer := append([]byte{}, body[:8]...)
		if err != nil {
			answer = append(answer, err.Error()...)
		}
		d.node.driver.Tell(msgPaused, answer)
	})
	return nil
}

func (d *database) toldPaused(body []byte) error {
	if len(body) < 8 {
		return errors.New("not an answer to a pause of the replay")
	}
	d.mu.Lock()
	answer := d.asks[binary.BigEndian.Uint64(body)]
	d.mu.Unlock()
	if answer == nil {
		return nil // late
	}
	var err error
	if len(body) > 8 {
		err = errors.New(string(body[8:]))
	}
	select {
	case answer <- err:
	default: // answered already
	}
	return nil
}

// bodies are what the peer must have before it hears this node's record.
func (d *database) bodies(rec membership.Record) [][]byte {
	var all [][]byte
	for _, docs := range [...]membership.Docs{rec.Docs, rec.Pending, rec.Prep.Docs} {
		ref := docs[membership.DocDatabase]
		if r, ok := d.records.Find(ref.Hash); ok && ref.Version != 0 {
			all = append(all, decide.AppendRecord([]byte{msgRecord}, r))
		}
	}
	return all
}
