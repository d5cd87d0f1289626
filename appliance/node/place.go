package node

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/pair"
	"duet/appliance/pair/peerlink"
	"duet/appliance/site"
	"duet/replication/control"
	"duet/witness/client"
	"duet/witness/pinned"
)

// belongs is the driver's hook: what the record's site means here. The document on disk must be the one that the
// record names by its hash.
func (n *Node) belongs(rec membership.Record) (pair.Site, error) {
	if rec.Site.IsZero() {
		return pair.Site{}, n.leaveSite()
	}
	ref := rec.Docs[membership.DocSite]
	if rec.Ep == 0 {
		ref = rec.Prep.Docs[membership.DocSite]
	}
	doc, ok := n.store.Find(ref.Hash)
	if !ok {
		return pair.Site{}, event.New(event.DocumentUnread).Because(errors.New("the version that the record names is not here"))
	}
	if err := n.store.SaveDocument(doc); err != nil {
		return pair.Site{}, event.New(event.DocumentUnread).Because(err)
	}
	return n.placeIn(doc, rec.Site)
}

// leaveSite forgets a founding that never came about.
func (n *Node) leaveSite() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closeDevices()
	n.doc = nil
	if err := n.store.Forget(); err != nil {
		return fmt.Errorf("forget the site document: %w", err)
	}
	return nil
}

func (n *Node) closeDevices() {
	if n.witness != nil {
		_ = n.witness.Close()
		n.witness = nil
	}
	if n.former != nil {
		_ = n.former.Close()
		n.former = nil
	}
	if f := n.fencer; f != nil {
		n.tasks.Go(func() { _ = f.close() }) // a mute device may hold it for seconds, and the driver may not wait
		n.fencer = nil
	}
}

