package decide

import (
	"encoding/binary"
	"errors"
	"fmt"

	"duet/appliance/membership"
)

// The record on disk and on the wire, version 1: little-endian, no padding. The store of documents adds its own checksum.
//
//	version 1 | epoch 8 | version 8 | system 8 | copies 1 | timeline 4 | promote lsn 8 | durability 1 | since 8 | count 1 | history
//	history: epoch 8, version 8, from 1, to 1, from timeline 4, timeline 4, fork 8, copies before 1, reason 1, forced 1
//
// A reader refuses another version, another length and every value outside its range: a half-believed record could name the
// wrong holder of the only copy.
const (
	codecVersion  = 1
	headSize      = 1 + 8 + 8 + 8 + 1 + 4 + 8 + 1 + 8 + 1
	promotionSize = 8 + 8 + 1 + 1 + 4 + 4 + 8 + 1 + 1 + 1
	// MaxRecordSize is the length of the longest encoded record.
	MaxRecordSize = headSize + MaxHistory*promotionSize
)

// ErrCorrupt says that bytes are not a record of this version.
var ErrCorrupt = errors.New("not a valid database record")

var order = binary.LittleEndian

// AppendRecord appends the encoded record to dst.
func AppendRecord(dst []byte, r Record) []byte {
	dst = append(dst, codecVersion)
	dst = order.AppendUint64(dst, uint64(r.Epoch))
	dst = order.AppendUint64(dst, r.Version)
	dst = order.AppendUint64(dst, r.SystemID)
	dst = append(dst, uint8(r.Copies))
	dst = order.AppendUint32(dst, r.Timeline)
	dst = order.AppendUint64(dst, uint64(r.PromoteLSN))
	dst = append(dst, uint8(r.Durability))
	dst = order.AppendUint64(dst, uint64(r.Since))
	dst = append(dst, uint8(len(r.History)))
	for _, p := range r.History {
		dst = order.AppendUint64(dst, uint64(p.Epoch))
		dst = order.AppendUint64(dst, p.Version)
		dst = append(dst, uint8(p.From), uint8(p.To))
		dst = order.AppendUint32(dst, p.FromTimeline)
		dst = order.AppendUint32(dst, p.Timeline)
		dst = order.AppendUint64(dst, uint64(p.Fork))
		forced := uint8(0)
		if p.Forced {
			forced = 1
		}
		dst = append(dst, uint8(p.CopiesBefore), uint8(p.Reason), forced)
	}
	return dst
}

// ParseRecord reads exactly one record.
func ParseRecord(b []byte) (Record, error) {
	if len(b) < headSize || b[0] != codecVersion {
		return Record{}, ErrCorrupt
	}
	r := Record{
		Epoch: membership.Epoch(order.Uint64(b[1:])), Version: order.Uint64(b[9:]), SystemID: order.Uint64(b[17:]),
		Copies: membership.Set(b[25]), Timeline: order.Uint32(b[26:]), PromoteLSN: LSN(order.Uint64(b[30:])),
		Durability: Durability(b[38]), Since: int64(order.Uint64(b[39:])),
	}
	count := int(b[47])
	if count > MaxHistory || len(b) != headSize+count*promotionSize {
		return Record{}, fmt.Errorf("%w: %d bytes for %d promotions", ErrCorrupt, len(b), count)
	}
	if r.Version == 0 || r.Copies == 0 || r.Copies > membership.Both || r.Durability > Strict || r.Timeline == 0 {
		return Record{}, fmt.Errorf("%w: a value is out of range", ErrCorrupt)
	}
	for b = b[headSize:]; len(b) > 0; b = b[promotionSize:] {
		p := Promotion{
			Epoch: membership.Epoch(order.Uint64(b)), Version: order.Uint64(b[8:]), From: membership.Node(b[16]), To: membership.Node(b[17]),
			FromTimeline: order.Uint32(b[18:]), Timeline: order.Uint32(b[22:]), Fork: LSN(order.Uint64(b[26:])),
			CopiesBefore: membership.Set(b[34]), Reason: Reason(b[35]), Forced: b[36] == 1,
		}
		bad := p.From > membership.B || p.To > membership.B || p.CopiesBefore > membership.Both || p.Reason > ReasonForced || b[36] > 1
		if bad || p.Timeline <= p.FromTimeline {
			return Record{}, fmt.Errorf("%w: a promotion is out of range", ErrCorrupt)
		}
		r.History = append(r.History, p)
	}
	return r, nil
}
