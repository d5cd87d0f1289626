package register

import (
	"errors"
	"fmt"
	"slices"
)

// PerSite registers are kept: the one in use, one being admitted, and two of before, for lost answers.
const PerSite = 4

// What a store answers besides a register. Deleting or losing one is always safe, because an unknown register grants
// nothing (protocol.md section 11).
var (
	ErrUnknownRegister = errors.New("unknown register")
	ErrUnknownSite     = errors.New("unknown site")
	// ErrNoAnswer is a store that could not be asked, or whose answer got lost: the request may have taken effect or
	// not. It must never become a reply; a node that hears nothing repeats, and a repeat is answered as the first time.
	ErrNoAnswer = errors.New("no answer from the store")
)

// Owner is the enrolment on whose behalf a store is asked.
type Owner struct {
	Name string
	Keys [2][32]byte // raw public keys of a and b
}

// Kept is one register of a site as it was found. One that cannot be read is known by its rid only.
type Kept struct {
	RID      ID
	Register Register
	Corrupt  bool
}

// Site is what a store keeps of one enrolment: the site that its first CREATE bound it to, the node keys of then, and
// the newest registers, oldest first. The zero Site is an enrolment that was never used.
type Site struct {
	ID   ID
	Keys [2][32]byte
	Kept []Kept
}

// Find is the register rid of this site. To its owner every other register does not exist.
func (s Site) Find(rid ID) (Register, error) {
	for _, k := range s.Kept {
		switch {
		case k.RID != rid:
		case k.Corrupt:
			return Register{}, ErrCorrupt
		default:
			return k.Register, nil
		}
	}
	return Register{}, ErrUnknownRegister
}

// With is s with r in the place of the register of that rid.
func (s Site) With(r Register) Site {
	s.Kept = slices.Clone(s.Kept)
	for i := range s.Kept {
		if s.Kept[i].RID == r.RID {
			s.Kept[i] = Kept{RID: r.RID, Register: r}
		}
	}
	return s
}

// Create makes a register with this content and the rid that the store drew, or finds the one that the same site and
// nonce made before (then after equals s). taken says that the site belongs to another enrolment.
//
// A site belongs to one enrolment, which the first CREATE binds. Another site id under the same name is accepted only
// while no register of the old one was ever used (a founding that was cut off and started again), or when both node
// keys are new (both nodes replaced or reset); then every rid of the old one is forgotten. The PerSite newest stay.
func (s Site) Create(owner Owner, site ID, taken bool, nonce uint64, content Content, rid ID) (after Site, made Register, err error) {
	if taken {
		return s, Register{}, fmt.Errorf("site %x is the site of another enrolment: %w", site, ErrUnknownSite)
	}
	if s.ID != (ID{}) && s.ID != site {
		if !s.mayRebind(owner.Keys) {
			return s, Register{}, fmt.Errorf("%q is enrolled for site %x, not %x: %w", owner.Name, s.ID, site, ErrUnknownSite)
		}
		s = Site{}
	}
	for _, k := range s.Kept {
		if !k.Corrupt && k.Register.CreateNonce == nonce {
			return s, k.Register, nil
		}
	}
	made = Register{RID: rid, Site: site, CreateNonce: nonce, Content: content, Sequence: 1}
	after = Site{ID: site, Keys: owner.Keys, Kept: append(slices.Clone(s.Kept), Kept{RID: rid, Register: made})}
	after.Kept = after.Kept[max(0, len(after.Kept)-PerSite):]
	return after, made, nil
}

// mayRebind says whether the site can be given up: nobody ever used it, or no node of it is left.
func (s Site) mayRebind(keys [2][32]byte) bool {
	shared := false
	for _, key := range keys {
		shared = shared || key == s.Keys[0] || key == s.Keys[1]
	}
	used := slices.ContainsFunc(s.Kept, func(k Kept) bool { return k.Corrupt || k.Register.Content != Content{} })
	return !shared || !used
}
