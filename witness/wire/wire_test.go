package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"duet/witness/register"
)

func id(first byte) (r register.ID) {
	for i := range r {
		r[i] = first + byte(i)
	}
	return r
}

// The bytes of docs/witness.md. They change only with the magic.
func TestGoldenRequests(t *testing.T) {
	for _, test := range []struct {
		request Request
		want    string
	}{
		{
			Request{Op: Create, Nonce: 0x1122334455667788, Site: id(0x40), New: register.Content{Epoch: 0, Set: register.Nobody}},
			"64777131 01 00 00 00 1122334455667788" + strings.Repeat("00", 16) + "404142434445464748494a4b4c4d4e4f" + strings.Repeat("00", 16),
		},
		{
			Request{Op: CAS, Nonce: 1, RID: id(0x10), Expected: register.Content{Epoch: 57, Set: register.Both}, New: register.Content{Epoch: 58, Set: register.OnlyA}},
			"64777131 02 03 01 00 0000000000000001 101112131415161718191a1b1c1d1e1f" + strings.Repeat("00", 16) + "0000000000000039 000000000000003a",
		},
		{
			Request{Op: Push, Nonce: 2, RID: id(0x10), New: register.Content{Epoch: 60}},
			"64777131 03 00 00 00 0000000000000002 101112131415161718191a1b1c1d1e1f" + strings.Repeat("00", 24) + "000000000000003c",
		},
		{Request{Op: Status, Nonce: 3}, "64777131 04 00 00 00 0000000000000003" + strings.Repeat("00", 48)},
	} {
		frame := test.request.Encode()
		if got, want := hex.EncodeToString(frame[:]), strings.ReplaceAll(test.want, " ", ""); got != want {
			t.Errorf("%s\n got %s\nwant %s", test.request.Op, got, want)
		}
		if back, err := DecodeRequest(frame); err != nil || back != test.request {
			t.Errorf("%s: %+v, %v", test.request.Op, back, err)
		}
	}
}

func TestGoldenReplies(t *testing.T) {
	for _, test := range []struct {
		reply Reply
		want  string
	}{
		{
			Reply{Op: CAS, Result: Failed, Nonce: 1, RID: id(0x10), Content: register.Content{Epoch: 58, Set: register.OnlyB}, Sequence: 9},
			"64777231 02 02 02 00 0000000000000001 101112131415161718191a1b1c1d1e1f 000000000000003a 0000000000000009" + strings.Repeat("00", 64),
		},
		{
			Reply{Op: Status, Result: OK, Nonce: 3, RIDs: []register.ID{id(0x10), id(0x20)}},
			"64777231 04 01 00 02 0000000000000003" + strings.Repeat("00", 32) + "101112131415161718191a1b1c1d1e1f 202122232425262728292a2b2c2d2e2f" + strings.Repeat("00", 32),
		},
	} {
		frame := test.reply.Encode()
		if got, want := hex.EncodeToString(frame[:]), strings.ReplaceAll(test.want, " ", ""); got != want {
			t.Errorf("%s\n got %s\nwant %s", test.reply.Op, got, want)
		}
		back, err := DecodeReply(frame)
		if again := back.Encode(); err != nil || again != frame {
			t.Errorf("%s: %+v, %v", test.reply.Op, back, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	good := Request{Op: CAS, Nonce: 1, RID: id(1), Expected: register.Content{Epoch: 1, Set: register.Both}, New: register.Content{Epoch: 2, Set: register.OnlyA}}
	for name, spoil := range map[string]func(*[RequestSize]byte){
		"another version": func(f *[RequestSize]byte) { f[3] = '2' },
		"no operation":    func(f *[RequestSize]byte) { f[4] = 0 },
		"operation 5":     func(f *[RequestSize]byte) { f[4] = 5 },
		"set 4":           func(f *[RequestSize]byte) { f[5] = 4 },
		"byte 7":          func(f *[RequestSize]byte) { f[7] = 1 },
		"CAS with a site": func(f *[RequestSize]byte) { f[40] = 1 },
		"CAS without rid": func(f *[RequestSize]byte) { clear(f[16:32]) },
		"STATUS with rid": func(f *[RequestSize]byte) { f[4] = byte(Status) },
		"PUSH with a set": func(f *[RequestSize]byte) { f[4], f[5] = byte(Push), 0; clear(f[48:56]) },
		"CREATE with rid": func(f *[RequestSize]byte) { f[4] = byte(Create) },
	} {
		frame := good.Encode()
		spoil(&frame)
		if _, err := DecodeRequest(frame); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*[ReplySize]byte){
		"another version":    func(f *[ReplySize]byte) { f[3] = '2' },
		"result 0":           func(f *[ReplySize]byte) { f[5] = 0 },
		"result 7":           func(f *[ReplySize]byte) { f[5] = 7 },
		"set 4":              func(f *[ReplySize]byte) { f[6] = 4 },
		"five rids":          func(f *[ReplySize]byte) { f[4], f[7] = byte(Status), 5 },
		"rids without count": func(f *[ReplySize]byte) { f[111] = 1 },
		"CAS with rids":      func(f *[ReplySize]byte) { f[7] = 1 },
	} {
		frame := Reply{Op: CAS, Result: OK, Nonce: 1}.Encode()
		spoil(&frame)
		if _, err := DecodeReply(frame); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A frame is either refused or means exactly what it says: decoding and encoding gives the same bytes.
func FuzzRequest(f *testing.F) {
	for _, r := range []Request{{Op: Create, Site: id(1)}, {Op: CAS, RID: id(1), New: register.Content{Epoch: 1, Set: 1}}, {Op: Push, RID: id(2)}, {Op: Status, Nonce: 9}} {
		frame := r.Encode()
		f.Add(frame[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var frame [RequestSize]byte
		copy(frame[:], data)
		if r, err := DecodeRequest(frame); err == nil {
			if again := r.Encode(); !bytes.Equal(again[:], frame[:]) {
				t.Errorf("%x means %+v, which is %x", frame, r, again)
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, r := range []Reply{{Op: CAS, Result: Failed, RID: id(1)}, {Op: Status, Result: OK, RIDs: []register.ID{id(1), id(2)}}} {
		frame := r.Encode()
		f.Add(frame[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var frame [ReplySize]byte
		copy(frame[:], data)
		if r, err := DecodeReply(frame); err == nil {
			if again := r.Encode(); !bytes.Equal(again[:], frame[:]) {
				t.Errorf("%x means %+v, which is %x", frame, r, again)
			}
		}
	})
}
