package server

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"duet/witness/register"
	"duet/witness/tlsrecord"
	"duet/witness/wire"
)

// buffers of workers; a connection has none while it is parked.
var buffers = sync.Pool{New: func() any { return new([2 * tlsrecord.RecordMax]byte) }}

// serve answers what came on a connection, until nothing more is there. keep says whether it is to be parked again. An
// error is the death of the store, and nothing else.
func (s *Server) serve(ctx context.Context, p *parked) (keep bool, err error) {
	buffer := buffers.Get().(*[2 * tlsrecord.RecordMax]byte)
	defer buffers.Put(buffer)
	have := copy(buffer[:], p.rest)
	p.rest = nil
	for {
		n, err := unix.Read(int(p.fd), buffer[have:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if have > 0 {
				p.rest = append([]byte(nil), buffer[:have]...)
			}
			return true, nil
		case err != nil || n == 0:
			if have > 0 {
				s.refuse(p, Truncated)
			}
			return false, nil
		}
		p.heard = s.seconds()
		have += n
		used, keep, err := s.records(ctx, p, buffer[:have])
		if err != nil || !keep {
			return false, err
		}
		have = copy(buffer[:], buffer[used:have])
	}
}

// records answers every whole record in data and says how much that was.
func (s *Server) records(ctx context.Context, p *parked, data []byte) (used int, keep bool, err error) {
	for len(data)-used >= tlsrecord.HeaderSize {
		size, err := tlsrecord.Length(data[used:])
		if err != nil {
			reason := BadRecord
			if errors.Is(err, tlsrecord.ErrOversized) {
				reason = Oversized
			}
			s.refuse(p, reason, "error", err)
			return used, false, nil
		}
		if len(data)-used < size {
			break
		}
		content, err := p.session.Open(data[used : used+size])
		if err != nil {
			if !errors.Is(err, tlsrecord.ErrClosed) {
				s.refuse(p, BadRecord, "error", err)
			}
			return used, false, nil
		}
		if keep, err := s.conversation(ctx, p, content); err != nil || !keep {
			return used, false, err
		}
		used += size
	}
	return used, true, nil
}

func (s *Server) refuse(p *parked, reason Reason, attrs ...any) {
	s.refusals.note(reason, append([]any{"from", address(p.fd)}, attrs...)...)
}

// conversation answers the requests of one record. A request lies whole in a record.
func (s *Server) conversation(ctx context.Context, p *parked, content []byte) (keep bool, err error) {
	if len(content)%wire.RequestSize != 0 {
		s.refuse(p, Malformed, "bytes", len(content))
		return false, nil
	}
	for ; len(content) > 0; content = content[wire.RequestSize:] {
		request, err := wire.DecodeRequest([wire.RequestSize]byte(content))
		if err != nil {
			reason := Malformed
			if errors.Is(err, wire.ErrVersion) {
				reason = OldVersion
			}
			s.refuse(p, reason, "error", err)
			return false, nil
		}
		s.requests[request.Op].Add(1)
		reply, err := s.answer(ctx, p, request)
		if errors.Is(err, register.ErrNoAnswer) {
			s.refuse(p, NoAnswer, "op", request.Op.String(), "error", err)
			return false, nil // the closed connection is the only word that claims nothing
		}
		if err != nil {
			s.cfg.Log.Error("no answer can be given", "error", err)
			return false, err
		}
		s.results[reply.Result].Add(1)
		if !s.reply(p, reply) || (reply.Result == wire.UnknownSite && request.Op != wire.Create) {
			return false, nil
		}
	}
	return true, nil
}

// reply writes one frame. The kernel's buffer takes many hundreds of them: who lets it run full does not read.
func (s *Server) reply(p *parked, reply wire.Reply) bool {
	frame := reply.Encode()
	record, err := p.session.Seal(nil, frame[:])
	if err != nil {
		s.refuse(p, BadRecord, "error", err)
		return false
	}
	for {
		n, err := unix.Write(int(p.fd), record)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) || (err == nil && n < len(record)) {
			s.refuse(p, SlowReader)
		}
		return err == nil && n == len(record)
	}
}
