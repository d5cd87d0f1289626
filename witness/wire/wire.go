// Package wire is the protocol between a node and the witness: fixed binary frames over TLS, one request, one reply.
//
// A request has 64 bytes, a reply 112; there is no length field, so nothing can be too long. Integers are big-endian.
// Fields that an operation does not use are zero, and a frame that says otherwise is malformed: what is not checked
// today could mean something tomorrow. The first four bytes name protocol and version; another version is another
// name, and a party that does not know it closes the connection.
//
//	request                                        reply
//	 0  4  "dwq1"                                   0  4  "dwr1"
//	 4  1  operation                                4  1  operation, repeated
//	 5  1  set expected   (CAS)                     5  1  result
//	 6  1  set new        (CREATE, CAS)             6  1  set of the register
//	 7  1  zero                                     7  1  number of rids         (STATUS)
//	 8  8  nonce, repeated in the reply             8  8  nonce
//	16 16  rid            (CAS, PUSH)              16 16  rid                    (CREATE, CAS, PUSH)
//	32 16  site           (CREATE)                 32  8  epoch of the register
//	48  8  epoch expected (CAS)                    40  8  sequence of the register
//	56  8  epoch new      (CREATE, CAS, PUSH)      48 64  rids, newest first     (STATUS)
//
// Who asks is not in the frame: node and site follow from the key of the connection. Replies may come in any order;
// a nonce names one request for ever, and repeating it repeats the request (protocol.md section 11).
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"duet/witness/register"
)

// Sizes of the frames.
const (
	RequestSize = 64
	ReplySize   = 112
	MaxRIDs     = 4 // registers of one site that a store keeps
)

// Op is an operation.
type Op uint8

// The operations.
const (
	Create Op = 1 // a new register with New; its rid is made by the store
	CAS    Op = 2 // New if the register holds Expected or New
	Push   Op = 3 // (New.Epoch, {a,b}) if that epoch is higher
	Status Op = 4 // which registers of this site exist
)

// Result is what became of a request.
type Result uint8

// The results. Only OK is a success; whatever else is said never grants anything.
const (
	OK              Result = 1 // CREATE: made; CAS: took effect; PUSH: confirmed; STATUS: listed
	Failed          Result = 2 // CAS: another content; PUSH: a higher or another content. Carries the register
	UnknownRegister Result = 3 // this store did not make that rid, or forgot it
	UnknownSite     Result = 4 // the key is not enrolled (any more), or CREATE named a site that is not the caller's
	Corrupt         Result = 5 // the register cannot be read
	Refused         Result = 6 // not allowed to this caller: it may only name itself
)

// Request is what a node asks.
type Request struct {
	Op       Op
	Nonce    uint64
	RID      register.ID
	Site     register.ID
	Expected register.Content
	New      register.Content
}

// Reply is what the witness answers.
type Reply struct {
	Op       Op
	Result   Result
	Nonce    uint64
	RID      register.ID
	Content  register.Content
	Sequence uint64
	RIDs     []register.ID // STATUS: newest first
}

// Errors of decoding. A frame of another version is malformed too, and says so by itself: somebody has to update.
var (
	ErrMalformed = errors.New("malformed frame")
	ErrVersion   = fmt.Errorf("another version of the protocol: %w", ErrMalformed)
)

var (
	requestMagic = [4]byte{'d', 'w', 'q', '1'}
	replyMagic   = [4]byte{'d', 'w', 'r', '1'}
)

// Encode writes the frame.
func (r Request) Encode() (frame [RequestSize]byte) {
	copy(frame[0:], requestMagic[:])
	frame[4] = byte(r.Op)
	frame[5] = byte(r.Expected.Set)
	frame[6] = byte(r.New.Set)
	binary.BigEndian.PutUint64(frame[8:], r.Nonce)
	copy(frame[16:], r.RID[:])
	copy(frame[32:], r.Site[:])
	binary.BigEndian.PutUint64(frame[48:], uint64(r.Expected.Epoch))
	binary.BigEndian.PutUint64(frame[56:], uint64(r.New.Epoch))
	return frame
}

