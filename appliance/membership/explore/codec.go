package explore

import (
	"fmt"
	"slices"

	m "duet/appliance/membership"
)

// coder writes or reads a World: one walk for both directions, so they cannot differ. Nonces and sessions are
// renamed by their first appearance, times are relative to the node's clock and sequence numbers to its disk, because
// nothing compares them otherwise: worlds that differ only there are one state.
type coder struct {
	b        []byte
	pos      int
	reading  bool
	nonces   []m.Nonce
	sessions []m.Session
	clock    m.Boottime
	seq      uint64
}

// Encode is the canonical form of w.
func Encode(w *World, into []byte) []byte {
	c := coder{b: into[:0], nonces: make([]m.Nonce, 0, 24), sessions: make([]m.Session, 0, 4)}
	c.world(w)
	return c.b
}

// Decode reads what Encode wrote.
func Decode(b []byte) World {
	var w World
	c := coder{b: b, reading: true}
	c.world(&w)
	if c.pos != len(b) {
		panic(fmt.Sprintf("explore: %d bytes of %d read", c.pos, len(b)))
	}
	return w
}

func (c *coder) byte(v *uint8) {
	if c.reading {
		*v = c.b[c.pos]
		c.pos++
		return
	}
	c.b = append(c.b, *v)
}

// small codes any small integer as a byte, and panics when it is not small.
func small[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int8 | ~int64](c *coder, v *T) {
	b := uint8(*v)
	if !c.reading && T(b) != *v && T(int8(b)) != *v {
		panic(fmt.Sprintf("explore: %d does not fit the encoding", int64(*v)))
	}
	c.byte(&b)
	if c.reading {
		*v = T(b)
		if T(0)-1 < 0 {
			*v = T(int8(b))
		}
	}
}

func (c *coder) flag(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	c.byte(&b)
	*v = b == 1
}

// maybe codes whether something is there at all.
func (c *coder) maybe(there bool) bool {
	c.flag(&there)
	return there
}

func rename[T ~uint64](c *coder, v *T, names *[]T) {
	var b uint8
	if !c.reading && *v != 0 {
		i := slices.Index(*names, *v)
		if i < 0 {
			i = len(*names)
			*names = append(*names, *v)
		}
		b = uint8(i + 1)
	}
	c.byte(&b)
	if c.reading {
		*v = T(b)
	}
}

func (c *coder) nonce(v *m.Nonce)     { rename(c, v, &c.nonces) }
func (c *coder) session(v *m.Session) { rename(c, v, &c.sessions) }

// deadline: none, over, or so many ticks from now.
func (c *coder) deadline(v *m.Boottime) {
	var b uint8
	switch {
	case c.reading || *v == 0:
	case *v <= c.clock:
		b = 1
	default:
		b = uint8(1 + *v - c.clock)
	}
	c.byte(&b)
	if c.reading {
		*v = m.Boottime(b)
		if b > 1 {
			*v = c.clock + m.Boottime(b) - 1
		}
	}
}

// since: how many ticks ago; older than a lease is all the same.
func (c *coder) since(v *m.Boottime) {
	var b uint8
	if !c.reading && *v != 0 {
		b = uint8(1 + min(c.clock-*v, leaseTicks))
	}
	c.byte(&b)
	if c.reading {
		*v = 0
		if b != 0 {
			*v = c.clock + 1 - m.Boottime(b)
		}
	}
}

func (c *coder) world(w *World) {
	for i := range w.N {
		c.node(&w.N[i], m.Node(i))
	}
	c.net(&w.Net)
	for k := range w.Store {
		c.register(&w.Store[k])
	}
	c.byte(&w.RIDs)
	c.packets(w)
	for _, b := range w.Left.fields() {
		c.byte(b)
	}
	small(c, &w.Drift)
	for v := range volumes {
		c.byte(&w.Acked[v])
	}
	c.byte(&w.Writes)
	c.doc(&w.Doc)
	c.database(&w.Database)
	c.flag(&w.Forced)
	c.session(&w.Ghost.Session)
	if w.Ghost.Session != 0 {
		small(c, &w.Ghost.To)
		c.message(&w.Ghost.Message)
	}
	if c.reading {
		w.Nonces = 200 // above every renamed one
	}
}

func (b *Budget) fields() []*uint8 {
	return []*uint8{
		&b.Crash, &b.Cut, &b.Dup, &b.Unknown, &b.Late, &b.Write, &b.Restart, &b.Session, &b.Skew, &b.Ghost, &b.Leave, &b.Move,
		&b.Arbiter, &b.Witness, &b.Empty, &b.Force, &b.Doc, &b.LegLoss, &b.Copies,
	}
}

