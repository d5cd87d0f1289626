package node

import (
	"context"
	"errors"
	"fmt"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
)

// The site document follows the rules of a write (protocol.md R25): it is durable on both nodes before it counts, its
// hash rides on the record, and managers act on it only when it is current. This is its way between the nodes.

// documents is the driver's hook: what the peer must have before it hears this node's record.
func (n *Node) documents() [][]byte {
	rec := n.driver.View().State.Rec
	var all [][]byte
	for _, ref := range [...]membership.DocRef{
		rec.Docs[membership.DocSite], rec.Pending[membership.DocSite], rec.Prep.Docs[membership.DocSite],
	} {
		doc, ok := n.store.Find(ref.Hash)
		if ref.Version == 0 || !ok {
			continue
		}
		body, err := doc.Canonical()
		if err != nil {
			n.log.Error("site document", "error", err.Error())
			continue
		}
		all = append(all, append([]byte{msgDocument}, body...))
	}
	return append(all, n.db.bodies(rec)...)
}

// holdsDocument is the driver's hook.
func (n *Node) holdsDocument(hash membership.Digest) bool {
	if _, ok := n.store.Find(hash); ok {
		return true
	}
	_, ok := n.db.records.Find(hash)
	return ok
}

// changeDocument makes the next version of the site document and returns when it is current here.
func (n *Node) changeDocument(ctx context.Context, change func(*site.Document)) error {
	doc, ok := n.document()
	if !ok {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	change(&doc)
	doc.Version++
	if err := site.Check(doc).Err(); err != nil {
		return err
	}
	body, err := doc.Canonical()
	if err != nil {
		return err
	}
	hash, err := doc.Hash()
	if err != nil {
		return err
	}
	if err := n.store.SaveCandidate(doc); err != nil {
		return fmt.Errorf("site document: %w", err)
	}
	st := n.driver.View().State
	if st.Session != 0 {
		n.driver.Tell(msgDocument, body)
	}
	ref := membership.DocRef{Ep: st.Rec.Ep, Version: doc.Version, Hash: membership.Digest(hash)}
	order := membership.ChangeDoc{Doc: membership.DocSite, Writer: membership.PairResource, Ref: ref}
	if err := n.order(ctx, "the change of the site document", order); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	err = await(ctx, func() (bool, error) { return n.driver.View().State.Rec.Docs[membership.DocSite].Hash == ref.Hash, nil })
	switch {
	case errors.Is(err, context.Canceled): // nobody waits any more; the change goes on
		return fmt.Errorf("the change of the site document was not waited for: %w", err)
	case err != nil:
		return event.New(event.DeadlinePassed, "what", "the change of the site document", "seconds", fmt.Sprint(int(orderWait.Seconds())))
	}
	return nil
}
