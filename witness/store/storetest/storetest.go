// Package storetest is what every store of registers must do, as one table of tests: the embedded store and etcd run it
// with the same words (protocol.md section 11).
//
// It asks a store only through the interface of package server. Open opens the same store again each time it is called,
// as a process does that was ended and started; what a store keeps over that is part of the suite. The suite refuses
// nothing and cleans up nothing: Open registers what has to be closed.
package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"duet/witness/register"
	"duet/witness/server"
)

// Opened is a store under test. Close ends it as the end of its process does.
type Opened struct {
	server.Store
	Close func()
}

// Medium is where one store lives.
type Medium struct {
	Open        func(t *testing.T) Opened // the same store, again
	NewIdentity func(t *testing.T) Opened // on order
}

// Owner and site of the suite.
var (
	Owner = register.Owner{Name: "site-1", Keys: [2][32]byte{{1}, {2}}}
	Site  = register.ID{1}
)

// Both is (ep, {a,b}).
func Both(ep register.Epoch) register.Content {
	return register.Content{Epoch: ep, Set: register.Both}
}

// OnlyA is (ep, {a}).
func OnlyA(ep register.Epoch) register.Content {
	return register.Content{Epoch: ep, Set: register.OnlyA}
}

// Create makes a register or ends the test.
func Create(t *testing.T, s server.Store, o register.Owner, site register.ID, nonce uint64, c register.Content) register.Register {
	t.Helper()
	r, err := s.Create(context.Background(), o, site, nonce, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Run runs the suite; medium gives a new medium to each test.
func Run(t *testing.T, medium func(t *testing.T) Medium) {
	for name, test := range map[string]func(*testing.T, Medium){
		"operations": operations, "repeats": repeats, "four newest": fourNewest, "binding": binding, "strangers": strangers,
		"opened again": openedAgain, "new identity": newIdentity, "many at once": manyAtOnce, "description": description,
	} {
		t.Run(name, func(t *testing.T) { test(t, medium(t)) })
	}
}

func operations(t *testing.T, m Medium) {
	ctx, s := t.Context(), m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	if r.RID == (register.ID{}) || r.Site != Site || r.CreateNonce != 1 || r.Content != Both(1) || r.Sequence != 1 {
		t.Errorf("CREATE: %+v", r)
	}
	for _, step := range []struct {
		what           string
		expected, next register.Content // expected zero: PUSH
		done           bool
		after          register.Content
		sequence       uint64
	}{
		{"CAS from another content", Both(2), OnlyA(3), false, Both(1), 1},
		{"CAS from the right epoch and another set", OnlyA(1), OnlyA(3), false, Both(1), 1},
		{"CAS", Both(1), OnlyA(2), true, OnlyA(2), 2},
		{"the same CAS again", Both(1), OnlyA(2), true, OnlyA(2), 2},
		{"an old CAS after it", Both(1), OnlyA(7), false, OnlyA(2), 2},
		{"PUSH of the same epoch", register.Content{}, Both(2), false, OnlyA(2), 2},
		{"PUSH", register.Content{}, Both(5), true, Both(5), 3},
		{"the same PUSH again", register.Content{}, Both(5), true, Both(5), 3},
		{"an old PUSH", register.Content{}, Both(4), false, Both(5), 3},
		{"CAS that would go back", Both(5), OnlyA(4), true, OnlyA(4), 4}, // the register has no opinion
	} {
		var got register.Register
		var done bool
		var err error
		if step.expected == (register.Content{}) {
			got, done, err = s.Push(ctx, Owner, r.RID, step.next.Epoch)
		} else {
			got, done, err = s.CAS(ctx, Owner, r.RID, step.expected, step.next)
		}
		if err != nil || done != step.done || got.Content != step.after || got.Sequence != step.sequence || got.RID != r.RID {
			t.Errorf("%s: %+v %v %v", step.what, got, done, err)
		}
	}
}

func repeats(t *testing.T, m Medium) {
	s := m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	if again := Create(t, s, Owner, Site, 1, Both(9)); again != r {
		t.Errorf("a repeated CREATE: %+v, then %+v", r, again)
	}
	if other := Create(t, s, Owner, Site, 2, Both(1)); other.RID == r.RID {
		t.Error("two admissions, one rid")
	}
	if _, _, err := s.Push(t.Context(), Owner, r.RID, 4); err != nil {
		t.Fatal(err)
	}
	if again := Create(t, s, Owner, Site, 1, Both(1)); again.RID != r.RID || again.Content != Both(4) {
		t.Errorf("a late CREATE took a PUSH back: %+v", again)
	}
}

func fourNewest(t *testing.T, m Medium) {
	s := m.Open(t)
	var made []register.ID
	for n := range uint64(7) {
		made = append(made, Create(t, s, Owner, Site, n, Both(1)).RID)
	}
	rids, err := s.List(t.Context(), Owner)
	want := slices.Clone(made[3:])
	slices.Reverse(want)
	if err != nil || !slices.Equal(rids, want) {
		t.Errorf("%x, %v", rids, err)
	}
	for i, rid := range made {
		_, _, err := s.Push(t.Context(), Owner, rid, 2)
		if unknown := errors.Is(err, register.ErrUnknownRegister); unknown != (i < 3) {
			t.Errorf("register %d: %v", i, err)
		}
	}
}

// A site belongs to one enrolment, and an enrolment to one site, unless the old one was never used or its nodes are gone.
func binding(t *testing.T, m Medium) {
	ctx, s := t.Context(), m.Open(t)
	first := Create(t, s, Owner, Site, 1, register.Content{})
	second := Create(t, s, Owner, register.ID{2}, 1, register.Content{}) // the founding began again
	if _, _, err := s.Push(ctx, Owner, first.RID, 5); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("a register of the founding that was given up: %v", err)
	}
	if _, _, err := s.Push(ctx, Owner, second.RID, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, Owner, register.ID{3}, 1, register.Content{}); !errors.Is(err, register.ErrUnknownSite) {
		t.Errorf("the site changes while it is in use: %v", err)
	}
	oneNew := register.Owner{Name: Owner.Name, Keys: [2][32]byte{{1}, {9}}}
	if r := Create(t, s, oneNew, register.ID{2}, 2, Both(2)); r.RID == second.RID {
		t.Error("the replaced node got an old register")
	}
	if _, err := s.Create(ctx, oneNew, register.ID{3}, 1, register.Content{}); !errors.Is(err, register.ErrUnknownSite) {
		t.Errorf("the site changes while one node stays: %v", err)
	}
	allNew := register.Owner{Name: Owner.Name, Keys: [2][32]byte{{7}, {8}}}
	Create(t, s, allNew, register.ID{3}, 1, register.Content{})
	if rids, err := s.List(ctx, allNew); err != nil || len(rids) != 1 {
		t.Errorf("registers of the site before: %x, %v", rids, err)
	}
	Create(t, s, register.Owner{Name: "site-2", Keys: [2][32]byte{{3}, {4}}}, register.ID{2}, 1, Both(1)) // it is free again
}

func strangers(t *testing.T, m Medium) {
	ctx, s := t.Context(), m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	other := register.Owner{Name: "site-2", Keys: [2][32]byte{{3}, {4}}}
	if _, err := s.Create(ctx, other, Site, 1, Both(1)); !errors.Is(err, register.ErrUnknownSite) {
		t.Errorf("another enrolment takes the site: %v", err)
	}
	if _, _, err := s.Push(ctx, other, r.RID, 5); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("another enrolment reaches the register: %v", err)
	}
	if _, _, err := s.CAS(ctx, Owner, register.ID{9}, Both(1), OnlyA(2)); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("an unknown register: %v", err)
	}
	if rids, err := s.List(ctx, other); err != nil || len(rids) != 0 {
		t.Errorf("a list of nothing: %x, %v", rids, err)
	}
	if after, done, err := s.Push(ctx, Owner, r.RID, 1); err != nil || !done || after != r {
		t.Errorf("a refusal left something behind: %+v %v %v", after, done, err)
	}
}