func (c *coder) node(n *Node, id m.Node) {
	if c.reading {
		n.Clock, n.Core.Cfg = clockBase, config(id)
		c.seq = 0
	} else {
		c.seq = n.Disk.Seq
	}
	c.clock = n.Clock
	c.flag(&n.Up)
	c.record(&n.Disk)
	for v := range volumes {
		c.byte(&n.Leg[v])
	}
	small(c, &n.Late)
	small(c, &n.Bad)
	c.flag(&n.Shot)
	if !n.Up {
		return
	}
	c.core(&n.Core, &n.Disk)
	c.queue(&n.Queue)
	c.byte(&n.Armed)
	c.session(&n.Wire)
	c.flag(&n.Granted)
	if n.Granted {
		c.grant(&n.Grant)
	}
	c.flag(&n.Hold)
	small(c, &n.Run)
	for v := range volumes {
		c.byte(&n.Pend[v])
		c.frame(&n.Out[v])
		c.frame(&n.Back[v])
	}
	c.nonce(&n.FenceOut)
	c.nonce(&n.Verdict.Attempt)
	small(c, &n.Verdict.Verdict)
	c.session(&n.CopyOut)
	c.session(&n.Proof.Session)
	c.digest(&n.Proof.Digest)
	c.out(&n.Proof.Out)
	small(c, &n.HoldLeg)
	small(c, &n.Drain)
	small(c, &n.Failed)
	c.session(&n.Synced.Session)
	if n.Synced.Session != 0 {
		small(c, &n.Synced.Volume)
		c.digest(&n.Synced.Digest)
	}
}

func (c *coder) register(r *Register) {
	if c.maybe(r.Known || r.Nonce != 0) {
		c.flag(&r.Known)
		c.nonce(&r.Nonce)
		small(c, &r.Content.Epoch)
		small(c, &r.Content.Set)
	}
}

func (c *coder) doc(d *m.DocRef) {
	small(c, &d.Ep)
	small(c, &d.Version)
}

// database: its hash is its content (copiesOf).
func (c *coder) database(d *m.DocRef) {
	if c.maybe(d.Version != 0) {
		c.doc(d)
		c.byte(&d.Hash[0])
	}
}

func (c *coder) docs(d *m.Docs) {
	c.doc(&d[m.DocSite])
	c.database(&d[m.DocDatabase])
}

// named is the document of a message.
func (c *coder) named(doc *m.DocID, ref *m.DocRef) {
	small(c, doc)
	if *doc == m.DocDatabase {
		c.database(ref)
	} else {
		c.doc(ref)
	}
}

func (c *coder) core(s *m.State, disk *m.Record) {
	if same := c.maybe(s.Rec == *disk); same {
		s.Rec = *disk
	} else {
		c.record(&s.Rec)
	}
	small(c, &s.Mode)
	c.session(&s.Session)
	c.deadline(&s.Lease)
	c.deadline(&s.PeerWait)
	c.flag(&s.Peer.Hello)
	c.flag(&s.Peer.Fresh)
	small(c, &s.Peer.Ep)
	small(c, &s.Peer.Prep)
	small(c, &s.Peer.High)
	c.nonce(&s.Ask.Nonce)
	if s.Ask.Nonce != 0 {
		c.rid(&s.Ask.RID)
		c.content(&s.Ask.Expected)
		c.content(&s.Ask.New)
	}
	c.content(&s.Remembered)
	c.nonce(&s.Fence)
	small(c, &s.Copy)
	c.tuple(&s.Plan)
	if c.maybe(!s.PlanSite.IsZero()) {
		s.PlanSite = theSite
	}
	c.since(&s.PlanSent)
	c.flag(&s.Proof.Done)
	c.digest(&s.Proof.Digest)
	c.out(&s.Proof.Out)
	c.tuple(&s.Offer)
	c.flag(&s.Committing)
	c.nonce(&s.Push.Nonce)
	if s.Push.Nonce != 0 {
		c.rid(&s.Push.RID)
		small(c, &s.Push.Ep)
	}
	c.flag(&s.PairedHere)
	c.changes(s)
	for i := range s.Beats {
		c.nonce(&s.Beats[i].Nonce)
		if s.Beats[i].Nonce == 0 {
			break // canonical keeps them together
		}
		c.since(&s.Beats[i].Sent)
	}
}

