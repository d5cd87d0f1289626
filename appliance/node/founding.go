package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/site"
	"duet/ipmi/fence"
	"duet/witness/client"
	"duet/witness/register"
	"duet/witness/wire"
)

// The steps of a founding up to the committed epoch 1 and both legs of every volume (protocol.md 9.2).

// awaitPeer waits for a session with a fresh peer and returns its key.
func (s *setup) awaitPeer(ctx context.Context) (ed25519.PublicKey, error) {
	n := s.node
	var key ed25519.PublicKey
	err := await(ctx, func() (bool, error) {
		v := n.driver.View()
		if v.State.Session == 0 || !v.State.Peer.Hello {
			return false, nil
		}
		if !v.State.Peer.Fresh {
			return false, event.New(event.PeerNotFresh, "peer", n.peer().String())
		}
		key = v.PeerKey
		return len(key) == ed25519.PublicKeySize, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, event.New(event.NoPeer, "node", n.self.String(), "peer", n.peer().String())
	}
	return key, err
}

// makeDocument fills what setup adds, and lets the witness make the register: no CAS can match its content, so nobody
// can win it before the first PUSH.
func (s *setup) makeDocument(ctx context.Context, answers site.Document, peer ed25519.PublicKey) (site.Document, error) {
	n := s.node
	if err := checkDatabase(answers); err != nil {
		return site.Document{}, event.New(event.DocumentInvalid, "count", "1", "fields", "database").Because(err)
	}
	keys := map[membership.Node]ed25519.PublicKey{n.self: n.key.Public().(ed25519.PublicKey), n.peer(): peer}
	guids, err := readBMCs(ctx, answers)
	if err != nil {
		return site.Document{}, err
	}
	doc, err := site.Found(answers, site.Founding{
		Random: rand.Reader, KeyA: keys[membership.A], KeyB: keys[membership.B], GUIDA: guids[membership.A], GUIDB: guids[membership.B],
	})
	if err != nil {
		if wrong, ok := errors.AsType[site.FieldErrors](err); ok {
			var fields []string
			for _, f := range wrong {
				fields = append(fields, f.Field)
			}
			return doc, event.New(event.DocumentInvalid, "count", fmt.Sprint(len(wrong)), "fields", strings.Join(fields, ", ")).Because(err)
		}
		return doc, err
	}
	none := site.Runtime{}
	if err := fence.Check(target(doc, membership.A, none), target(doc, membership.B, none)); err != nil {
		return doc, reportedError(err)
	}
	if doc.Witness == nil {
		return doc, nil
	}
	rid, err := s.createRegister(ctx, doc)
	if err != nil {
		return doc, err
	}
	doc.SetRID(fmt.Sprintf("%x", rid))
	return doc, nil
}

// readBMCs asks each BMC who it is: a wrong password or address is found before anything is founded, and from now on an
// answer counts only from the BMC that was recorded.
func readBMCs(ctx context.Context, answers site.Document) (map[membership.Node]string, error) {
	guids := map[membership.Node]string{}
	for _, node := range []membership.Node{membership.A, membership.B} {
		b := answers.Node(node.String()).BMC
		if b == nil {
			continue
		}
		guid, err := readBMC(ctx, node, *b)
		if err != nil {
			return nil, reportedError(err)
		}
		guids[node] = guid
	}
	return guids, nil
}

func readBMC(ctx context.Context, node membership.Node, b site.BMC) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bmcWait)
	defer cancel()
	return fence.Identify(ctx, fence.Node(node), fence.BMCConfig{Address: b.Address, User: b.User, Password: fence.Secret(string(b.Password))})
}

func (s *setup) createRegister(ctx context.Context, doc site.Document) (register.ID, error) {
	c, err := s.node.witnessClient(doc.Witness)
	if err != nil {
		return register.ID{}, err
	}
	defer c.Close()
	id, err := parseID(doc.SiteID)
	if err != nil {
		return register.ID{}, err
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return register.ID{}, err
	}
	reply, err := c.Do(ctx, wire.Request{Op: wire.Create, Site: register.ID(id), Nonce: binary.LittleEndian.Uint64(nonce[:])})
	switch {
	case errors.Is(err, client.ErrKeyRefused), errors.Is(err, client.ErrServerKey):
		return register.ID{}, event.New(event.WitnessRefused, "address", doc.Witness.Address, "reason", err.Error())
	case err != nil:
		return register.ID{}, event.New(event.WitnessSilent, "address", doc.Witness.Address, "seconds",
			fmt.Sprint(int(registerWait.Seconds()))).Because(err)
	case reply.Result != wire.OK:
		return register.ID{}, event.New(event.WitnessRefused, "address", doc.Witness.Address, "reason", reply.Result.String())
	}
	return reply.RID, nil
}

