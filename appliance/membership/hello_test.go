package membership

import (
	"slices"
	"testing"
)

// at is a node that booted with this record.
func at(self Node, r Record) State {
	s, _ := Step(State{Cfg: durations(self)}, Input{Now: 100 * second, Fresh: 1, Event: Boot{r}})
	return s
}

func member(ep Epoch, members Set) Record {
	r := Record{Seq: uint64(ep), Site: ID{1}, Ep: ep, Members: members, High: ep, Consistent: true, Arb: Arb{ArbWitness, ID{7}}}
	r.Owners[0], r.Owners[1] = Owner{A, 1}, Owner{A, 1}
	return r
}

// hears is what a node becomes when it connects and hears h.
func hears(t *testing.T, s State, h Record) (State, []Effect) {
	t.Helper()
	s, _ = Step(s, Input{Now: 101 * second, Fresh: 2, Event: Connected{5}})
	in := Input{Now: 101 * second, Fresh: 3, Event: Received{5, Hello{h}}}
	after, effects := Step(s, in)
	if err := CheckStep(s, after, in, effects); err != nil {
		t.Error(err)
	}
	if err := CheckState(after); err != nil {
		t.Error(err)
	}
	return after, effects
}

// HELLO without a match: never a guess (protocol.md section 6).
func TestHelloWithoutMatch(t *testing.T) {
	otherSite := member(5, Both)
	otherSite.Site = ID{2}
	conflict := member(5, Both)
	conflict.Owners[1] = Owner{B, 1}
	for _, c := range []struct {
		name     string
		mine     Record
		peers    Record
		mode     Mode
		report   ReportCode
		stopsAll bool
	}{
		{"another site", member(5, Both), otherSite, Init, ReportOtherSite, false},
		{"a fellow member far behind", member(9, Both), member(5, Both), Init, ReportHelloUnmatched, false},
		{"a fellow member far ahead", member(5, Both), member(9, Both), Init, ReportHelloUnmatched, false},
		{"equal versions, different owners", member(5, Both), conflict, Init, ReportOwnersConflict, false},
		{"two solo sides", member(5, OnlyA), member(4, OnlyB), Frozen, ReportDiverged, true},
		{"two solo sides, the other later", member(5, OnlyA), member(8, OnlyB), Frozen, ReportDiverged, true},
		{"a solo node behind a later pair", member(5, OnlyA), member(8, Both), Frozen, ReportRecordOlder, true},
		{"a claim above a solo node", member(5, OnlyA), member(8, OnlyA), Solo, ReportHelloUnmatched, false},
		{"a fresh node beside a member", Record{}, member(5, Both), Init, ReportFreshWaits, false},
		{"a site beside a fresh node", member(5, Both), Record{}, Init, ReportFreshPeer, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, effects := hears(t, at(A, c.mine), c.peers)
			if s.Mode != c.mode || s.Rec != c.mine {
				t.Errorf("%v with %s", s.Mode, recordWord(s.Rec))
			}
			if !slices.Contains(effects, Effect(Report{c.report})) {
				t.Errorf("no report %v in %v", c.report, effects)
			}
			if got := slices.Contains(effects, Effect(Stop{All: true})); got != c.stopsAll {
				t.Errorf("stops all: %t", got)
			}
		})
	}
}

// A solo node that a fault holds stays held: no later session, witness or timer resolves a divergence.
func TestHeldSoloStaysHeld(t *testing.T) {
	s, _ := hears(t, at(A, member(5, OnlyA)), member(8, OnlyB))
	s, _ = Step(s, Input{Now: 110 * second, Fresh: 4, Event: PeerLost{5}})
	s, effects := Step(s, Input{Now: 120 * second, Fresh: 5, Event: Timer{TimerArbitrate}})
	for _, e := range effects {
		if _, asks := e.(AskWitness); asks {
			t.Errorf("asks the witness: %v", e)
		}
	}
	s, _ = hears(t, s, member(8, OnlyB))
	if s.Mode != Frozen || s.Rec != member(5, OnlyA) {
		t.Errorf("%v with %s", s.Mode, recordWord(s.Rec))
	}
}

// The witness that forgot the register never grants; the node asks again later (section 11).
func TestUnknownRegister(t *testing.T) {
	s := at(A, member(5, Both))
	s, effects := Step(s, Input{Now: 120 * second, Fresh: 9, Event: Timer{TimerArbitrate}})
	if !slices.Contains(effects, Effect(AskWitness{ID{7}, 9, RegisterContent{5, Both}, RegisterContent{6, OnlyA}})) {
		t.Fatalf("does not ask: %v", effects)
	}
	s, effects = Step(s, Input{Now: 121 * second, Fresh: 10, Event: WitnessReply{Nonce: 9, RID: ID{7}, Result: WitnessUnknown}})
	if s.Mode != Init || s.Ask != (Ask{}) || !slices.Contains(effects, Effect(Report{ReportWitnessUnknown})) {
		t.Errorf("%v, %v", s.Mode, effects)
	}
	if !slices.Contains(effects, Effect(Arm{TimerArbitrate, 123 * second})) {
		t.Errorf("does not ask again: %v", effects)
	}
}

// CheckState and CheckStep can fail.
func TestChecksCanFail(t *testing.T) {
	s := at(A, member(5, Both))
	bad := map[string]func(*State){
		"high":     func(s *State) { s.Rec.High = 1 },
		"prep":     func(s *State) { s.Rec.Prep.Ep = 5 },
		"solo":     func(s *State) { s.Mode = Solo },
		"joining":  func(s *State) { s.Mode = Joining },
		"session":  func(s *State) { s.Mode = Paired },
		"asks":     func(s *State) { s.Ask.Nonce, s.Session = 1, 1 },
		"fresh":    func(s *State) { s.Rec.Site = ID{} },
		"prepare":  func(s *State) { s.Copy = PrepareSent },
		"no legs":  func(s *State) { s.Rec.Legs[3].Version = 1 },
		"unpaired": func(s *State) { s.Mode, s.Session, s.Rec.Members = Paired, 1, OnlyA },
	}
	for name, spoil := range bad {
		x := s
		spoil(&x)
		if CheckState(x) == nil {
			t.Errorf("%s passes", name)
		}
	}
	in := Input{Now: 1, Event: Resume{}}
	low := s
	low.Rec.Owners[1].Version, low.Rec.Seq = 0, s.Rec.Seq+1
	for name, err := range map[string]error{
		"owner version":       CheckStep(s, low, in, nil),
		"unrecorded change":   CheckStep(s, at(A, member(5, OnlyA)), in, nil),
		"back in time":        CheckStep(at(A, member(6, Both)), s, in, nil),
		"stop after persist":  CheckStep(s, s, in, []Effect{Persist{s.Rec}, Stop{All: true}}),
		"persist after grant": CheckStep(s, s, in, []Effect{Grant{}, Persist{s.Rec}}),
		"start without owner": CheckStep(s, s, in, []Effect{Start{2, 5}}),
		"start of old epoch":  CheckStep(s, s, in, []Effect{Start{1, 4}}),
	} {
		if err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
