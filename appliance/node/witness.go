package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/witness/client"
	"duet/witness/wire"
)

// votes asks the site's witness, and while it is being replaced the former one too: only the store that made a register
// knows it, and until the change is complete the record may still name the former's. Nothing else tells which one a
// request is for, and nothing else is needed: the other answers "unknown register".
type votes struct {
	now    asker
	former asker // nil: none
}

// asker is a connection to one witness.
type asker interface {
	Do(ctx context.Context, r wire.Request) (wire.Reply, error)
}

// Do is pair.Witness.
func (v *votes) Do(ctx context.Context, r wire.Request) (wire.Reply, error) {
	if v.former == nil || r.Op == wire.Create || r.Op == wire.Status {
		return v.now.Do(ctx, r)
	}
	type answer struct {
		reply wire.Reply
		err   error
	}
	answers := make(chan answer, 2)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range []asker{v.now, v.former} {
		go func() {
			reply, err := c.Do(ctx, r)
			answers <- answer{reply, err}
		}()
	}
	first := <-answers
	if first.err == nil && first.reply.Result != wire.UnknownRegister {
		return first.reply, nil
	}
	second := <-answers
	switch {
	case second.err == nil && second.reply.Result != wire.UnknownRegister:
		return second.reply, nil
	case first.err != nil:
		return wire.Reply{}, first.err // the one that is silent may be the one that knows it
	case second.err != nil:
		return wire.Reply{}, second.err
	}
	return second.reply, nil
}

// AddWitness admits a witness to a site that has none.
func (n *Node) AddWitness(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error {
	if doc, ok := n.document(); ok && doc.Witness != nil {
		return event.New(event.OrderRefused, "what", "a witness more", "reason", "the site has one, at "+doc.Witness.Address,
			"next", "Replace it: duet witness replace")
	}
	return n.setWitness(ctx, w, by, reason, progress)
}

// ReplaceWitness admits another witness in the place of the present one; without an address it makes a fresh register at
// the present one, for a witness that lost its store.
func (n *Node) ReplaceWitness(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error {
	doc, ok := n.document()
	switch {
	case ok && doc.Witness == nil:
		return event.New(event.NoWitness)
	case ok && w.Address == "":
		w = *doc.Witness
	}
	return n.setWitness(ctx, w, by, reason, progress)
}

// setWitness makes this witness the arbiter. It is asked first; nothing changes if it does not answer, or if the order
// would be refused. The former one stays in the document until no record names its register.
func (n *Node) setWitness(ctx context.Context, w site.Witness, by, reason string, progress func(string)) error {
	doc, ok := n.document()
	if !ok {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	const what = "the change of the witness"
	admit := membership.SetArbiter{Kind: membership.ArbWitness}
	if why := n.driver.View().State.Allows(admit); why != membership.Granted {
		return refusal(what, why)
	}
	if !n.replacing.CompareAndSwap(false, true) {
		return refusal(what, membership.RefusedBusy)
	}
	defer n.replacing.Store(false)
	w.RID = ""
	progress("asking the witness at " + w.Address)
	if _, err := n.askStatus(ctx, w); err != nil {
		return err
	}
	n.driver.Note("witness", w.Address+", by "+by+": "+reason)
	before := n.driver.View().State.Rec.Arb
	if doc.Witness == nil || doc.Witness.Address != w.Address || doc.Witness.Key != w.Key {
		progress("recording it in the site document")
		err := n.changeDocument(ctx, func(d *site.Document) {
			if d.Former == nil { // else a change that was cut off: the record still names a register of that one
				d.Former = d.Witness
			}
			d.Witness = &w
		})
		if err != nil {
			return err
		}
	}
	progress("making a register and changing the arbiter")
	if err := n.order(ctx, what, admit); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	err := await(wait, func() (bool, error) {
		st := n.driver.View().State
		return st.Rec.Arb.Kind == membership.ArbWitness && st.Rec.Arb != before && st.Change.Number == 0, nil
	})
	if err != nil {
		return event.New(event.DeadlinePassed, "what", what, "seconds", fmt.Sprint(int(orderWait.Seconds())))
	}
	if doc, _ = n.document(); doc.Former == nil {
		return nil
	}
	progress("forgetting the former one")
	return n.changeDocument(ctx, func(d *site.Document) { d.Former = nil })
}

// TestWitness asks this witness, or the site's when the address is empty, and returns the round trip.
func (n *Node) TestWitness(ctx context.Context, w site.Witness) (address string, rtt time.Duration, err error) {
	if w.Address == "" {
		doc, ok := n.document()
		if !ok {
			return "", 0, event.New(event.NotFounded, "node", n.self.String())
		}
		if doc.Witness == nil {
			return "", 0, event.New(event.NoWitness)
		}
		w = *doc.Witness
	}
	ctx, cancel := context.WithTimeout(ctx, testWitnessWait)
	defer cancel()
	rtt, err = n.askStatus(ctx, w)
	return w.Address, rtt, err
}

// testWitnessWait is below the API's limit for a request: two round trips that the register tolerates, with a handshake.
const testWitnessWait = 20 * time.Second

// askStatus opens a connection of its own: what is tested is the way, not a connection that stands already.
func (n *Node) askStatus(ctx context.Context, w site.Witness) (time.Duration, error) {
	c, err := n.witnessClient(&w)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return 0, err
	}
	var took time.Duration
	asked := time.Now()
	for range 2 { // the second without the handshake
		began := time.Now()
		reply, err := c.Do(ctx, wire.Request{Op: wire.Status, Nonce: binary.LittleEndian.Uint64(nonce[:])})
		nonce[0]++
		switch {
		case errors.Is(err, client.ErrKeyRefused), errors.Is(err, client.ErrServerKey):
			return 0, event.New(event.WitnessRefused, "address", w.Address, "reason", err.Error())
		case err != nil:
			return 0, event.New(event.WitnessSilent, "address", w.Address, "seconds", fmt.Sprint(int(time.Since(asked).Seconds()))).Because(err)
		case reply.Result != wire.OK:
			return 0, event.New(event.WitnessRefused, "address", w.Address, "reason", reply.Result.String())
		}
		took = time.Since(began)
	}
	return took, nil
}
