package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// The database record in the model: a version says which nodes hold every acknowledged commit, and that is all. Its owner
// acknowledges alone while its own record names it alone; a node may be promoted when it goes on and the newest record
// that it has names it. So the record is two locks, and rule W of the database (docs/postgres.md) says that one of them is
// always shut: what takes a copy away is recorded by the peer first, what adds one by the owner.

// databaseResource owns the record.
const databaseResource = m.ResourceID(1)

// copiesOf a version; the model's hash is its content.
func copiesOf(d m.DocRef) m.Set { return m.Set(d.Hash[0]) }

// newest is the version that a node believes, going on alone or not: as soloRecord of the core takes it.
func newest(r *m.Record) m.DocRef {
	d, p := r.Docs[m.DocDatabase], r.Pending[m.DocDatabase]
	if r.Prep.Ep != 0 {
		d = r.Prep.Docs[m.DocDatabase]
	}
	if newerDoc(p, d) {
		return p
	}
	return d
}

// beginDatabase: both nodes hold everything.
func (w *World) beginDatabase() {
	for i := range w.N {
		n := &w.N[i]
		n.Disk.Docs[m.DocDatabase] = m.DocRef{Ep: n.Disk.Ep, Version: 1, Hash: m.Digest{uint8(m.Both)}}
		n.Core.Rec = n.Disk
		w.Database = n.Disk.Docs[m.DocDatabase]
	}
}

// acknowledgeDatabase notes what its owner may build upon from now on: a version that is current here and that the other
// node, if it is a member, has too. One that names only its owner counts at once: it acknowledges alone from then on.
func (w *World) acknowledgeDatabase(id m.Node) {
	d, peer := &w.N[id].Disk, &w.N[id.Peer()].Disk
	for _, ref := range [2]m.DocRef{d.Docs[m.DocDatabase], peer.Docs[m.DocDatabase]} {
		alone := ref == d.Docs[m.DocDatabase] && (d.Members == m.Only(id) || copiesOf(ref) == m.Only(id))
		if newerDoc(ref, w.Database) && (alone || !newerDoc(ref, newest(d)) && !newerDoc(ref, newest(peer))) {
			w.Database = ref
		}
	}
}

// databaseKept is I12 for the database record.
func (w *World) databaseKept() error {
	top := max(w.N[m.A].Disk.Ep, w.N[m.B].Disk.Ep)
	for i := range w.N {
		d := &w.N[i].Disk
		if d.Ep == top && d.Members.Has(m.Node(i)) && newerDoc(w.Database, newest(d)) {
			have := newest(d)
			return fmt.Errorf("I12 document: %v has version %d.%d of the database record, acknowledged is %d.%d", m.Node(i),
				have.Ep, have.Version, w.Database.Ep, w.Database.Version)
		}
	}
	return nil
}

// twoLocks is I14: while the owner may acknowledge alone, the other node, if it can go on or does, is none that may be
// promoted. A prepared node can go on by its tuple only when the other one has committed it (R4, R5).
func (w *World) twoLocks() error {
	for i := range w.N {
		id := m.Node(i)
		d, peer := &w.N[id].Disk, &w.N[id.Peer()].Disk
		ref := d.Docs[m.DocDatabase]
		if copiesOf(ref) != m.Only(id) || d.Owners[databaseResource].Node != id || !d.Members.Has(id) {
			continue
		}
		goesOn := peer.Members.Has(id.Peer()) && peer.Ep >= d.Ep || peer.Prep.Ep != 0 && peer.Prep.Ep == d.Ep
		if last := newest(peer); goesOn && copiesOf(last).Has(id.Peer()) {
			return fmt.Errorf("I14 two-locks: %v may acknowledge alone by version %d.%d, %v may be promoted by %d.%d",
				id, ref.Ep, ref.Version, id.Peer(), last.Ep, last.Version)
		}
	}
	return nil
}
