package server

import (
	"context"
	"errors"

	"duet/witness/register"
	"duet/witness/wire"
)

// answer carries the request out. An error is the death of the store or ErrNoAnswer: the caller gets silence.
func (s *Server) answer(ctx context.Context, p *parked, q wire.Request) (wire.Reply, error) {
	reply := wire.Reply{Op: q.Op, Nonce: q.Nonce, RID: q.RID}
	site, caller, ok := s.cfg.Sites.Find(p.key[:])
	if !ok {
		s.refuse(p, Revoked)
		reply.Result = wire.UnknownSite
		return reply, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Store)
	defer cancel()
	owner := register.Owner{Name: site.Name, Keys: [2][32]byte{[32]byte(site.KeyA), [32]byte(site.KeyB)}}
	var r register.Register
	var err error
	done := true
	switch q.Op {
	case wire.Create:
		if !mayCreate(q.New, caller) {
			s.refuse(p, WrongNode, "site", site.Name, "op", q.Op.String())
			reply.Result = wire.Refused
			return reply, nil
		}
		r, err = s.cfg.Store.Create(ctx, owner, q.Site, q.Nonce, q.New)
	case wire.CAS:
		if q.New.Set != caller {
			s.refuse(p, WrongNode, "site", site.Name, "op", q.Op.String())
			reply.Result = wire.Refused
			return reply, nil
		}
		r, done, err = s.cfg.Store.CAS(ctx, owner, q.RID, q.Expected, q.New)
	case wire.Push:
		r, done, err = s.cfg.Store.Push(ctx, owner, q.RID, q.New.Epoch)
	case wire.Status:
		reply.RIDs, err = s.cfg.Store.List(ctx, owner)
	}
	if err != nil {
		reason := UnknownRegister
		switch {
		case errors.Is(err, register.ErrUnknownRegister):
			reply.Result = wire.UnknownRegister
		case errors.Is(err, register.ErrUnknownSite):
			reply.Result, reason = wire.UnknownSite, WrongSite
		case errors.Is(err, register.ErrCorrupt):
			reply.Result, reason = wire.Corrupt, CorruptRegister
		default:
			return wire.Reply{}, err
		}
		s.refuse(p, reason, "site", site.Name, "op", q.Op.String(), "error", err)
		return reply, nil
	}
	if reply.Result = wire.OK; !done {
		reply.Result = wire.Failed
	}
	if q.Op != wire.Status {
		reply.RID, reply.Content, reply.Sequence = r.RID, r.Content, r.Sequence
	}
	return reply, nil
}

// mayCreate is the rule of protocol.md section 11: {a,b}, {caller}, or {} with epoch 0.
func mayCreate(c register.Content, caller register.Set) bool {
	switch c.Set {
	case register.Nobody:
		return c.Epoch == 0
	case register.Both, caller:
		return true
	default:
		return false
	}
}
