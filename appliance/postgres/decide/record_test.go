package decide

import (
	"bytes"
	"reflect"
	"testing"

	"duet/appliance/membership"
)

func sample() Record {
	r := Record{Epoch: 3, Version: 1, SystemID: 0x1122334455667788, Copies: membership.Both, Timeline: 1, Since: 1700000000}
	r = r.promoted(Promotion{From: membership.A, To: membership.B, FromTimeline: 1, Reason: ReasonCrash}, 3)
	r.History[0].Fork = 0x3000060
	r.PromoteLSN = 0x3000060
	r = r.promoted(Promotion{From: membership.B, To: membership.A, FromTimeline: 2, Reason: ReasonForced, Forced: true}, 9)
	r.Copies = membership.OnlyA
	return r
}

func TestCodec(t *testing.T) {
	want := sample()
	b := AppendRecord(nil, want)
	if got, err := ParseRecord(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%+v\n%+v", err, got, want)
	}
	for n := range b {
		if _, err := ParseRecord(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes are a record", n, len(b))
		}
	}
	full := want
	for len(full.History) < MaxHistory+3 {
		next := full.promoted(Promotion{FromTimeline: full.Timeline}, 9)
		if len(next.History) == len(full.History) {
			break
		}
		full = next
	}
	if b := AppendRecord(nil, full); len(b) != MaxRecordSize {
		t.Fatalf("the longest record has %d bytes, not %d", len(b), MaxRecordSize)
	}
}

// A record never shares its history with the one it was made from.
func TestNextIsItsOwn(t *testing.T) {
	before := sample()
	after := before.next(9)
	after.History[0].Fork = 1
	if before.History[0].Fork == 1 {
		t.Fatal("shared")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(AppendRecord(nil, sample()))
	f.Add(AppendRecord(nil, Record{Epoch: 1, Version: 1, Copies: membership.OnlyB, Timeline: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err == nil && !bytes.Equal(AppendRecord(nil, r), b) {
			t.Fatal("decodes to something else")
		}
	})
}

// Where a directory was left, by the record's history. The chain is 1 -(100)-> 2 -(200)-> 4, and 3 left 2 at 150 and was
// itself abandoned.
func TestLeft(t *testing.T) {
	r := Record{Version: 9, Timeline: 4, History: []Promotion{
		{Version: 1, FromTimeline: 1, Timeline: 2, Fork: 100, CopiesBefore: membership.Both},
		{Version: 2, FromTimeline: 2, Timeline: 3, Fork: 150, CopiesBefore: membership.OnlyA},
		{Version: 3, FromTimeline: 2, Timeline: 4, Fork: 200, CopiesBefore: membership.OnlyB},
	}}
	for _, c := range []struct {
		own         uint32
		by          uint64
		fork        LSN
		same, known bool
	}{
		{4, 0, 0, true, true}, {2, 3, 200, false, true}, {1, 1, 100, false, true}, {3, 3, 150, false, true}, {7, 0, 0, false, true},
	} {
		by, fork, same, known := r.Left(c.own)
		if by.Version != c.by || fork != c.fork || same != c.same || known != c.known {
			t.Errorf("timeline %d: by %d at %v, same %v, known %v", c.own, by.Version, fork, same, known)
		}
	}
	r.History[2].Fork = 0
	if _, _, _, known := r.Left(2); known {
		t.Error("a fork that is not recorded is known")
	}
}

// Two nodes that leave one timeline get two numbers.
func TestFreshTimeline(t *testing.T) {
	r := Record{Version: 1, Timeline: 1, Copies: membership.Both}
	one := r.promoted(Promotion{FromTimeline: 1, To: membership.B}, 1)
	two := one.promoted(Promotion{FromTimeline: 1, To: membership.A}, 2)
	if one.Timeline != 2 || two.Timeline != 3 {
		t.Fatalf("%d %d", one.Timeline, two.Timeline)
	}
}
