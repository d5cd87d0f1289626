package register

import (
	"encoding/hex"
	"errors"
	"testing"
)

// The record on disk: its size and its bytes.
func TestRecordBytes(t *testing.T) {
	r := Register{RID: ID{1, 2}, Site: ID{3, 4}, CreateNonce: 5, Content: Content{Epoch: 57, Set: Both}, Sequence: 7}
	record := r.Encode()
	const want = "01020000000000000000000000000000" + "03040000000000000000000000000000" + "0000000000000005" +
		"0000000000000039" + "03" + "0000000000000007" + "7b1c8ea8" + "000000"
	if got := hex.EncodeToString(record[:]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if back, err := Decode(r.RID, record[:]); err != nil || back != r {
		t.Errorf("%+v, %v", back, err)
	}
}

// Every single flipped bit is seen, and so is a record under another key.
func TestRecordCorruption(t *testing.T) {
	r := Register{RID: ID{1}, Site: ID{2}, Content: Content{Epoch: 57, Set: Both}}
	record := r.Encode()
	for bit := range 8 * RecordSize {
		spoiled := record
		spoiled[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(r.RID, spoiled[:]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("bit %d of byte %d is not seen", bit%8, bit/8)
		}
	}
	if _, err := Decode(ID{9}, record[:]); !errors.Is(err, ErrCorrupt) {
		t.Error("another register's record is believed")
	}
	if _, err := Decode(r.RID, record[:RecordSize-1]); !errors.Is(err, ErrCorrupt) {
		t.Error("a short record is believed")
	}
}

func FuzzRecord(f *testing.F) {
	good := Register{RID: ID{1}, Site: ID{2}, Content: Content{Epoch: 57, Set: Both}, Sequence: 3}.Encode()
	f.Add(good[:])
	f.Fuzz(func(t *testing.T, record []byte) {
		var rid ID
		copy(rid[:], record)
		if r, err := Decode(rid, record); err == nil {
			if again := r.Encode(); string(again[:]) != string(record) {
				t.Errorf("%x means %+v, which is %x", record, r, again)
			}
		}
	})
}