// found gives the order of R27 and waits until both nodes have recorded epoch 1. A cut begins it again in the next
// session, with a register that no earlier order has named: a vote of the cut founding may still be on its way to the
// old one. An order that was given may come about at any time until its session ends, so the document stays where it is
// when this gives up; a fresh node forgets it at its next start.
func (s *setup) found(ctx context.Context, doc site.Document) error {
	n := s.node
	var orders foundingOrders
	return await(ctx, func() (bool, error) {
		switch step := orders.next(n.driver.View().State); step {
		case foundingDone:
			return true, nil
		case foundingRegister:
			if doc.Witness == nil {
				return false, nil
			}
			rid, err := s.createRegister(ctx, doc)
			if err != nil {
				return false, err
			}
			doc.SetRID(fmt.Sprintf("%x", rid))
		case foundingOrder:
			order, body, err := foundingOf(doc, n.self)
			if err != nil {
				return false, err
			}
			if err := n.store.SaveDocument(doc); err != nil {
				return false, fmt.Errorf("site document: %w", err)
			}
			n.driver.Tell(msgDocument, body)
			n.driver.Found(order)
		case foundingWait:
		}
		return false, nil
	})
}

// foundingStep is what a founding does next.
type foundingStep uint8

const (
	foundingWait     foundingStep = iota
	foundingRegister              // the document needs a register that no order has named
	foundingOrder                 // R27, in the present session
	foundingDone                  // both nodes have recorded epoch 1, and so has the register
)

// foundingOrders decides, one order a session and one register an order (membership duty 7). The document comes with a
// register that was never named.
type foundingOrders struct {
	asked membership.Session // of the last order
	named bool               // an order has named the register of the document
}

func (f *foundingOrders) next(st membership.State) foundingStep {
	switch {
	case !st.Fresh():
		if st.Committed() && st.Peer.Ep == st.Rec.Ep && st.Peer.Prep == 0 && st.Push.Nonce == 0 {
			return foundingDone
		}
	case st.Session == 0 || st.Session == f.asked || !st.Peer.Fresh || !st.Peer.Hello:
	case f.named:
		f.named = false
		return foundingRegister
	default:
		f.asked, f.named = st.Session, true
		return foundingOrder
	}
	return foundingWait
}

// foundingOf is the order for the core and the body for the peer.
func foundingOf(doc site.Document, founder membership.Node) (membership.Found, []byte, error) {
	body, err := doc.Canonical()
	if err != nil {
		return membership.Found{}, nil, err
	}
	hash, err := doc.Hash()
	if err != nil {
		return membership.Found{}, nil, err
	}
	f := membership.Found{}
	if f.Site, err = parseID(doc.SiteID); err != nil {
		return f, nil, err
	}
	if doc.Witness != nil {
		f.Arb.Kind = membership.ArbWitness
		if f.Arb.RID, err = parseID(doc.Witness.RID); err != nil {
			return f, nil, err
		}
	}
	f.Owners, f.Legs = tables(doc, founder)
	f.Docs[membership.DocSite] = membership.DocRef{Ep: 1, Version: doc.Version, Hash: membership.Digest(hash)}
	return f, body, nil
}

// awaitLegs waits until the pair is committed and every volume runs on both legs.
func (s *setup) awaitLegs(ctx context.Context, say func(string)) error {
	n := s.node
	last := ""
	return await(ctx, func() (bool, error) {
		st := n.driver.View().State
		status, ok := n.driver.MirrorStatus(ctx)
		detail := "waiting for the mirror"
		done := ok && st.Committed() && st.Peer.Ep == st.Rec.Ep && st.Peer.Prep == 0 && st.Push.Nonce == 0 && status.LinkUp
		for _, v := range status.Volumes {
			if v.LegState != "uptodate" || v.Stage != "paired" {
				done, detail = false, fmt.Sprintf("volume %s: %s", v.Name, v.Stage)
			}
		}
		if !done && detail != last {
			last = detail
			say(detail)
		}
		return done, nil
	})
}
