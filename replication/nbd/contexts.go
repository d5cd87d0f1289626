package nbd

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"duet/replication/block"
)

// metaContext is a question about blocks that a client may select for BLOCK_STATUS; its number is the id on the wire.
type metaContext uint32

const (
	// baseAllocation of proto.md: holes and zeroes. Legs are thick and nothing remembers zeroes, so all is data.
	baseAllocation metaContext = 1
	// duetDirty is our own: bit 0 of a descriptor says that the other node's leg may lack the blocks.
	duetDirty metaContext = 2
)

func (m metaContext) String() string {
	if m == duetDirty {
		return "x-duet:dirty"
	}
	return "base:allocation"
}

// extentsMax is how many descriptors of one context a reply has at most; proto.md lets a server describe less than it
// was asked for, and the client asks for the rest. What they need is charged to the budget.
const (
	extentsMax     = 1024
	extentBytes    = 8
	statusBytesMax = 2 * (chunkHead + 4 + extentsMax*extentBytes)
)

// metaContexts are what the open volume has.
func (c *conn) metaContexts() []metaContext {
	if _, ok := c.volume.(DirtyMap); ok {
		return []metaContext{baseAllocation, duetDirty}
	}
	return []metaContext{baseAllocation}
}

// meta serves LIST_META_CONTEXT and SET_META_CONTEXT. Whatever was set before is forgotten by a SET, also by one that
// is refused.
func (c *conn) meta(opt uint32, data []byte) (verdict, error) {
	if opt == optSetMeta {
		c.selected, c.offer.contexts = "", nil
	}
	name, queries, ok := parseMeta(data)
	switch {
	case !ok:
		return proceed, c.refuse(opt, repErrInvalid, "malformed metadata query")
	case !c.offer.structured:
		return proceed, c.refuse(opt, repErrInvalid, "metadata contexts need structured replies")
	}
	if next, err := c.openOption(opt, name); next != begin {
		return next, err
	}
	found := slices.DeleteFunc(c.metaContexts(), func(m metaContext) bool { return !m.asked(opt, queries) })
	c.shut()
	be := binary.BigEndian
	for _, m := range found {
		id := uint32(m)
		if opt == optListMeta {
			id = 0 // reserved
		}
		if err := c.reply(opt, repMeta, append(be.AppendUint32(nil, id), m.String()...)); err != nil {
			return leave, err
		}
	}
	if opt == optSetMeta {
		c.selected, c.offer.contexts = name, found
	}
	return proceed, c.reply(opt, repAck, nil)
}

// asked says whether the queries of an option mean this context. Only LIST knows wildcards: no query at all, and a
// namespace alone.
func (m metaContext) asked(opt uint32, queries []string) bool {
	name := m.String()
	space := name[:strings.Index(name, ":")+1]
	if opt == optListMeta && (len(queries) == 0 || slices.Contains(queries, space)) {
		return true
	}
	return slices.Contains(queries, name)
}

// parseMeta reads the data of both options: an export and queries.
func parseMeta(data []byte) (name string, queries []string, ok bool) {
	name, data, ok = cutString(data)
	if !ok || len(data) < 4 || len(name) > nameBytesMax {
		return "", nil, false
	}
	count := binary.BigEndian.Uint32(data)
	data = data[4:]
	for range count {
		var q string
		if q, data, ok = cutString(data); !ok {
			return "", nil, false
		}
		queries = append(queries, q)
	}
	return name, queries, len(data) == 0
}

// cutString takes a string with its length before it off the front of p.
func cutString(p []byte) (s string, rest []byte, ok bool) {
	if len(p) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(p)
	if p = p[4:]; uint64(n) > uint64(len(p)) {
		return "", nil, false
	}
	return string(p[:n]), p[n:], true
}

// settleContexts drops at the begin of transmission what was selected for another export, or is there no more.
func (c *conn) settleContexts(name string) {
	if c.selected != name {
		c.offer.contexts = nil
	}
	have := c.metaContexts()
	c.offer.contexts = slices.DeleteFunc(c.offer.contexts, func(m metaContext) bool { return !slices.Contains(have, m) })
}

// blockStatus builds the reply of BLOCK_STATUS, a chunk for each selected context.
func (c *conn) blockStatus(r *request) error {
	r.body = r.body[:0]
	for i, m := range c.offer.contexts {
		at := len(r.body)
		flags := uint16(0)
		if i == len(c.offer.contexts)-1 {
			flags = chunkDone
		}
		r.body = appendChunk(r.body, flags, chunkStatus, r.cookie, 0)
		r.body = binary.BigEndian.AppendUint32(r.body, uint32(m))
		switch m {
		case baseAllocation:
			r.body = appendExtent(r.body, uint64(r.n), 0)
		case duetDirty:
			if err := c.dirtyExtents(r); err != nil {
				return err
			}
		}
		binary.BigEndian.PutUint32(r.body[at+chunkHead-4:], uint32(len(r.body)-at-chunkHead))
	}
	return nil
}

// dirtyExtents appends clean and dirty runs in turn, from the begin of the range, as far as there is room.
func (c *conn) dirtyExtents(r *request) error {
	dirty := c.volume.(DirtyMap) // metaContexts has seen it
	room := extentsMax
	if r.flags&cmdFlagReqOne != 0 {
		room = 1
	}
	for at, end := r.off, r.off+uint64(r.n); at < end && room > 0; room-- {
		from, n, err := dirty.NextDirty(c.ctx, int64(at)&^(block.Unit-1), r.to)
		if err != nil {
			return err
		}
		if n < 0 || n > 0 && from+n <= int64(at) || from+n > r.to {
			panic(fmt.Sprintf("nbd: dirty run %d+%d of %d..%d", from, n, at, r.to))
		}
		next, state := end, uint32(0)
		switch {
		case n > 0 && uint64(from) > at:
			next = min(uint64(from), end)
		case n > 0:
			next, state = min(uint64(from+n), end), 1
		}
		r.body = appendExtent(r.body, next-at, state)
		at = next
	}
	return nil
}

func appendExtent(p []byte, n uint64, state uint32) []byte {
	p = binary.BigEndian.AppendUint32(p, uint32(n))
	return binary.BigEndian.AppendUint32(p, state)
}
