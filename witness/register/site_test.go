package register

import (
	"bytes"
	"errors"
	"testing"
)

var (
	plant = Owner{Name: "plant", Keys: [2][32]byte{{1}, {2}}}
	hall  = ID{0xaa}
)

func made(t *testing.T, s Site, owner Owner, site ID, nonce uint64, content Content, rid ID) (Site, Register) {
	t.Helper()
	after, r, err := s.Create(owner, site, false, nonce, content, rid)
	if err != nil {
		t.Fatal(err)
	}
	return after, r
}

func TestSiteKeepsTheNewest(t *testing.T) {
	var s Site
	for n := range uint64(PerSite + 2) {
		before := s
		s, _ = made(t, s, plant, hall, n, Content{Epoch: 1, Set: Both}, ID{byte(n + 1)})
		if len(before.Kept) > PerSite || s.Kept[len(s.Kept)-1].RID != (ID{byte(n + 1)}) {
			t.Fatalf("%+v", s)
		}
	}
	for n := range byte(PerSite + 2) {
		if _, err := s.Find(ID{n + 1}); errors.Is(err, ErrUnknownRegister) != (n < 2) {
			t.Errorf("register %d: %v", n, err)
		}
	}
	if _, again := made(t, s, plant, hall, 3, Content{}, ID{99}); again.RID != (ID{4}) {
		t.Errorf("a repeat of nonce 3 made %x", again.RID)
	}
	if _, again := made(t, s, plant, hall, 0, Content{}, ID{99}); again.RID != (ID{99}) {
		t.Errorf("a repeat of a forgotten CREATE brought %x back", again.RID)
	}
}

func TestSiteRecord(t *testing.T) {
	s, _ := made(t, Site{}, plant, hall, 1, Content{Epoch: 5, Set: OnlyA}, ID{1})
	s, second := made(t, s, plant, hall, 2, Content{Epoch: 6, Set: Both}, ID{2})
	value := s.Encode()
	if len(value) != SiteRecordSize+2*RecordSize {
		t.Fatalf("%d bytes", len(value))
	}
	back, err := DecodeSite(value)
	if err != nil || !bytes.Equal(back.Encode(), value) {
		t.Fatalf("%+v, %v", back, err)
	}
	value[SiteRecordSize+47] ^= 1 // the epoch of the first
	back, err = DecodeSite(value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.Find(ID{1}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged register: %v", err)
	}
	if r, err := back.Find(ID{2}); err != nil || r != second {
		t.Errorf("the one beside it: %+v, %v", r, err)
	}
	value[3] ^= 1
	if _, err := DecodeSite(value); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged binding: %v", err)
	}
	if _, err := DecodeSite(nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzDecodeSite(f *testing.F) {
	s, _, err := Site{}.Create(plant, hall, false, 1, Content{Epoch: 5, Set: OnlyA}, ID{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Encode())
	f.Add(s.EncodeBinding())
	f.Fuzz(func(t *testing.T, value []byte) {
		s, err := DecodeSite(value)
		if err != nil {
			return
		}
		if again, err := DecodeSite(s.Encode()); err != nil || again.ID != s.ID || again.Keys != s.Keys || len(s.Kept) > PerSite {
			t.Errorf("%x means %+v, then %+v, %v", value, s, again, err)
		}
	})
}
