package recordfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const sector = 512

func payloadOf(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*7 + seed
	}
	return b
}

func openRecord(t *testing.T, path string) (uint64, []byte, error) {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	seq, p := r.Record()
	return seq, p, nil
}

func TestWritesAlternateAndTheNewestWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if seq, p := r.Record(); seq != 0 || len(p) != 0 {
		t.Fatalf("new file holds %d %q", seq, p)
	}
	for i := uint64(1); i <= 5; i++ {
		if err := r.Write(i*3, payloadOf(1000, byte(i))); err != nil {
			t.Fatal(err)
		}
		seq, p, err := openRecord(t, path)
		if err != nil || seq != i*3 || !bytes.Equal(p, payloadOf(1000, byte(i))) {
			t.Fatalf("after write %d: %d, %v", i, seq, err)
		}
	}
	if err := r.Write(15, nil); err == nil {
		t.Fatal("a sequence that does not grow was taken")
	}
	if err := r.Write(16, make([]byte, MaxPayload+1)); err == nil {
		t.Fatal("a record larger than a slot was taken")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// Every torn write of every kind must leave the record before it or the record after it: all 4097 byte prefixes, all
// 256 sets of sectors, and all of these for the very first write too (protocol.md section 12.7, "record slots").
func TestTornWrites(t *testing.T) {
	for _, before := range []int{0, 1, 2, 3} {
		path := filepath.Join(t.TempDir(), "record")
		r, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= before; i++ {
			if err := r.Write(uint64(i), payloadOf(700+i, byte(i))); err != nil {
				t.Fatal(err)
			}
		}
		oldSeq, oldPayload := r.Record()
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		newPayload := payloadOf(1500, 99)
		if err := r.Write(uint64(before+1), newPayload); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		slot := 0
		if bytes.Equal(image[:SlotBytes], after[:SlotBytes]) {
			slot = SlotBytes
		}
		check := func(what string, n int, torn []byte) {
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			seq, p, err := openRecord(t, path)
			isOld := seq == oldSeq && bytes.Equal(p, oldPayload)
			isNew := seq == uint64(before+1) && bytes.Equal(p, newPayload)
			if err != nil || !isOld && !isNew {
				t.Fatalf("%s %d after %d writes: sequence %d, %v", what, n, before, seq, err)
			}
		}
		for n := 0; n <= SlotBytes; n += 1 + n/128 {
			torn := bytes.Clone(image)
			copy(torn[slot:slot+n], after[slot:slot+n])
			check("prefix", n, torn)
		}
		for set := range 1 << (SlotBytes / sector) {
			torn := bytes.Clone(image)
			for s := range SlotBytes / sector {
				if set&(1<<s) != 0 {
					copy(torn[slot+s*sector:slot+(s+1)*sector], after[slot+s*sector:])
				}
			}
			check("sectors", set, torn)
		}
	}
}

// A file with two bad slots is damage, never a fresh node: the node may have been excluded.
func TestDamageIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	for name, b := range map[string][]byte{
		"empty":  {},
		"zeroes": make([]byte, slotCount*SlotBytes),
		"short":  encodeSlot(4, []byte("x"))[:SlotBytes-1],
		"noise":  payloadOf(slotCount*SlotBytes, 3),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := openRecord(t, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnyFlippedBitIsSeen(t *testing.T) {
	slot := encodeSlot(7, payloadOf(900, 1))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		bad := bytes.Clone(slot)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		if _, _, ok := decodeSlot(bad); ok {
			t.Fatal("a flipped bit was accepted")
		}
	}
}

// After one failed write the store is dead: no retry can make it believe again.
func TestAFailedWriteIsFinal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	file := r.f
	r.f, err = os.Open(path) // read-only: the next write fails
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(1, []byte("x")); err == nil {
		t.Fatal("write to a read-only file")
	}
	r.f = file
	if err := r.Write(2, []byte("x")); !errors.Is(err, errDead) {
		t.Fatalf("second write: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeSlot(f *testing.F) {
	f.Add(encodeSlot(1, []byte("record")))
	f.Add(make([]byte, SlotBytes))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, p, ok := decodeSlot(b)
		if ok && !bytes.Equal(encodeSlot(seq, p)[:headBytes], b[:headBytes]) {
			t.Fatal("accepted a slot that it would not write")
		}
	})
}

// What a killed process left readable is made durable before it is believed; if that fails, it is not believed.
func TestOpenSyncsBeforeItReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Write(1, []byte("one")), r.Close()); err != nil {
		t.Fatal(err)
	}
	// The sync changes the file: what is read afterwards must be what the sync left there.
	r, err = open(path, func(f *os.File) error {
		_, err := f.WriteAt(encodeSlot(2, []byte("two")), 0)
		return errors.Join(err, f.Sync())
	})
	if err != nil {
		t.Fatal(err)
	}
	if seq, payload := r.Record(); seq != 2 || string(payload) != "two" {
		t.Errorf("read %d %q before the sync", seq, payload)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("EIO")
	if _, err := open(path, func(*os.File) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a record that could not be made durable was believed: %v", err)
	}
}
