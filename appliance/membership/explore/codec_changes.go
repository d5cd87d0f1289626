package explore

import (
	m "duet/appliance/membership"
)

// The messages of R18 and R21a-R24, each written and read by the same function.

func (c *coder) writeChange(msg m.Message) {
	tag := func(t uint8) { c.b = append(c.b, t) }
	switch x := msg.(type) {
	case m.Yield:
		tag(8)
		c.yield(&x)
	case m.Give:
		tag(9)
		c.give(&x)
	case m.Taken:
		tag(10)
		g := m.Give(x)
		c.give(&g)
	case m.WDrop:
		tag(11)
		c.drop(&x)
	case m.WDropped:
		tag(12)
		small(c, &x.Number)
	case m.WSet:
		tag(13)
		d := m.WDrop(x)
		c.drop(&d)
	case m.DocPrepare:
		tag(14)
		c.named(&x.Doc, &x.Ref)
	case m.DocPrepared:
		tag(15)
		c.named(&x.Doc, &x.Ref)
	case m.DocCommit:
		tag(16)
		c.named(&x.Doc, &x.Ref)
	default:
		c.writeLegs(msg)
	}
}

func (c *coder) readChange(tag uint8) m.Message {
	switch tag {
	case 0:
		return nil
	case 8:
		var x m.Yield
		c.yield(&x)
		return x
	case 9:
		var x m.Give
		c.give(&x)
		return x
	case 10:
		var x m.Give
		c.give(&x)
		return m.Taken(x)
	case 11:
		var x m.WDrop
		c.drop(&x)
		return x
	case 12:
		var x m.WDropped
		small(c, &x.Number)
		return x
	case 13:
		var x m.WDrop
		c.drop(&x)
		return m.WSet(x)
	case 14:
		var x m.DocPrepare
		c.named(&x.Doc, &x.Ref)
		return x
	case 15:
		var x m.DocPrepared
		c.named(&x.Doc, &x.Ref)
		return x
	case 16:
		var x m.DocCommit
		c.named(&x.Doc, &x.Ref)
		return x
	}
	return c.readLegs(tag)
}

func (c *coder) writeLegs(msg m.Message) {
	tag := func(t uint8) { c.b = append(c.b, t) }
	switch x := msg.(type) {
	case m.LegBad:
		tag(17)
		small(c, &x.Volume)
	case m.LegOut:
		tag(18)
		c.legOut(&x)
	case m.LegOutOK:
		tag(19)
		y := m.LegCommit(x)
		c.legAt(&y)
	case m.LegPrepare:
		tag(20)
		c.legPrepare(&x)
	case m.LegPrepared:
		tag(21)
		y := m.LegCommit(x)
		c.legAt(&y)
	case m.LegCommit:
		tag(22)
		c.legAt(&x)
	}
}

func (c *coder) readLegs(tag uint8) m.Message {
	switch tag {
	case 17:
		var x m.LegBad
		small(c, &x.Volume)
		return x
	case 18:
		var x m.LegOut
		c.legOut(&x)
		return x
	case 19:
		var x m.LegCommit
		c.legAt(&x)
		return m.LegOutOK(x)
	case 20:
		var x m.LegPrepare
		c.legPrepare(&x)
		return x
	case 21:
		var x m.LegCommit
		c.legAt(&x)
		return m.LegPrepared(x)
	default:
		var x m.LegCommit
		c.legAt(&x)
		return x
	}
}

func (c *coder) yield(x *m.Yield) {
	seq := x.Record.Seq
	x.Record.Seq = c.seq // nobody compares the peer's
	c.record(&x.Record)
	if !c.reading {
		x.Record.Seq = seq
	}
}

func (c *coder) give(x *m.Give) {
	small(c, &x.Resource)
	small(c, &x.Version)
}

func (c *coder) drop(x *m.WDrop) {
	small(c, &x.Number)
	c.arb(&x.Target)
}

func (c *coder) legAt(x *m.LegCommit) {
	small(c, &x.Volume)
	small(c, &x.Version)
}

func (c *coder) legOut(x *m.LegOut) {
	small(c, &x.Volume)
	small(c, &x.Out)
	small(c, &x.Version)
}

func (c *coder) legPrepare(x *m.LegPrepare) {
	small(c, &x.Volume)
	small(c, &x.Version)
	c.digest(&x.Digest)
}