// placeIn makes everything that follows from a document: the mirror's configuration, the pinned peer, the witness and
// the ways to fence.
func (n *Node) placeIn(doc site.Document, id membership.ID) (pair.Site, error) {
	peerKey, err := pinned.ParseKey(doc.Node(n.peer().String()).Key)
	if err != nil {
		return pair.Site{}, fmt.Errorf("peer's key: %w", err)
	}
	out := pair.Site{Mirror: n.mirrorConfig(doc, peerKey), Pin: peerlink.Pin{Site: id, Key: peerKey}}
	for _, r := range doc.Resources() {
		for _, v := range r.Volumes {
			out.Volumes = append(out.Volumes, pair.SiteVolume{
				Slot: membership.VolumeSlot(v.Slot), ID: v.ID, Resource: membership.ResourceID(r.Slot), //nolint:gosec // bounded by site.Check
			})
		}
	}
	w, former, err := n.witnessClients(doc)
	if err != nil {
		return pair.Site{}, err
	}
	f, fresh, err := n.fencerFor(doc)
	if err != nil {
		return pair.Site{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !fresh {
		n.fencer = nil // it goes on
	}
	n.closeDevices()
	n.doc, n.witness, n.former, n.fencer = &doc, w, former, f
	if fresh {
		n.beginFencing(f)
	}
	if w != nil {
		v := &votes{now: w}
		if former != nil {
			v.former = former
		}
		out.Witness = v
	}
	if f.exists() {
		out.Fencer = f
	}
	return out, nil
}

func (n *Node) mirrorConfig(doc site.Document, peerKey ed25519.PublicKey) control.Config {
	cfg := control.Config{
		Site: doc.SiteID, Node: control.Node(n.self), BootID: n.bootID, IdentityPEM: n.keyPEM, PeerKey: peerKey,
		Port: n.boot.DataPort,
	}
	for _, p := range n.boot.Paths {
		if p.Data {
			cfg.Paths = append(cfg.Paths, control.Path{Name: p.Name, Local: p.Local, Peer: p.Peer, Clear: p.DataTLS == "off"})
		}
	}
	for _, v := range doc.Volumes {
		cfg.Volumes = append(cfg.Volumes, control.VolumeConfig{ID: v.ID, Name: v.Name, SizeBytes: v.SizeBytes})
	}
	return cfg
}

func (n *Node) witnessClients(doc site.Document) (now, former *client.Client, err error) {
	if now, err = n.witnessClient(doc.Witness); err != nil {
		return nil, nil, err
	}
	if former, err = n.witnessClient(doc.Former); err != nil && now != nil {
		err = errors.Join(err, now.Close())
	}
	return now, former, err
}

// witnessClient is nil for no witness.
func (n *Node) witnessClient(w *site.Witness) (*client.Client, error) {
	if w == nil {
		return nil, nil
	}
	key, err := pinned.ParseKey(w.Key)
	if err != nil {
		return nil, fmt.Errorf("witness key: %w", err)
	}
	c, err := client.New(client.Config{
		Address: w.Address, ServerKey: key, Identity: n.key, Log: n.log.With("subsystem", "witness"),
	})
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return c, nil
}

// adopt is the driver's hook: may this fresh node let the PREPARE of a founding through? The document must have come
// before it, must be the one it names, must name both nodes' keys as they are, and must tell the same tables.
func (n *Node) adopt(p membership.Prepare, peerKey ed25519.PublicKey) error {
	n.mu.Lock()
	doc := n.pending
	n.mu.Unlock()
	if doc == nil {
		return errors.New("no site document came before PREPARE")
	}
	hash, err := doc.Hash()
	if err != nil {
		return err
	}
	if membership.Digest(hash) != p.Tuple.Docs[membership.DocSite].Hash {
		return errors.New("the site document that came is not the one that PREPARE names")
	}
	id, err := parseID(doc.SiteID)
	if err != nil || id != p.Site {
		return errors.New("the site document names another site than PREPARE")
	}
	mine := n.key.Public().(ed25519.PublicKey)
	if doc.Node(n.self.String()).Key != pinned.FormatKey(mine) || doc.Node(n.peer().String()).Key != pinned.FormatKey(peerKey) {
		return errors.New("the site document does not name the keys of these two nodes")
	}
	owners, legs := tables(*doc, n.peer())
	if owners != p.Tuple.Owners || legs != p.Tuple.Legs {
		return errors.New("PREPARE and the site document name different volumes or owners")
	}
	if err := n.store.SaveDocument(*doc); err != nil {
		return fmt.Errorf("site document: %w", err)
	}
	return nil
}

// tables are the first owners and legs of a site: everything belongs to the founder, every leg is in sync (both new). A leg
// names the resource that owns its volume: the core asks by it who decides about the legs (R23, R24), and whether a node
// holds what it wants to start or is given (R8, R22).
func tables(doc site.Document, founder membership.Node) (membership.Owners, membership.Legs) {
	var owners membership.Owners
	var legs membership.Legs
	owners[membership.PairResource] = membership.Owner{Node: founder, Version: 1}
	for _, r := range doc.Resources() {
		owners[r.Slot] = membership.Owner{Node: founder, Version: 1}
	}
	for _, v := range doc.Volumes {
		resource := membership.ResourceID(v.Resource) //nolint:gosec // bounded by site.Check
		legs[v.Slot] = membership.VolumeLegs{Set: membership.Both, Resource: resource, Version: 1}
	}
	return owners, legs
}

// Messages between the two composition roots, inside a session.
const (
	msgDocument byte = 1 // canonical site document: at every session's begin, before the PREPARE of a founding, before DOCPREP
	msgRuntime  byte = 2 // runtime document: at every session's begin and after every change
	msgTestMe   byte = 3 // run the live fence test of the sender
	msgTestDone byte = 4 // its outcome in words; empty: proven

	msgFenceProof byte = 32 // how the paths to the receiver stand
	msgReach      byte = 33 // how the sender sees the witness

	msgRecord   byte = 48 // a version of the database record: at every session's begin, before DOCPREP
	msgDatabase byte = 49 // what the sender's manager of the database sees of its server
	msgPause    byte = 50 // pause (1) or resume (0) the replay of the receiver's standby; number of the question first
	msgPaused   byte = 51 // the number, and why not; nothing: it is so
)

// told is the driver's hook for these messages.
func (n *Node) told(kind byte, body []byte) {
	var err error
	switch kind {
	case msgDocument:
		err = n.toldDocument(body)
	case msgRuntime:
		err = n.toldRuntime(body)
	case msgTestMe:
		n.tasks.Go(n.setup.testForPeer)
	case msgTestDone:
		n.setup.toldTest(string(body))
	case msgFenceProof:
		err = n.toldProof(body)
	case msgReach:
		err = n.toldReach(body)
	case msgRecord:
		err = n.db.toldRecord(body)
	case msgDatabase:
		err = n.db.told(body)
	case msgPause:
		err = n.db.toldPause(body)
	case msgPaused:
		err = n.db.toldPaused(body)
	default:
		err = fmt.Errorf("kind %d is unknown", kind)
	}
	if err != nil {
		n.log.Error("message of the peer refused", "kind", int(kind), "error", err.Error())
	}
}

func (n *Node) toldDocument(body []byte) error {
	doc, err := site.Parse(body)
	if err == nil {
		err = site.Check(doc).Err()
	}
	if err != nil {
		return err
	}
	canonical, err := doc.Canonical()
	if err != nil {
		return err
	}
	if !bytes.Equal(canonical, body) {
		return errors.New("site document is not in its canonical form")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doc != nil && n.doc.SiteID != doc.SiteID {
		return errors.New("it is the document of another site")
	}
	n.pending = &doc
	if err := n.store.SaveCandidate(doc); err != nil {
		return fmt.Errorf("site document: %w", err)
	}
	return nil
}

// runDirFile is a file of the run directory.
func (n *Node) runDirFile(name string) string { return filepath.Join(n.boot.RunDir, name) }
