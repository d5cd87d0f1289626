package explore

import (
	"fmt"

	m "duet/appliance/membership"
)

// queue codes the effects that a node has still to do.
func (c *coder) queue(q *[]m.Effect) {
	n := uint8(len(*q))
	c.byte(&n)
	if c.reading && n > 0 {
		*q = make([]m.Effect, n)
	}
	for i := range int(n) {
		if c.reading {
			(*q)[i] = c.readEffect()
		} else {
			c.writeEffect((*q)[i])
		}
	}
}

// Tags of the effects.
const (
	tagPersist uint8 = iota
	tagStop
	tagGrant
	tagRevoke
	tagSend
	tagClose
	tagAsk
	tagPush
	tagStart
	tagFence
	tagCancel
	tagCopy
	tagArm
	tagReport
	tagPower
	tagCreate
	tagDrain
)

func (c *coder) writeEffect(e m.Effect) {
	tag := func(t uint8) { c.b = append(c.b, t) }
	switch e := e.(type) {
	case m.Persist:
		tag(tagPersist)
		c.record(&e.Record)
	case m.Stop:
		tag(tagStop)
		c.stop(&e)
	case m.Grant:
		tag(tagGrant)
		c.grant(&e.Grant)
	case m.Revoke:
		tag(tagRevoke)
	case m.Send:
		tag(tagSend)
		c.message(&e.Message)
	case m.CloseSession:
		tag(tagClose)
	case m.AskWitness:
		tag(tagAsk)
		c.ask(&e)
	case m.PushWitness:
		tag(tagPush)
		c.push(&e)
	case m.Drain:
		tag(tagDrain)
		small(c, &e.Resources)
	case m.CreateRegister:
		tag(tagCreate)
		c.create(&e)
	case m.Start:
		tag(tagStart)
		c.start(&e)
	case m.Fence:
		tag(tagFence)
		c.fence(&e)
	case m.CancelFence:
		tag(tagCancel)
	case m.PowerOnPeer:
		tag(tagPower)
	case m.Copy:
		tag(tagCopy)
		c.session(&e.Session)
	case m.Arm:
		tag(tagArm)
		c.arm(&e)
	case m.Report: // for people only
		tag(tagReport)
	default:
		panic(fmt.Sprintf("explore: effect %T", e))
	}
}

func (c *coder) readEffect() m.Effect {
	var tag uint8
	c.byte(&tag)
	switch tag {
	case tagPersist:
		var e m.Persist
		c.record(&e.Record)
		return e
	case tagStop:
		return read(c, c.stop)
	case tagGrant:
		var e m.Grant
		c.grant(&e.Grant)
		return e
	case tagRevoke:
		return m.Revoke{}
	case tagSend:
		var e m.Send
		c.message(&e.Message)
		return e
	case tagClose:
		return m.CloseSession{}
	case tagAsk:
		return read(c, c.ask)
	case tagPush:
		return read(c, c.push)
	case tagDrain:
		var e m.Drain
		small(c, &e.Resources)
		return e
	case tagCreate:
		return read(c, c.create)
	case tagStart:
		return read(c, c.start)
	case tagFence:
		return read(c, c.fence)
	case tagCancel:
		return m.CancelFence{}
	case tagPower:
		return m.PowerOnPeer{}
	case tagCopy:
		var e m.Copy
		c.session(&e.Session)
		return e
	case tagArm:
		return read(c, c.arm)
	case tagReport:
		return m.Report{}
	}
	panic(fmt.Sprintf("explore: effect tag %d", tag))
}

func read[E m.Effect](_ *coder, f func(*E)) m.Effect {
	var e E
	f(&e)
	return e
}

func (c *coder) stop(e *m.Stop) {
	c.flag(&e.All)
	bits := uint8(e.Resources & 0x7f)
	if e.Resources>>7 != 0 {
		bits |= 0x80
	}
	c.byte(&bits)
	e.Resources = m.Resources(bits)
}

func (c *coder) ask(e *m.AskWitness) {
	c.rid(&e.RID)
	c.nonce(&e.Nonce)
	c.content(&e.Expected)
	c.content(&e.New)
}

func (c *coder) push(e *m.PushWitness) {
	c.rid(&e.RID)
	c.nonce(&e.Nonce)
	small(c, &e.Ep)
}

func (c *coder) create(e *m.CreateRegister) {
	c.nonce(&e.Nonce)
	c.content(&e.Content)
}

func (c *coder) start(e *m.Start) {
	small(c, &e.Resource)
	small(c, &e.Epoch)
}

func (c *coder) fence(e *m.Fence) {
	c.nonce(&e.Attempt)
	small(c, &e.Epoch)
}

// arm: when a timer fires is the environment's choice; only whether it is armed counts.
func (c *coder) arm(e *m.Arm) {
	small(c, &e.Timer)
	on := e.At != 0
	c.flag(&on)
	if c.reading && on {
		e.At = 1
	}
}

// message codes one message, or that there is none.
func (c *coder) message(msg *m.Message) {
	if c.reading {
		*msg = c.readMessage()
		return
	}
	c.writeMessage(*msg)
}

func (c *coder) writeMessage(msg m.Message) {
	tag := func(t uint8) { c.b = append(c.b, t) }
	switch x := msg.(type) {
	case nil:
		tag(0)
	case m.Hello:
		tag(1)
		seq := x.Record.Seq
		x.Record.Seq = c.seq // nobody compares the peer's
		c.record(&x.Record)
		x.Record.Seq = seq
	case m.Join:
		tag(2)
		small(c, &x.Ep)
		small(c, &x.High)
	case m.Prepare:
		tag(3)
		c.tuple(&x.Tuple)
	case m.PreparedMsg:
		tag(4)
		small(c, &x.Ep)
	case m.Commit:
		tag(5)
		small(c, &x.Ep)
	case m.BeatMsg:
		tag(6)
		c.beat(&x)
	case m.BeatAck:
		tag(7)
		b := m.BeatMsg(x)
		c.beat(&b)
	default:
		c.writeChange(msg)
	}
}

func (c *coder) beat(x *m.BeatMsg) {
	c.nonce(&x.Nonce)
	small(c, &x.Ep)
	small(c, &x.Prep)
	c.arb(&x.Arb)
}

func (c *coder) readMessage() m.Message {
	var tag uint8
	c.byte(&tag)
	switch tag {
	case 1:
		var x m.Hello
		c.record(&x.Record)
		return x
	case 2:
		var x m.Join
		small(c, &x.Ep)
		small(c, &x.High)
		return x
	case 3:
		x := m.Prepare{Site: theSite}
		c.tuple(&x.Tuple)
		return x
	case 4:
		var x m.PreparedMsg
		small(c, &x.Ep)
		return x
	case 5:
		var x m.Commit
		small(c, &x.Ep)
		return x
	case 6:
		var x m.BeatMsg
		c.beat(&x)
		return x
	case 7:
		var x m.BeatMsg
		c.beat(&x)
		return m.BeatAck(x)
	}
	return c.readChange(tag)
}
