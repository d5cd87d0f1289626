package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// databaseAuthority is what membership gives the manager: postgres.Authority on the membership core. Nothing here decides: the
// grant is read from the core's state, a record is R25 with rule W, a move is R22, a wish is R8.
type databaseAuthority struct{ *database }

// Now reads the core's state at one moment.
func (a databaseAuthority) Now() (decide.Grant, decide.Docs) {
	_, slot, has := a.of()
	st := a.node.driver.View().State
	if !has || st.Fresh() {
		return decide.Grant{}, decide.Docs{}
	}
	now := membership.Boottime(boottime.Now())
	a.mu.Lock()
	started := a.started
	a.mu.Unlock()
	return databaseGrant(st, slot, started, now), a.docs(st)
}

// databaseGrant is pure. A node that is prepared takes part in nothing yet; what runs on it runs to the end of its lease (R15),
// as in a pair that compares its copies.
func databaseGrant(st membership.State, slot membership.ResourceID, started membership.Epoch, now membership.Boottime) decide.Grant {
	o := st.Rec.Owners[slot]
	g := decide.Grant{Mode: st.Mode, Epoch: st.Rec.Ep, Members: st.Rec.Members, Owner: o.Node, Version: o.Version, Deadline: st.Lease}
	switch {
	case st.Prepared():
		g.Mode = membership.Resolving
	case st.Mode == membership.Solo:
		g.Deadline = 0
		g.Joining = st.Session != 0 && st.Copy != membership.CopyIdle
	}
	serves := st.Mode == membership.Solo || st.Committed() && now < st.Lease
	g.Right = serves && st.Owns(slot) && started == st.Rec.Ep && st.Rec.Ep != 0
	g.Evidence = databaseEvidence(st, slot, now)
	return g
}

// databaseEvidence: in a pair the ownership came with a GIVE, after the giver had stopped; alone, by fencing, by a statement,
// or because the peer's lease is certainly over.
func databaseEvidence(st membership.State, slot membership.ResourceID, now membership.Boottime) decide.Evidence {
	switch {
	case st.Committed() && st.Owns(slot):
		return decide.EvidenceStated
	case st.Mode != membership.Solo:
		return decide.EvidenceNone
	case st.Rec.Fenced == st.Rec.Ep:
		return decide.EvidenceConfirmed
	case st.Owns(slot): // since before it was alone: taking it over would have recorded Fenced
		return decide.EvidenceOwn
	case st.PeerStopped(now):
		return decide.EvidenceWaited
	}
	return decide.EvidenceNone
}

// docs are the bodies of what the record names. One that is not here cannot be: the driver takes no message that names it.
func (a databaseAuthority) docs(st membership.State) decide.Docs {
	var docs decide.Docs
	read := func(ref membership.DocRef) decide.Record {
		if ref.Version == 0 {
			return decide.Record{}
		}
		r, ok := a.records.Find(ref.Hash)
		if !ok {
			a.node.log.Error("a version of the database record is not here", "version", ref.Version, "epoch", uint64(ref.Ep))
		}
		return r
	}
	docs.Current = read(st.Rec.Docs[membership.DocDatabase])
	docs.Pending = read(st.Rec.Pending[membership.DocDatabase])
	if st.Rec.Prep.Ep != 0 { // going on alone this node takes what it has prepared
		if r := read(st.Rec.Prep.Docs[membership.DocDatabase]); r.Newer(docs.Newest()) {
			docs.Pending = r
		}
	}
	docs.Writing = st.Writing[membership.DocDatabase].Version != 0
	return docs
}

// Want asks for the ownership; the driver asks the core.
func (a databaseAuthority) Want() {
	a.mu.Lock()
	a.wantedAt = membership.Boottime(boottime.Now())
	a.mu.Unlock()
	a.node.driver.Wake()
}

// errRecordLost: it may come to be or not; Now says what holds.
var errRecordLost = errors.New("the other node was lost while the record was written")

// WriteRecord tells the peer the body, then orders the version: the messages keep their order.
func (a databaseAuthority) WriteRecord(ctx context.Context, r decide.Record, growth bool) error {
	_, slot, has := a.of()
	if !has {
		return errors.New("the site has no database")
	}
	st := a.node.driver.View().State
	body := decide.AppendRecord(nil, r)
	hash, err := a.records.Save(body, a.named)
	if err != nil {
		return err
	}
	if st.Session != 0 {
		a.node.driver.Tell(msgRecord, body)
	}
	ref := membership.DocRef{Ep: st.Rec.Ep, Version: r.Version, Hash: hash}
	order := membership.ChangeDoc{Doc: membership.DocDatabase, Writer: slot, Ref: ref, Growth: growth}
	why, err := a.node.driver.Order(ctx, order)
	if err != nil {
		return fmt.Errorf("database record: %w", err)
	}
	if why != membership.Granted {
		return fmt.Errorf("database record: refused: %v", why)
	}
	return poll(ctx, func() (bool, error) {
		now := a.node.driver.View().State
		switch {
		case now.Writing[membership.DocDatabase] == ref:
			return false, nil
		case now.Rec.Docs[membership.DocDatabase] == ref && (now.Session == st.Session || now.Mode == membership.Solo):
			return true, nil
		}
		return false, errRecordLost
	})
}

// MoveOwner gives the database to the other node.
func (a databaseAuthority) MoveOwner(ctx context.Context) error {
	_, slot, has := a.of()
	if !has {
		return errors.New("the site has no database")
	}
	session := a.node.driver.View().State.Session
	why, err := a.node.driver.Order(ctx, membership.Move{Resource: slot})
	if err != nil {
		return fmt.Errorf("move of the database: %w", err)
	}
	if why != membership.Granted {
		return fmt.Errorf("move of the database: refused: %v", why)
	}
	return poll(ctx, func() (bool, error) {
		over, kept := moveOver(a.node.driver.View().State, slot, session)
		if kept {
			return false, errors.New("the database stays here")
		}
		return over, nil
	})
}

// named says whether the record names a version, so that it must stay here.
func (d *database) named(hash [32]byte) bool {
	rec := d.node.driver.View().State.Rec
	for _, docs := range [...]membership.Docs{rec.Docs, rec.Pending, rec.Prep.Docs} {
		if ref := docs[membership.DocDatabase]; ref.Version != 0 && ref.Hash == hash {
			return true
		}
	}
	return false
}

// pollEvery: a record is on two disks within milliseconds, and commits may wait for it.
const pollEvery = 5 * time.Millisecond

func poll(ctx context.Context, ready func() (bool, error)) error {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
