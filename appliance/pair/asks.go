package pair

import (
	"context"
	"fmt"
	"time"

	"duet/appliance/membership"
	"duet/witness/register"
	"duet/witness/wire"
)

// Limits of what runs beside the loop.
const (
	witnessPatience = 12 * time.Second // one call; the core repeats every 2 s with the same nonce, and a late reply counts
	maxWitnessCalls = 7                // of one attempt: patience / repeat, and one to spare
	fencePatience   = 15 * time.Second // the runner ends by itself within 10 s
	powerOnPatience = 60 * time.Second
)

// asks is what is under way outside. Owned by the loop.
type asks struct {
	witness     map[question]*attempt // the newest of each
	fenceCancel context.CancelFunc
	drain       *draining // the newest
	powering    bool
}

// question is what is asked of the witness. The claim of an override (R26) has attempts of its own: it is a CAS of before,
// and whatever else this node asks must not end its calls, nor the other way round.
type question struct {
	op    membership.WitnessOp
	claim bool
}

// attempt is one nonce at the witness, asked for once and again.
type attempt struct {
	nonce uint64
	calls int // under way
	ctx   context.Context
	end   context.CancelFunc
}

// attempt of this nonce. A new one ends the calls of the one before it: that nonce is dead, its answer would change
// nothing, and a site whose link comes and goes must not spend its calls on the dead.
func (d *Driver) attempt(op membership.WitnessOp, nonce uint64) *attempt {
	q := question{op, op == membership.OpCAS && membership.Nonce(nonce) == d.state.Claim.Nonce}
	if d.asks.witness == nil {
		d.asks.witness = map[question]*attempt{}
	}
	a := d.asks.witness[q]
	if a != nil && a.nonce == nonce {
		return a
	}
	if a != nil {
		a.end()
	}
	a = &attempt{nonce: nonce}
	a.ctx, a.end = context.WithCancel(d.ctx)
	d.asks.witness[q] = a
	return a
}

func (d *Driver) askWitness(e membership.AskWitness) {
	d.callWitness(membership.OpCAS, wire.Request{
		Op: wire.CAS, Nonce: uint64(e.Nonce), RID: register.ID(e.RID),
		Expected: register.Content{Epoch: register.Epoch(e.Expected.Ep), Set: register.Set(e.Expected.Set)},
		New:      register.Content{Epoch: register.Epoch(e.New.Ep), Set: register.Set(e.New.Set)},
	})
}

func (d *Driver) pushWitness(e membership.PushWitness) {
	d.callWitness(membership.OpPush, wire.Request{
		Op: wire.Push, Nonce: uint64(e.Nonce), RID: register.ID(e.RID),
		New: register.Content{Epoch: register.Epoch(e.Ep)},
	})
}

func (d *Driver) createRegister(e membership.CreateRegister) {
	d.callWitness(membership.OpCreate, wire.Request{
		Op: wire.Create, Nonce: uint64(e.Nonce), Site: register.ID(d.state.Rec.Site),
		New: register.Content{Epoch: register.Epoch(e.Content.Ep), Set: register.Set(e.Content.Set)},
	})
}

// callWitness asks once. Silence is no answer and no input; the core asks again.
func (d *Driver) callWitness(op membership.WitnessOp, r wire.Request) {
	w := d.site.Witness
	a := d.attempt(op, r.Nonce)
	if w == nil || a.calls >= maxWitnessCalls {
		return
	}
	a.calls++
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(a.ctx, witnessPatience)
		defer cancel()
		reply, err := w.Do(ctx, r)
		d.post(input{do: func() { a.calls-- }})
		if a.ctx.Err() != nil {
			return // nobody asks any more
		}
		if err != nil {
			d.log.Warn("witness does not answer", "op", r.Op.String(), "error", err.Error())
			return
		}
		d.log.Info("witness answers", "op", r.Op.String(), "result", reply.Result.String(),
			"epoch", uint64(reply.Content.Epoch), "set", membership.Set(reply.Content.Set).String())
		d.postEvent(membership.WitnessReply{
			Op: op, Nonce: membership.Nonce(reply.Nonce), RID: membership.ID(reply.RID), Result: witnessResult(reply.Result),
			Register: membership.RegisterContent{Ep: membership.Epoch(reply.Content.Epoch), Set: membership.Set(reply.Content.Set)},
		})
	})
}

// witnessResult: only OK is a success; whatever does not carry a register is unknown.
func witnessResult(r wire.Result) membership.WitnessResult {
	switch r {
	case wire.OK:
		return membership.WitnessOK
	case wire.Failed:
		return membership.WitnessFailed
	default:
		return membership.WitnessUnknown
	}
}

func (d *Driver) fence(e membership.Fence) {
	d.cancelFence()
	f := d.site.Fencer
	if f == nil {
		d.postLater(membership.FenceResult{Attempt: e.Attempt, Verdict: membership.Unknown})
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, fencePatience)
	d.asks.fenceCancel = cancel
	d.wg.Go(func() {
		defer cancel()
		verdict, detail := f.Fence(ctx, e)
		d.log.Info("fence evidence", "verdict", verdictWord(verdict), "detail", detail, "epoch", uint64(e.Epoch))
		d.trail.note("fence "+verdictWord(verdict), detail)
		d.postEvent(membership.FenceResult{Attempt: e.Attempt, Verdict: verdict})
	})
}

// postLater posts from the loop itself, which must not wait on its own queue.
func (d *Driver) postLater(e membership.Event) { d.wg.Go(func() { d.postEvent(e) }) }

func (d *Driver) cancelFence() {
	if d.asks.fenceCancel != nil {
		d.asks.fenceCancel()
		d.asks.fenceCancel = nil
	}
}

func verdictWord(v membership.Verdict) string {
	switch v {
	case membership.Confirmed:
		return "confirmed"
	case membership.Refused:
		return "refused"
	default:
		return "unknown"
	}
}

func (d *Driver) powerOn() {
	f := d.site.Fencer
	if f == nil {
		d.postLater(membership.PeerPowered{OK: false})
		return
	}
	if d.asks.powering {
		return
	}
	d.asks.powering = true
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, powerOnPatience)
		defer cancel()
		err := f.PowerOn(ctx)
		d.log.Info("peer powered on", "error", fmt.Sprint(err))
		d.post(input{do: func() { d.asks.powering = false }})
		d.postEvent(membership.PeerPowered{OK: err == nil})
	})
}

func (d *Driver) copyLegs(session membership.Session) {
	d.wg.Go(func() {
		if err := d.mirror.copyLegs(d.ctx, uint64(session)); err != nil {
			d.log.Warn("copy does not begin", "error", err.Error())
			d.postEvent(membership.CopyFailed{Session: session})
		}
	})
}
