package explore

import (
	"bytes"
	"reflect"
	"testing"
)

// The encoding is exact up to renaming: what is read back encodes the same and can do the same.
func TestCodec(t *testing.T) {
	longest := 0
	for _, p := range Wide {
		for seed := range uint64(40) {
			p.follow(seed, func(w *World) {
				one := Encode(w, nil)
				longest = max(longest, len(one))
				back := Decode(one)
				if two := Encode(&back, nil); !bytes.Equal(one, two) {
					t.Fatalf("%s seed %d: %x became %x", p.Name, seed, one, two)
				}
				if got, want := p.Actions(&back, nil), p.Actions(w, nil); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s seed %d: %v became %v", p.Name, seed, want, got)
				}
			})
		}
	}
	t.Logf("at most %d bytes", longest)
	if longest > 800 {
		t.Errorf("a state has %d bytes", longest)
	}
}

// The same seed gives the same walk, byte for byte.
func TestDeterminism(t *testing.T) {
	for _, p := range Wide {
		var one, two []byte
		p.follow(7, func(w *World) { one = append(one, Encode(w, nil)...) })
		p.follow(7, func(w *World) { two = append(two, Encode(w, nil)...) })
		if len(one) == 0 || !bytes.Equal(one, two) {
			t.Errorf("%s: seed 7 has two traces", p.Name)
		}
	}
}
