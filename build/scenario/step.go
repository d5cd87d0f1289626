package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/build/lab"
)

// A step is one line of a scenario: a verb of the lab with its words ("link all cut"), or one of the words below. Where
// a node is meant, "owner" and "other" stand for the node that runs the VM when the case begins, and its peer, so one
// line serves both directions.
//
//	pause D           let the site run for a while
//	until NODE MODE   wait for the product's own word: paired, solo, frozen, ...
//	paired            wait until both are paired and every leg is in sync
//	runs NODE         wait until the VM's process lives there
//	witness-lost      wait until every living node says that it does not reach the witness
//	witness-back      wait until every living node reaches it again
//	arbiter WORD      wait until both nodes may go on alone by this: witness, fencing
//	replace-witness   order a fresh register, on the pair owner, and wait until it is in force
//	fed NODE          wait until the outlets of NODE are on: who was fenced by them is given power again by the product
//	duet NODE WORDS   an order of a person on that node
//	readmit NODE      order a new leg for every volume whose leg on NODE is dead; at least one must be
//	writes NODE       begin to write on NODE; what was acknowledged before stays known
type step []string

// labVerbs are the verbs of the lab that a step may use.
var labVerbs = []string{"cut", "on", "cycle", "reset", "crash", "panic", "hang", "resume", "psu", "link", "bmc", "pdu", "witness", "clock", "kill", "disk"}

// ownWords maps each word of this package to the number of words that follow it; -1: a node and an order.
var ownWords = map[string]int{
	"pause": 1, "until": 2, "paired": 0, "runs": 1, "witness-lost": 0, "witness-back": 0, "writes": 1, "fed": 1, "arbiter": 1, "replace-witness": 0,
	"readmit": 1,
	"duet":    -1,
}

// parseStep refuses what do would not understand.
func parseStep(text string) (step, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, errors.New("an empty step")
	}
	n, own := ownWords[words[0]]
	switch {
	case own && n < 0 && len(words) < 3:
		return nil, fmt.Errorf("step %q: a node and an order follow", text)
	case own && n >= 0 && len(words) != n+1:
		return nil, fmt.Errorf("step %q: %d words follow %q", text, n, words[0])
	case own && words[0] == "pause":
		if _, err := time.ParseDuration(words[1]); err != nil {
			return nil, fmt.Errorf("step %q: %w", text, err)
		}
	case !own && !slices.Contains(labVerbs, words[0]):
		return nil, fmt.Errorf("step %q: no such word", text)
	}
	return words, nil
}

// roles gives "owner" and "other" their nodes.
func (st step) roles(owner string) step {
	out := make(step, len(st))
	for i, w := range st {
		name, part, has := strings.Cut(w, ".") // "owner.1" is the owner's drive 1
		switch name {
		case "owner":
			name = owner
		case "other":
			name = other(owner)
		}
		out[i] = name
		if has {
			out[i] += "." + part
		}
	}
	return out
}

// role is the node a role stands for.
func role(name, owner string) string { return step{name}.roles(owner)[0] }

// do carries out one step.
func (s *Site) do(ctx context.Context, text, owner string) error {
	parsed, err := parseStep(text)
	if err != nil {
		return err
	}
	st := parsed.roles(owner)
	if _, own := ownWords[st[0]]; !own {
		if err := s.Lab.Call(ctx, nil, st[0], st[1:]...); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(st, " "), err)
		}
		return nil
	}
	switch st[0] {
	case "pause":
		d, err := time.ParseDuration(st[1])
		if err != nil {
			return err
		}
		return s.pause(ctx, d)
	case "until":
		return s.waitMode(ctx, st[1], st[2])
	case "paired":
		return s.wait(ctx, "both paired", rejoinLimit, func() (bool, string) { return s.paired(ctx) })
	case "runs":
		return s.wait(ctx, VMName+" on "+st[1], takeoverLimit, func() (bool, string) { return s.runsOn(ctx, st[1]), "not running there" })
	case "fed":
		return s.fed(ctx, st[1])
	case "arbiter":
		return s.arbiter(ctx, st[1])
	case "replace-witness":
		return s.replaceWitness(ctx)
	case "readmit":
		return s.readmit(ctx, st[1])
	case "witness-lost":
		return s.witnessSaid(ctx, false)
	case "witness-back":
		return s.witnessSaid(ctx, true)
	case "duet":
		if text, err := s.Lab.Exec(ctx, st[1], append([]string{"duet"}, st[2:]...)...); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(st, " "), err, text)
		}
		return nil
	default: // writes
		if err := s.probe.collect(ctx); err != nil {
			return err
		}
		return s.probe.start(st[1])
	}
}

// witnessSaid waits until every living node says that it reaches the witness, or that it does not.
func (s *Site) witnessSaid(ctx context.Context, want bool) error {
	return s.everySays(ctx, fmt.Sprintf("witness reached: %v", want), func(st api.Site) bool { return st.Witness.Reached == want })
}

// everySays waits until the status of every living node is as it should be.
func (s *Site) everySays(ctx context.Context, what string, is func(api.Site) bool) error {
	return s.wait(ctx, what, takeoverLimit, func() (bool, string) {
		for _, node := range []string{lab.A, lab.B} {
			if power, err := s.power(ctx, node); err != nil || power != "on" {
				continue
			}
			st, err := s.Status(ctx, node)
			if err != nil {
				return false, err.Error()
			}
			if !is(st) {
				return false, node + ": " + st.Sentence
			}
		}
		return true, ""
	})
}

// readmit gives the order of a person who has mended a drive.
func (s *Site) readmit(ctx context.Context, node string) error {
	st, err := s.Status(ctx, node)
	if err != nil {
		return err
	}
	dead := 0
	for _, v := range st.Volumes {
		if v.Leg != "failed" && v.Leg != "ejected" {
			continue
		}
		dead++
		if err := s.do(ctx, "duet "+node+" volume readmit "+v.Name, node); err != nil {
			return err
		}
	}
	if dead == 0 {
		return fmt.Errorf("no leg of node %s is dead", node)
	}
	return nil
}

// fed waits until both outlets of a node are on.
func (s *Site) fed(ctx context.Context, node string) error {
	return s.wait(ctx, "outlets of "+node+" on", takeoverLimit, func() (bool, string) {
		st, err := s.Lab.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, psu := range st.Machines[node].PSUs {
			if !st.Outlets[psu.Outlet-1] {
				return false, fmt.Sprintf("outlet %d is off", psu.Outlet)
			}
		}
		return true, ""
	})
}

// power is the lab's word: on, off, crashed or hung.
func (s *Site) power(ctx context.Context, machine string) (string, error) {
	st, err := s.Lab.Status(ctx)
	if err != nil {
		return "", err
	}
	return st.Machines[machine].Power, nil
}
