package membership

// give makes n the owner: every change of an owner raises the version by one (section 3).
func (o Owner) give(n Node) Owner {
	if o.Version != 0 && o.Node == n {
		return o
	}
	return Owner{n, o.Version + 1}
}

// Of is the set of resources that n owns.
func (o *Owners) Of(n Node) Resources {
	var set Resources
	for i, w := range o {
		if w.Version != 0 && w.Node == n {
			set |= 1 << i
		}
	}
	return set
}

// mergeOwners takes the higher version per resource (R13). Equal versions with different owners are a fault.
func mergeOwners(x, y Owners) (Owners, bool) {
	for i := range x {
		switch {
		case y[i].Version > x[i].Version:
			x[i] = y[i]
		case y[i].Version == x[i].Version && y[i] != x[i]:
			return x, false
		}
	}
	return x, true
}

// mergeLegs takes the higher version per volume. At equal ones a leg may be pending on one side and in on the other (R24):
// it is in.
func mergeLegs(x, y Legs) Legs {
	for i := range x {
		switch {
		case y[i].Version > x[i].Version:
			x[i] = y[i]
		case y[i].Version == x[i].Version:
			x[i].Set |= y[i].Set
		}
		x[i].Pending = false
	}
	return x
}

// inSync is the table of a founding: every leg of every volume.
func (l Legs) inSync() Legs {
	l, _ = l.joined(l, [2]Volumes{})
	return l
}

// joined is the table after a completed join: every leg of every volume, but for those that stay out because they are broken.
// held is where every acknowledged write was before it: without a healthy leg among those there is no such table (false).
func (l Legs) joined(held Legs, out [2]Volumes) (Legs, bool) {
	for i, v := range l {
		set := healthy(out, VolumeSlot(i)) //nolint:gosec // an index of the table
		switch {
		case v.Version == 0:
			continue
		case set == Nobody, set != Both && held[i].Set&set == 0 && !mutant("R14 held"):
			return l, false
		}
		if v.Set != set {
			l[i] = VolumeLegs{Set: set, Resource: v.Resource, Version: v.Version + 1}
		}
	}
	return l, true
}

// agree says whether the table is that of a join in which these legs stayed out.
func (l Legs) agree(out [2]Volumes) bool {
	for i, v := range l {
		if v.Version != 0 && v.Set != healthy(out, VolumeSlot(i)) { //nolint:gosec // an index of the table
			return false
		}
	}
	return true
}

// healthy are the legs of v that are not broken.
func healthy(out [2]Volumes, v VolumeSlot) Set {
	set := Both
	for n := range out {
		if out[n].Has(v) && !mutant("R14 out") {
			set &^= Only(Node(n)) //nolint:gosec // two
		}
	}
	return set
}

// among is what duet-mirrord may believe of the table: a leg counts only while its node is a member. A
// table without such a leg is left as it is: the volume waits for that node (R23s).
func (l Legs) among(members Set) Legs {
	for i, v := range l {
		if set := v.Set & members; set != 0 {
			l[i].Set = set
		}
	}
	return l
}

// owners is the table that counts at this moment. While a tuple is prepared a resource is mine only if the
// committed and the prepared table say so, else the peer's (R5, mutants M25, N24).
func (s *State) owners() Owners {
	if s.Rec.Prep.Ep == 0 {
		return s.Rec.Owners
	}
	o := s.Rec.Prep.Owners
	if mutant("N24") || mutant("M25") {
		return o
	}
	for i, p := range o {
		c := s.Rec.Owners[i]
		if p.Version == 0 || p.Node != s.self() || c.Version != 0 && c.Node == s.self() {
			continue
		}
		o[i] = Owner{s.peer(), max(p.Version, c.Version) + 1}
	}
	return o
}

// ownedSet is what this node owns by owners.
func (t *turn) ownedSet() Resources {
	o := t.s.owners()
	return o.Of(t.s.self())
}

// ownedByRecord is what this node owns by the committed table alone, and may therefore still run.
func (t *turn) ownedByRecord() Resources { return t.s.Rec.Owners.Of(t.s.self()) }

// somethingToTake is R10's haste: the peer owns something besides the pair.
func (t *turn) somethingToTake() bool {
	return t.s.Rec.Owners.Of(t.s.peer())&^(1<<PairResource) != 0
}
