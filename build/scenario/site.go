package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"duet/appliance/api"
	"duet/build/lab"
)

const pollEvery = 100 * time.Millisecond

// Limits of waits. They are generous: what is slow here is a loaded two-core machine, and the targets are judged from
// measured times, not from deadlines.
const (
	foundingLimit = 4 * time.Minute
	takeoverLimit = 90 * time.Second
	rejoinLimit   = 2 * time.Minute
	guestLimit    = 90 * time.Second
)

// Site is a founded site in a lab.
type Site struct {
	Lab *lab.Lab
	// Say tells a person what happens; it is never nil.
	Say func(format string, args ...any)

	sizes     Sizes
	probe     *probeLoad
	guestTold int // complaints about the guest that are in the report already
}

// Up is UpSized with the usual sizes.
func Up(ctx context.Context, opts lab.Options, say func(format string, args ...any)) (*Site, error) {
	return UpSized(ctx, opts, Usual, say)
}

// UpSized starts a lab, founds the pair and waits until the guest counts.
func UpSized(ctx context.Context, opts lab.Options, sizes Sizes, say func(format string, args ...any)) (*Site, error) {
	opts.Progress = func(text string) { say("%s", text) }
	if opts.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		opts.Bin = filepath.Dir(exe)
	}
	boot, err := prepareGuest(opts.Bin)
	if err != nil {
		return nil, err
	}
	l, err := lab.Up(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &Site{Lab: l, Say: say, sizes: sizes}
	s.probe = &probeLoad{site: s}
	if err := s.found(ctx, boot); err != nil {
		return nil, errors.Join(err, s.Down())
	}
	return s, nil
}

// Down ends the lab, also when the context of the caller has ended.
func (s *Site) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s.probe.stop()
	return s.Lab.Down(ctx)
}

// Status is what the product says on one node.
// A node that does not run is not asked: a hung one would never answer.
func (s *Site) Status(ctx context.Context, node string) (api.Site, error) {
	var st api.Site
	power, err := s.power(ctx, node)
	if err == nil && power != "on" {
		err = fmt.Errorf("node %s is %s", node, power)
	}
	if err != nil {
		return st, err
	}
	err = s.duet(ctx, node, &st, "status")
	return st, err
}

func (s *Site) duet(ctx context.Context, node string, out any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := s.Lab.Exec(ctx, node, append(append([]string{"duet"}, args...), "-o", "json")...)
	if err != nil {
		return fmt.Errorf("duet %v on %s: %w", args, node, err)
	}
	return json.Unmarshal(bytes.TrimSpace(text), out)
}

// wait polls until ready says so; what it last said is part of the error.
func (s *Site) wait(ctx context.Context, what string, limit time.Duration, ready func() (bool, string)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	started, told := time.Now(), time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, seen := ready()
		if ok {
			return nil
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			s.Say("  waiting for %s, %.0f s: %s", what, time.Since(started).Seconds(), seen)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not come in %.0f s: %s", what, time.Since(started).Seconds(), seen)
		}
	}
}

// WaitSafe waits until both nodes say that they are paired at one epoch, every leg is in sync, the VM runs and its
// guest counts.
func (s *Site) WaitSafe(ctx context.Context) error {
	if err := s.wait(ctx, "both nodes paired and in sync", rejoinLimit, func() (bool, string) { return s.paired(ctx) }); err != nil {
		return err
	}
	return s.waitGuest(ctx)
}

func (s *Site) paired(ctx context.Context) (bool, string) {
	var epochs [2]uint64
	for i, node := range []string{lab.A, lab.B} {
		st, err := s.Status(ctx, node)
		if err != nil {
			return false, err.Error()
		}
		if st.Mode != "paired" || len(st.Members) != 2 || st.Setup != "complete" {
			return false, fmt.Sprintf("%s: %s, setup %s, %s", node, st.Mode, st.Setup, st.Sentence)
		}
		for _, v := range st.Volumes {
			if v.Stage != "paired" || len(v.InSync) != 2 {
				return false, fmt.Sprintf("%s: volume %s is %s", node, v.Name, v.Stage)
			}
		}
		epochs[i] = st.Epoch
	}
	return epochs[0] == epochs[1], fmt.Sprintf("epochs %d and %d", epochs[0], epochs[1])
}

func (s *Site) waitGuest(ctx context.Context) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	before, err := s.console(owner)
	if err != nil {
		return err
	}
	return s.wait(ctx, "the guest's counter on "+owner, guestLimit, func() (bool, string) {
		now, err := s.console(owner)
		if err != nil {
			return false, err.Error()
		}
		return now.Acks > before.Acks+1, fmt.Sprintf("%d acknowledged", now.LastAck)
	})
}

// Owner is the node that runs the VM, by the product's word on a node that is paired or solo.
func (s *Site) Owner(ctx context.Context) (string, error) {
	var problems []error
	for _, node := range []string{lab.A, lab.B} {
		st, err := s.Status(ctx, node)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if st.Mode != "paired" && st.Mode != "solo" {
			continue
		}
		for _, vm := range st.VMs {
			if vm.Name == VMName && vm.Owner != "" {
				return vm.Owner, nil
			}
		}
	}
	return "", errors.Join(append(problems, errors.New("no node that serves names an owner of "+VMName))...)
}

func other(node string) string {
	if node == lab.A {
		return lab.B
	}
	return lab.A
}

// console reads the guest's console of one node, from outside the node.
func (s *Site) console(node string) (Console, error) {
	return ReadConsole(s.nodeFile(node, "/var/log/duet/vm-"+VMName+".log"))
}

// nodeFile is where a file of a node's own root lies on this machine. Only files outside the node's drives are there.
func (s *Site) nodeFile(node, path string) string {
	return filepath.Join(s.Lab.State(), node, "upper", path)
}
