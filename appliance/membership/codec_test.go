package membership

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files; read the diff")

// full is a record with every field set.
func full() Record {
	r := Record{
		Seq: 0x0102030405060708, Site: ID{1, 2, 3}, Ep: 11, Members: OnlyB, High: 13, Consistent: true, Fenced: 11,
		Arb: Arb{ArbWitness, ID{9, 8}}, Docs: Docs{{Ep: 5, Version: 6, Hash: Digest{7}}, {Ep: 5, Version: 1}},
		Pending: Docs{{Ep: 11, Version: 7, Hash: Digest{8}}},
		Forced:  Force{Counter: 2, Ep: 3, Members: OnlyA, Prep: 4, Text: MakeText("admin: b has burnt")},
	}
	r.Owners[0], r.Owners[31] = Owner{B, 4}, Owner{A, 5}
	r.Legs[0], r.Legs[31] = VolumeLegs{Set: Both, Version: 2}, VolumeLegs{OnlyA, true, 31, 3}
	r.Prep = Prepared{Ep: 13, Owners: r.Owners, Legs: r.Legs, Arb: Arb{ArbFence, ID{}}, Docs: r.Docs, Digest: Digest{0xaa}}
	return r
}

func everyMessage() []Message {
	return []Message{
		Hello{full()},
		Join{11, 13},
		Prepare{ID{1, 2, 3}, full().Prep},
		PreparedMsg{13},
		Commit{13},
		BeatMsg{0xfeed, 11, 13, full().Arb},
		BeatAck{0xfeed, 11, 13, Arb{Kind: ArbFence}},
		Yield{full()},
		Give{31, 6},
		Taken{31, 6},
		WDrop{3, full().Arb},
		WDropped{3},
		WSet{3, Arb{Kind: ArbFence}},
		DocPrepare{DocSite, full().Pending[0]},
		DocPrepared{DocDatabase, full().Docs[1]},
		DocCommit{DocSite, full().Docs[0]},
		LegBad{31},
		LegOut{31, B, 4},
		LegOutOK{31, 4},
		LegPrepare{31, 5, Digest{0xbb}},
		LegPrepared{31, 5},
		LegCommit{31, 5},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []Record{{}, full()} {
		b := AppendRecord(nil, r)
		if len(b) != RecordSize {
			t.Fatalf("%d bytes, RecordSize is %d", len(b), RecordSize)
		}
		got, err := ParseRecord(b)
		if err != nil || got != r {
			t.Fatalf("read back %+v, %v", got, err)
		}
	}
	if RecordSize > 4096-64 {
		t.Fatalf("%d bytes do not fit a slot of 4 KiB", RecordSize)
	}
}

func TestRecordRefuses(t *testing.T) {
	good := AppendRecord(nil, full())
	for name, change := range map[string]func([]byte) []byte{
		"short":      func(b []byte) []byte { return b[:len(b)-1] },
		"long":       func(b []byte) []byte { return append(b, 0) },
		"empty":      func([]byte) []byte { return nil },
		"version":    func(b []byte) []byte { b[0] = 1; return b },
		"members":    func(b []byte) []byte { b[33] = 4; return b },
		"consistent": func(b []byte) []byte { b[42] = 2; return b },
		"arbiter":    func(b []byte) []byte { b[51] = 3; return b },
		"owner":      func(b []byte) []byte { b[51+arbSize+2*docsSize+forcedSize] = 2; return b },
	} {
		if _, err := ParseRecord(change(bytes.Clone(good))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range everyMessage() {
		b := MarshalMessage(m)
		if len(b) > MaxMessageSize {
			t.Errorf("%T has %d bytes", m, len(b))
		}
		got, err := ParseMessage(b)
		if err != nil || got != m {
			t.Errorf("%T read back as %+v, %v", m, got, err)
		}
		if _, err := ParseMessage(b[:len(b)-1]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%T cut short: %v", m, err)
		}
		if _, err := ParseMessage(append(b, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%T too long: %v", m, err)
		}
	}
	for _, b := range [][]byte{nil, {0}, {99}} {
		if _, err := ParseMessage(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: %v", b, err)
		}
	}
}

// TestGolden pins the bytes: nodes of two versions must understand each other, and a record outlives its program.
func TestGolden(t *testing.T) {
	var text []byte
	for _, m := range everyMessage() {
		text = append(text, reflect.TypeOf(m).Name()+" "+hex.EncodeToString(MarshalMessage(m))+"\n"...)
	}
	file := filepath.Join("testdata", "wire-v1.golden")
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the bytes changed; a new form needs a new version:\n%s", text)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(AppendRecord(nil, Record{}))
	f.Add(AppendRecord(nil, full()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err == nil && !bytes.Equal(AppendRecord(nil, r), b) {
			t.Errorf("accepted bytes that it would not write")
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range everyMessage() {
		f.Add(MarshalMessage(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err == nil && !bytes.Equal(MarshalMessage(m), b) {
			t.Errorf("accepted bytes that it would not write")
		}
	})
}

// The snapshot is JSON; every field must survive it, or Resume would believe something else.
func TestStateSurvivesJSON(t *testing.T) {
	s := State{
		Cfg: Config{Self: B, Lease: 4}, Rec: full(), Mode: Solo, Session: 1 << 63, Lease: 1 << 62, PeerWait: 3,
		Peer: PeerView{true, true, 1, 2, 3}, Ask: Ask{ID{1}, 1<<64 - 1, RegisterContent{1, Both}, RegisterContent{2, OnlyB}},
		Remembered: RegisterContent{3, OnlyA}, Fence: 5, Copy: Copying, Plan: full().Prep, PlanSite: ID{1}, PlanSent: 7,
		Proof: Proof{true, Digest{1}, [2]Volumes{1, 2}}, Offer: full().Prep, Committing: true, Push: Push{1, ID{2}, 3}, PairedHere: true,
		Beats: [MaxBeats]SentBeat{{1, 2}}, PowerOns: [MaxPowerOns]Boottime{1, 2, 3}, Lost: 1,
		Create: Create{1, 2, Both}, Change: Change{1, Arb{Kind: ArbFence}, true}, Changes: 1, Draining: 4, Gives: 2,
		Writing: full().Docs, Claim: Ask{ID{1}, 1, RegisterContent{1, Both}, RegisterContent{2, OnlyB}},
		LegWork: [MaxVolumes]LegAt{LegInSent}, BadLegs: 1, LegProof: LegProof{1, Digest{1}}, LegOffer: LegOffer{LegProof{1, Digest{1}}, 2},
	}
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", v.Type().Field(i).Name)
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got State
	if err := json.Unmarshal(b, &got); err != nil || got != s {
		t.Errorf("read back %+v, %v", got, err)
	}
}

func TestTextIsCutAtARune(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"admin: b has burnt":           "admin: b has burnt",
		strings.Repeat("x", 64):        strings.Repeat("x", 64),
		strings.Repeat("x", 70):        strings.Repeat("x", 64),
		strings.Repeat("x", 63) + "é":  strings.Repeat("x", 63),
		strings.Repeat("x", 62) + "é":  strings.Repeat("x", 62) + "é",
		strings.Repeat("火", 21) + "x":  strings.Repeat("火", 21) + "x",
		strings.Repeat("火", 22):        strings.Repeat("火", 21),
		strings.Repeat("x", 62) + "火事": strings.Repeat("x", 62),
	} {
		if got := MakeText(in).String(); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}
