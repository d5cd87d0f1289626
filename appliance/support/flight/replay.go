package flight

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"duet/appliance/membership"
)

// Summary is what a replay found; the last line of `duet support replay`.
type Summary struct {
	Files       int      `json:"files"`
	Entries     uint64   `json:"entries"`
	Inputs      uint64   `json:"inputs"`    // run through Step
	Snapshots   uint64   `json:"snapshots"` // compared byte by byte, but for those that replay began at
	Starts      uint64   `json:"starts"`    // of duetd
	Boots       uint64   `json:"boots"`     // of the node
	Gaps        uint64   `json:"gaps"`      // places where replay had to begin again
	Lost        uint64   `json:"lost"`      // entries that the recorder left out
	TornBytes   int64    `json:"torn_bytes"`
	First       uint64   `json:"first"`
	Last        uint64   `json:"last"`
	From        string   `json:"from"` // wall clock of the first state, for people
	To          string   `json:"to"`
	EndMode     string   `json:"end_mode"`
	EndEpoch    uint64   `json:"end_epoch"`
	StateDigest string   `json:"state_digest"` // of the last state
	Differences uint64   `json:"differences"`
	Difference  string   `json:"first_difference,omitempty"`
	Violations  uint64   `json:"violations"` // of what CheckStep and CheckState see
	Violation   string   `json:"first_violation,omitempty"`
	Refused     []string `json:"refused"` // files of another build, or no recordings
	Schema      string   `json:"schema"`
	Equal       bool     `json:"equal"` // all that was replayed, and something was
}

// Moment is one decision as replay sees it.
type Moment struct {
	Entry
	Wall          time.Time // for people: of the last snapshot, moved on by the node's own clock
	Before, After membership.State
	Done          []membership.Effect
	Restart       bool // the snapshot begins a story anew: nothing was compared
	Difference    string
	Violation     string
}

// Options of a replay.
type Options struct {
	Until uint64       // the last sequence; 0: all
	Each  func(Moment) // called for every entry, in order
}

// Replay runs a recording, a file or a folder, through this build's Step.
func Replay(path string, opt Options) (Summary, error) {
	files, err := listSegments(path)
	if err != nil {
		return Summary{}, err
	}
	p := &player{opt: opt}
	p.sum.Refused, p.sum.Schema = []string{}, ThisSchema.String()
	for _, file := range files {
		if err := p.file(file); err != nil {
			return p.sum, err
		}
		if p.over {
			break
		}
	}
	if len(files) == 0 {
		return p.sum, fmt.Errorf("%s holds no recording (*%s)", path, suffix)
	}
	if p.sum.Entries == 0 && p.refused != nil {
		return p.sum, p.refused
	}
	return p.finish(), nil
}

// player is a replay in progress.
type player struct {
	opt     Options
	sum     Summary
	refused error
	over    bool

	known bool // state is what the recording led to
	state membership.State
	next  uint64
	run   *run
	boot  string
	base  Snapshot // of wall and boot time
}