func openedAgain(t *testing.T, m Medium) {
	s := m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	if _, _, err := s.CAS(t.Context(), Owner, r.RID, Both(1), OnlyA(2)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = m.Open(t)
	if got, done, err := s.CAS(t.Context(), Owner, r.RID, Both(1), OnlyA(2)); err != nil || !done || got.Sequence != 2 {
		t.Errorf("after opening again: %+v %v %v", got, done, err)
	}
	if rids, err := s.List(t.Context(), Owner); err != nil || !slices.Equal(rids, []register.ID{r.RID}) {
		t.Errorf("list: %x, %v", rids, err)
	}
}

func newIdentity(t *testing.T, m Medium) {
	s := m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	s.Close()
	s = m.NewIdentity(t)
	if _, _, err := s.CAS(t.Context(), Owner, r.RID, Both(1), OnlyA(2)); !errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("an old register: %v", err)
	}
	if rids, err := s.List(t.Context(), Owner); err != nil || len(rids) != 0 {
		t.Errorf("list: %x, %v", rids, err)
	}
	again := Create(t, s, Owner, Site, 1, Both(1))
	if again.RID == r.RID {
		t.Error("a late CREATE brought the old rid back")
	}
	s.Close()
	s = m.Open(t)
	if _, done, err := s.Push(t.Context(), Owner, again.RID, 2); err != nil || !done {
		t.Errorf("the new register at the next start: %v %v", done, err)
	}
}

// Of many that go from the same content, one wins; all hear the same register afterwards.
func manyAtOnce(t *testing.T, m Medium) {
	const racers = 16
	s := m.Open(t)
	r := Create(t, s, Owner, Site, 1, Both(1))
	type outcome struct {
		epoch register.Epoch
		after register.Register
		done  bool
		err   error
	}
	outcomes := make(chan outcome)
	for n := range register.Epoch(racers) {
		go func() {
			after, done, err := s.CAS(context.Background(), Owner, r.RID, Both(1), OnlyA(n+2))
			outcomes <- outcome{n + 2, after, done, err}
		}()
	}
	var winners []register.Epoch
	seen := map[register.Register]bool{}
	for range racers {
		o := <-outcomes
		if o.err != nil {
			t.Fatal(o.err)
		}
		seen[o.after] = true
		if o.done {
			winners = append(winners, o.epoch)
		}
	}
	if len(winners) != 1 || len(seen) != 1 || !seen[register.Register{RID: r.RID, Site: Site, CreateNonce: 1, Content: OnlyA(winners[0]), Sequence: 2}] {
		t.Errorf("winners %v, registers %+v", winners, seen)
	}
}

func description(t *testing.T, m Medium) {
	s := m.Open(t)
	Create(t, s, Owner, Site, 1, Both(1))
	Create(t, s, Owner, Site, 2, Both(1))
	Create(t, s, register.Owner{Name: "site-2", Keys: [2][32]byte{{3}, {4}}}, register.ID{2}, 1, Both(1))
	sites, registers, err := s.Count(t.Context())
	if err != nil || sites != 2 || registers != 3 || s.Kind() == "" || s.Health() != nil {
		t.Errorf("%d sites, %d registers, %v; %q, %v", sites, registers, err, s.Kind(), s.Health())
	}
}
