package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"duet/witness/register"
	"duet/witness/wire"
)

// voter is a witness that answers when it is let, and counts what it was asked.
type voter struct {
	result wire.Result
	err    error
	after  <-chan struct{} // nil: at once
	asked  chan wire.Op
}

func newVoter(result wire.Result) *voter { return &voter{result: result, asked: make(chan wire.Op, 4)} }

func (v *voter) Do(ctx context.Context, r wire.Request) (wire.Reply, error) {
	v.asked <- r.Op
	if v.after != nil {
		select {
		case <-v.after:
		case <-ctx.Done():
			return wire.Reply{}, ctx.Err()
		}
	}
	if v.err != nil {
		return wire.Reply{}, v.err
	}
	return wire.Reply{Op: r.Op, Result: v.result, Nonce: r.Nonce, RID: r.RID}, nil
}

// While the witness is replaced, only one of two stores knows the register. Whichever answers first, the one that knows it
// decides; silence is never taken for "unknown".
func TestVotesOfTwoWitnesses(t *testing.T) {
	silent := errors.New("silent")
	never := make(chan struct{})
	for _, c := range []struct {
		name         string
		knows, other *voter
		order        string // who may answer first: knows, other, or nobody waits
		want         wire.Result
		fails        bool
	}{
		{"the one that knows answers first", newVoter(wire.OK), newVoter(wire.UnknownRegister), "knows", wire.OK, false},
		{"the one that knows answers last", newVoter(wire.OK), newVoter(wire.UnknownRegister), "other", wire.OK, false},
		{"it refuses: that is an answer", newVoter(wire.Failed), newVoter(wire.UnknownRegister), "other", wire.Failed, false},
		{"the other is silent for ever", newVoter(wire.OK), &voter{after: never, asked: make(chan wire.Op, 4)}, "", wire.OK, false},
		{"the one that knows is silent", &voter{err: silent, asked: make(chan wire.Op, 4)}, newVoter(wire.UnknownRegister), "other", 0, true},
		{"the one that knows is silent first", &voter{err: silent, asked: make(chan wire.Op, 4)}, newVoter(wire.UnknownRegister), "knows", 0, true},
		{"both are silent", &voter{err: silent, asked: make(chan wire.Op, 4)}, &voter{err: silent, asked: make(chan wire.Op, 4)}, "", 0, true},
		{"neither knows it", newVoter(wire.UnknownRegister), newVoter(wire.UnknownRegister), "", wire.UnknownRegister, false},
	} {
		for _, swapped := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				first := make(chan struct{})
				switch c.order {
				case "knows":
					c.other.after = first
				case "other":
					c.knows.after = first
				}
				v := &votes{now: c.knows, former: c.other}
				if swapped {
					v = &votes{now: c.other, former: c.knows}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				type answer struct {
					reply wire.Reply
					err   error
				}
				got := make(chan answer, 1)
				go func() {
					reply, err := v.Do(ctx, wire.Request{Op: wire.CAS, Nonce: 5, RID: register.ID{1}})
					got <- answer{reply, err}
				}()
				<-c.knows.asked // both are asked at once, without waiting for each other
				<-c.other.asked
				close(first)
				a := <-got
				if (a.err != nil) != c.fails || !c.fails && a.reply.Result != c.want {
					t.Fatalf("%v %v, want %v", a.reply.Result, a.err, c.want)
				}
				c.knows.after, c.other.after = keep(c.knows.after, first), keep(c.other.after, first)
			})
		}
	}
}

// keep forgets the gate of one run, so that the next may set its own.
func keep(after, gate <-chan struct{}) <-chan struct{} {
	if after == gate {
		return nil
	}
	return after
}

// A new register is made at the present witness only, and only it is asked how it stands.
func TestVotesAskTheFormerOnlyForItsRegister(t *testing.T) {
	now, former := newVoter(wire.OK), newVoter(wire.OK)
	v := &votes{now: now, former: former}
	for _, op := range []wire.Op{wire.Create, wire.Status} {
		if _, err := v.Do(t.Context(), wire.Request{Op: op}); err != nil {
			t.Fatal(err)
		}
	}
	if len(now.asked) != 2 || len(former.asked) != 0 {
		t.Fatalf("the present one was asked %d times, the former %d times", len(now.asked), len(former.asked))
	}
}