func (p *player) file(path string) error {
	s, err := readSegment(path)
	var foreign error
	switch {
	case errors.Is(err, ErrForeign):
		foreign = err
	case err != nil:
		return err
	case s.header.schema != ThisSchema:
		foreign = &SchemaError{File: path, Schema: s.header.schema, Build: s.header.build}
	}
	if foreign != nil {
		p.refused, p.known = foreign, false
		p.sum.Refused = append(p.sum.Refused, foreign.Error())
		return nil
	}
	p.sum.Files++
	p.sum.TornBytes += s.torn
	p.run = nil
	for _, f := range s.frames {
		entries, err := parseEntries(&p.run, f.first, f.count, f.entries)
		for _, e := range entries {
			if p.over = p.opt.Until != 0 && e.Seq > p.opt.Until; p.over {
				return nil
			}
			p.entry(e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

func (p *player) entry(e Entry) {
	if p.sum.Entries == 0 {
		p.sum.First = e.Seq
	}
	if e.Seq != p.next { // a file is missing, or its end was torn
		p.known = false
	}
	p.next = e.Seq + 1
	p.sum.Entries++
	p.sum.Last = e.Seq
	m := Moment{Entry: e, Before: p.state}
	if e.Snapshot != nil {
		p.snapshot(&m)
	} else {
		p.input(&m)
	}
	if m.Difference != "" {
		if p.sum.Differences++; p.sum.Difference == "" {
			p.sum.Difference = fmt.Sprintf("entry %d: %s", e.Seq, m.Difference)
		}
	}
	if m.Violation != "" {
		if p.sum.Violations++; p.sum.Violation == "" {
			p.sum.Violation = fmt.Sprintf("entry %d: %s", e.Seq, m.Violation)
		}
	}
	if p.opt.Each != nil {
		p.opt.Each(m)
	}
}

// snapshot is compared with what replay has reached, unless the recording says that something lies between.
func (p *player) snapshot(m *Moment) {
	s := m.Snapshot
	p.sum.Snapshots++
	p.sum.Lost += s.Lost
	if s.Reason == AtStart {
		p.sum.Starts++
	}
	if s.BootID != p.boot {
		p.boot = s.BootID
		p.sum.Boots++
	}
	if p.base.Wall.IsZero() {
		p.sum.From = s.Wall.Format(time.RFC3339)
	}
	p.base = *s
	m.Wall, m.Input.Now = s.Wall, s.Now
	if p.known && s.Reason != AtStart && s.Reason != AfterLoss {
		m.Difference = p.compareStates(&s.State)
	} else {
		m.Restart = true
		if p.sum.Entries > 1 && s.Reason != AtStart {
			p.sum.Gaps++
		}
	}
	p.state, p.known = s.State, true
	m.After = s.State
}

func (p *player) compareStates(recorded *membership.State) string {
	if p.state == *recorded {
		return ""
	}
	mine, err := stateBytes(&p.state)
	theirs, err2 := stateBytes(recorded)
	if err := errors.Join(err, err2); err != nil {
		return err.Error()
	}
	if bytes.Equal(mine, theirs) {
		return "the states differ in something that is not recorded"
	}
	return "the whole state differs: " + differences(p.state, *recorded)
}

// input runs one input through Step and compares.
func (p *player) input(m *Moment) {
	p.sum.Inputs++
	m.Wall = p.base.Wall.Add(time.Duration(m.Input.Now - p.base.Now))
	p.sum.To = m.Wall.Format(time.RFC3339)
	after, done, died := step(p.state, m.Input)
	m.After, m.Done = after, done
	if m.Died || died != "" {
		if m.Died != (died != "") {
			m.Difference = fmt.Sprintf("Step panicked here: %t, recorded: %t %s", died != "", m.Died, died)
		}
		return
	}
	if err := errors.Join(membership.CheckStep(p.state, after, m.Input, done), membership.CheckState(after)); err != nil {
		m.Violation = err.Error()
	}
	m.Difference = p.compare(m, after, done)
	p.state = after
}

// compare is a difference between what was recorded and what this build decides, in words; empty: none.
func (p *player) compare(m *Moment, after membership.State, done []membership.Effect) string {
	o, err := outcomeOf(after, done)
	if err != nil {
		return err.Error()
	}
	what := EventWords(m.Input.Event)
	state, actions := o.digests(&m.Entry)
	switch {
	case m.Changed != (after != p.state):
		return fmt.Sprintf("%s: recorded a change of the state: %t; replay: %t", what, m.Changed, after != p.state)
	case m.Acted != (len(done) > 0):
		return fmt.Sprintf("%s: recorded effects: %t; replay: %s", what, m.Acted, EffectsWords(done))
	case state != m.State && isBeat(m.Input.Event):
		return fmt.Sprintf("%s: state and effects are %x, recorded %x; replay: %s", what, state[:beatDigest], m.State[:beatDigest], EffectsWords(done))
	case state != m.State:
		return fmt.Sprintf("%s: state after it is %x, recorded %x", what, state, m.State)
	case actions != m.Effects:
		return fmt.Sprintf("%s: effects are %x, recorded %x; replay: %s", what, actions, m.Effects, EffectsWords(done))
	}
	return ""
}

// step survives a recording of an input that the core could not take.
func step(s membership.State, in membership.Input) (after membership.State, done []membership.Effect, died string) {
	after = s
	defer func() {
		if p := recover(); p != nil {
			after, done, died = s, nil, fmt.Sprint(p)
		}
	}()
	after, done = membership.Step(s, in)
	return after, done, ""
}

func (p *player) finish() Summary {
	if b, err := stateBytes(&p.state); err == nil {
		p.sum.StateDigest = fmt.Sprintf("%x", digest(b))
	}
	p.sum.EndMode, p.sum.EndEpoch = p.state.Mode.String(), uint64(p.state.Rec.Ep)
	p.sum.Equal = p.sum.Differences == 0 && p.sum.Inputs > 0
	return p.sum
}