func (c *coder) record(r *m.Record) {
	diff := r.Seq - c.seq
	small(c, &diff)
	r.Seq = c.seq + diff
	if c.maybe(!r.Site.IsZero()) {
		r.Site = theSite
	}
	small(c, &r.Ep)
	small(c, &r.Members)
	small(c, &r.High)
	c.tuple(&r.Prep)
	c.tables(&r.Owners, &r.Legs)
	c.arb(&r.Arb)
	c.flag(&r.Consistent)
	small(c, &r.Fenced)
	c.docs(&r.Docs)
	c.docs(&r.Pending)
	small(c, &r.Forced.Counter)
	if r.Forced.Counter != 0 {
		small(c, &r.Forced.Ep)
		small(c, &r.Forced.Members)
		small(c, &r.Forced.Prep)
	}
}

// changes codes what R18-R26 keep in the state.
func (c *coder) changes(s *m.State) {
	c.nonce(&s.Create.Nonce)
	if s.Create.Nonce != 0 {
		small(c, &s.Create.Ep)
		small(c, &s.Create.Set)
	}
	small(c, &s.Change.Number)
	if s.Change.Number != 0 {
		c.arb(&s.Change.Target)
		c.flag(&s.Change.Dropped)
	}
	small(c, &s.Changes)
	small(c, &s.Draining)
	small(c, &s.Gives)
	c.docs(&s.Writing)
	c.nonce(&s.Claim.Nonce)
	if s.Claim.Nonce != 0 {
		c.rid(&s.Claim.RID)
		c.content(&s.Claim.Expected)
		c.content(&s.Claim.New)
	}
	for v := range volumes {
		small(c, &s.LegWork[v])
	}
	small(c, &s.BadLegs)
	c.legProof(&s.LegProof)
	c.legProof(&s.LegOffer.Proof)
	small(c, &s.LegOffer.Version)
}

func (c *coder) legProof(p *m.LegProof) {
	small(c, &p.Volume)
	c.digest(&p.Digest)
}

func (c *coder) arb(a *m.Arb) {
	small(c, &a.Kind)
	c.rid(&a.RID) // fence has one only in mutant N5
}

func (c *coder) rid(id *m.ID) {
	c.byte(&id[1])
	if c.reading && id[1] != 0 {
		*id = rid(id[1])
	}
}

func (c *coder) tuple(t *m.Prepared) {
	if !c.maybe(t.Ep != 0 || t.Owners[m.PairResource].Version != 0) { // the pair has an owner in every tuple
		return
	}
	small(c, &t.Ep)
	c.tables(&t.Owners, &t.Legs)
	c.arb(&t.Arb)
	c.docs(&t.Docs)
	c.digest(&t.Digest)
}

func (c *coder) tables(o *m.Owners, l *m.Legs) {
	for r := range resources {
		small(c, &o[r].Node)
		small(c, &o[r].Version)
	}
	for v := range volumes {
		small(c, &l[v].Set)
		c.flag(&l[v].Pending)
		small(c, &l[v].Version)
		if c.reading && l[v].Version != 0 {
			l[v].Resource = m.ResourceID(v + 1)
		}
	}
}

func (c *coder) digest(d *m.Digest) {
	for v := range volumes {
		c.byte(&d[v])
	}
}

func (c *coder) out(o *[2]m.Volumes) {
	bits := uint8(o[m.A] | o[m.B]<<volumes)
	c.byte(&bits)
	o[m.A], o[m.B] = m.Volumes(bits&(1<<volumes-1)), m.Volumes(bits>>volumes)
}

func (c *coder) content(r *m.RegisterContent) {
	small(c, &r.Ep)
	small(c, &r.Set)
}

func (c *coder) frame(f *Frame) {
	c.byte(&f.Write)
	if f.Write != 0 {
		c.session(&f.Session)
		small(c, &f.Epoch)
	}
}

func (c *coder) grant(g *m.GrantContent) {
	small(c, &g.Mode)
	small(c, &g.Epoch)
	small(c, &g.Prepared)
	c.session(&g.Session)
	small(c, &g.Members)
	c.tables(&g.Owners, &g.Legs)
	c.deadline(&g.Deadline)
}

func (c *coder) net(n *Net) {
	c.session(&n.Session)
	if c.reading {
		n.Count = 100 // sessions are limited by the budget; only the name must be new
	}
	for i := range n.Learned {
		c.flag(&n.Learned[i])
		for k := range n.Q[i] {
			if c.message(&n.Q[i][k]); n.Q[i][k] == nil {
				break
			}
		}
		for k := range n.Beats[i] {
			if c.message(&n.Beats[i][k]); n.Beats[i][k] == nil {
				break
			}
		}
	}
}

func (c *coder) packets(w *World) {
	for i := range w.Packets {
		x := &w.Packets[i]
		small(c, &x.Kind)
		if x.Kind == NoPacket {
			break
		}
		small(c, &x.From)
		c.byte(&x.RID)
		c.nonce(&x.Nonce)
		c.content(&x.Expected)
		c.content(&x.Content)
		small(c, &x.Result)
	}
}
