package explore

import (
	"fmt"
	"strings"

	m "duet/appliance/membership"
)

// Trace plays a path and prints one line a step: the action, then what each node is and has.
func Trace(p *Params, path []Action) string {
	w, err := p.Begin()
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%4s %-20s %v | %v | %v\n", "", "begin", &w.N[0], &w.N[1], w.witness())
	for i, a := range path {
		err := p.Apply(&w, a)
		Canonical(&w)
		fmt.Fprintf(&out, "%4d %-20s %v | %v | %v\n", i+1, a, &w.N[0], &w.N[1], w.witness())
		if err != nil {
			fmt.Fprintf(&out, "     %v\n", err)
			break
		}
	}
	return out.String()
}

func (w *World) witness() string {
	flying := ""
	for _, x := range w.Packets {
		switch x.Kind {
		case CASRequest:
			flying += fmt.Sprintf(" %v:cas(%d,%v→%d,%v)", x.From, x.Expected.Ep, x.Expected.Set, x.Content.Ep, x.Content.Set)
		case PushRequest:
			flying += fmt.Sprintf(" %v:push(%d)", x.From, x.Content.Ep)
		case CreateRequest:
			flying += fmt.Sprintf(" %v:create(%d,%v)", x.From, x.Content.Ep, x.Content.Set)
		case CASReply, PushReply, CreateReply:
			flying += fmt.Sprintf(" →%v:%d(%d,%v)", x.From, x.Result, x.Content.Ep, x.Content.Set)
		default: // nothing for the others
		}
	}
	store := ""
	for k, reg := range w.Store {
		if reg.Known {
			store += fmt.Sprintf(" %d:(%d,%v)", k+1, reg.Content.Epoch, m.Set(reg.Content.Set))
		}
	}
	return fmt.Sprintf("reg%s%s acked %v", store, flying, w.Acked)
}

// String is one node in one line.
func (n *Node) String() string {
	d := &n.Disk
	disk := fmt.Sprintf("%d%v", d.Ep, d.Members)
	if d.Prep.Ep != 0 {
		disk += fmt.Sprintf("+%d", d.Prep.Ep)
	}
	switch d.Arb.Kind {
	case m.ArbNone:
		disk += " none"
	case m.ArbFence:
		disk += " fence"
	default:
		disk += fmt.Sprintf(" r%d", d.Arb.RID[1])
	}
	for v := range volumes {
		if l := d.Legs[v]; l.Set != m.Both && l.Version != 0 {
			disk += fmt.Sprintf(" v%d%v", v, l.Set)
			if l.Pending {
				disk += "+"
			}
		}
	}
	if d := n.Disk.Docs[m.DocDatabase]; d.Version != 0 {
		disk += fmt.Sprintf(" db %d.%d%v", d.Ep, d.Version, copiesOf(d))
	}
	if d := n.Disk.Pending[m.DocDatabase]; d.Version != 0 {
		disk += fmt.Sprintf("+%d.%d%v", d.Ep, d.Version, copiesOf(d))
	}
	if !n.Up {
		return fmt.Sprintf("%v off %s legs %v", n.Core.Cfg.Self, disk, n.Leg)
	}
	s := &n.Core
	out := fmt.Sprintf("%v %v %s s%d legs %v run %02b", s.Cfg.Self, s.Mode, disk, s.Session, n.Leg, n.Run>>1)
	if s.Mode != m.Solo {
		out += fmt.Sprintf(" lease %d", max(s.Lease-n.Clock, 0))
	}
	if s.PeerWait > n.Clock {
		out += fmt.Sprintf(" wait %d", s.PeerWait-n.Clock)
	}
	if d.Fenced == d.Ep && d.Ep != 0 {
		out += " fenced"
	}
	if len(n.Queue) > 0 {
		out += fmt.Sprintf(" next %s", strings.TrimPrefix(fmt.Sprintf("%T", n.Queue[0]), "membership."))
	}
	return out
}