// DecodeRequest reads a frame and checks its form, not whether the caller may ask this.
func DecodeRequest(frame [RequestSize]byte) (Request, error) {
	if [3]byte(frame[0:3]) == [3]byte(requestMagic[:3]) && frame[3] != requestMagic[3] {
		return Request{}, fmt.Errorf("request of version %q: %w", frame[3], ErrVersion)
	}
	if [4]byte(frame[0:4]) != requestMagic || frame[7] != 0 {
		return Request{}, fmt.Errorf("request begins with %x: %w", frame[:8], ErrMalformed)
	}
	r := Request{
		Op:       Op(frame[4]),
		Nonce:    binary.BigEndian.Uint64(frame[8:]),
		RID:      register.ID(frame[16:32]),
		Site:     register.ID(frame[32:48]),
		Expected: register.Content{Set: register.Set(frame[5]), Epoch: register.Epoch(binary.BigEndian.Uint64(frame[48:]))},
		New:      register.Content{Set: register.Set(frame[6]), Epoch: register.Epoch(binary.BigEndian.Uint64(frame[56:]))},
	}
	if err := r.check(); err != nil {
		return Request{}, err
	}
	return r, nil
}

// check says whether r is what its operation looks like.
func (r Request) check() error {
	none := register.Content{}
	ok := r.Expected.Set <= register.Both && r.New.Set <= register.Both
	switch r.Op {
	case Create:
		ok = ok && r.RID == register.ID{} && r.Site != register.ID{} && r.Expected == none
	case CAS:
		ok = ok && r.RID != register.ID{} && r.Site == register.ID{}
	case Push:
		ok = ok && r.RID != register.ID{} && r.Site == register.ID{} && r.Expected == none && r.New.Set == register.Nobody
	case Status:
		ok = ok && r.RID == register.ID{} && r.Site == register.ID{} && r.Expected == none && r.New == none
	default:
		return fmt.Errorf("operation %d: %w", r.Op, ErrMalformed)
	}
	if !ok {
		return fmt.Errorf("%s with fields that it does not have: %w", r.Op, ErrMalformed)
	}
	return nil
}

// Encode writes the frame. More than MaxRIDs rids are a broken invariant.
func (r Reply) Encode() (frame [ReplySize]byte) {
	if len(r.RIDs) > MaxRIDs {
		panic(fmt.Sprintf("%d registers of one site", len(r.RIDs)))
	}
	copy(frame[0:], replyMagic[:])
	frame[4] = byte(r.Op)
	frame[5] = byte(r.Result)
	frame[6] = byte(r.Content.Set)
	frame[7] = byte(len(r.RIDs))
	binary.BigEndian.PutUint64(frame[8:], r.Nonce)
	copy(frame[16:], r.RID[:])
	binary.BigEndian.PutUint64(frame[32:], uint64(r.Content.Epoch))
	binary.BigEndian.PutUint64(frame[40:], r.Sequence)
	for i, rid := range r.RIDs {
		copy(frame[48+16*i:], rid[:])
	}
	return frame
}

// DecodeReply reads a frame and checks its form.
func DecodeReply(frame [ReplySize]byte) (Reply, error) {
	if [3]byte(frame[0:3]) == [3]byte(replyMagic[:3]) && frame[3] != replyMagic[3] {
		return Reply{}, fmt.Errorf("reply of version %q: %w", frame[3], ErrVersion)
	}
	if [4]byte(frame[0:4]) != replyMagic {
		return Reply{}, fmt.Errorf("reply begins with %x: %w", frame[:4], ErrMalformed)
	}
	r := Reply{
		Op:       Op(frame[4]),
		Result:   Result(frame[5]),
		Nonce:    binary.BigEndian.Uint64(frame[8:]),
		RID:      register.ID(frame[16:32]),
		Content:  register.Content{Set: register.Set(frame[6]), Epoch: register.Epoch(binary.BigEndian.Uint64(frame[32:]))},
		Sequence: binary.BigEndian.Uint64(frame[40:]),
	}
	count := int(frame[7])
	known := r.Op >= Create && r.Op <= Status && r.Result >= OK && r.Result <= Refused
	if !known || r.Content.Set > register.Both || count > MaxRIDs || (count > 0 && r.Op != Status) {
		return Reply{}, fmt.Errorf("reply %x: %w", frame[4:8], ErrMalformed)
	}
	for i := range MaxRIDs {
		rid := register.ID(frame[48+16*i : 64+16*i])
		if i < count {
			r.RIDs = append(r.RIDs, rid)
		} else if rid != (register.ID{}) {
			return Reply{}, fmt.Errorf("reply with more rids than it counts: %w", ErrMalformed)
		}
	}
	return r, nil
}

// String is the operation as the documents write it.
func (o Op) String() string {
	if o >= Create && o <= Status {
		return [...]string{"", "CREATE", "CAS", "PUSH", "STATUS"}[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// String is the result as the documents write it.
func (r Result) String() string {
	if r >= OK && r <= Refused {
		return [...]string{"", "ok", "failed", "unknown register", "unknown site", "corrupt", "refused"}[r]
	}
	return fmt.Sprintf("result %d", uint8(r))
}
