package scenario

import (
	"context"
	"fmt"
	"time"

	"duet/build/probe"
)

// KillEpisodes kill each daemon of each node under load: the guest must not see an error, and nobody else takes over.
func KillEpisodes() []Episode {
	var episodes []Episode
	for _, unit := range []string{"duetd", "duet-mirrord"} {
		for _, role := range []string{"owner", "peer"} {
			name := "kill_" + unit + "_" + role
			episodes = append(episodes, Episode{Name: name, Play: killDaemon(name, unit, role)})
		}
	}
	return episodes
}

func killDaemon(name, unit, role string) func(context.Context, *Site, *Report) error {
	return func(ctx context.Context, s *Site, r *Report) error {
		owner, err := s.Owner(ctx)
		if err != nil {
			return err
		}
		node := owner
		if role == "peer" {
			node = other(owner)
		}
		before, err := s.Lab.Status(ctx)
		if err != nil {
			return err
		}
		guest, err := s.console(owner)
		if err != nil {
			return err
		}
		from := time.Now()
		if err := s.Lab.Kill(ctx, node, unit); err != nil {
			return err
		}
		restarts := before.Machines[node].Services[unit].Restarts
		if err := s.wait(ctx, unit+" of "+node+" started again", takeoverLimit, func() (bool, string) {
			st, err := s.Lab.Status(ctx)
			if err != nil {
				return false, err.Error()
			}
			return st.Machines[node].Services[unit].Restarts > restarts, st.Machines[node].Services[unit].State
		}); err != nil {
			return err
		}
		if err := s.WaitSafe(ctx); err != nil {
			return err
		}
		if err := s.waitAcks(ctx); err != nil {
			return err
		}
		if err := s.noteStall(name, from, r); err != nil {
			return err
		}
		now, err := s.console(owner)
		if err != nil {
			return err
		}
		if len(now.Resumes) != len(guest.Resumes) {
			return fmt.Errorf("the guest on %s was started again: a restart of %s must not be seen by it", owner, unit)
		}
		return nil
	}
}

// FIO runs fio with crc32c verification against the probe volume on its owner while the other node's power is cut and
// restored. fio ends with an error when a block does not verify or any request fails. It writes behind the blocks of the
// probe, whose history goes on.
func (s *Site) FIO(ctx context.Context) error {
	owner, err := s.Owner(ctx)
	if err != nil {
		return err
	}
	s.Say("fio with verification on node %s while node %s loses its power and returns", owner, other(owner))
	done := make(chan error, 1)
	fioCtx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	own := int64(s.sizes.ProbeBlocks) * probe.BlockSize
	go func() {
		text, err := s.Lab.Exec(fioCtx, owner, "fio", "--name=verify", "--ioengine=nbd",
			"--uri=nbd+unix:///"+ProbeVolume+"?socket=/run/duet/nbd.sock", "--rw=randwrite", "--bs=4k",
			fmt.Sprintf("--offset=%d", own), fmt.Sprintf("--size=%d", s.sizes.ProbeBytes-own),
			"--iodepth=8", "--fsync=64", "--rate_iops=400", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--loops=1")
		if err != nil {
			err = fmt.Errorf("fio: %w\n%s", err, text)
		}
		done <- err
	}()
	if err := s.cutAndReturn(ctx, other(owner), owner, done); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	r := NewReport()
	if err := s.legsEqual(ctx, owner, r); err != nil {
		return err
	}
	if r.LegsDiffer > 0 {
		return fmt.Errorf("%d volumes have legs that differ after fio", r.LegsDiffer)
	}
	return nil
}

// cutAndReturn cuts the peer under fio's load; fio must still be running when the peer is in sync again, else the
// test would have proved less than it says.
func (s *Site) cutAndReturn(ctx context.Context, peer, owner string, fio <-chan error) error {
	if err := s.pause(ctx, 2*time.Second); err != nil {
		return err
	}
	if err := s.Lab.Cut(ctx, peer); err != nil {
		return err
	}
	if err := s.waitMode(ctx, owner, "solo"); err != nil {
		return err
	}
	if err := s.Lab.On(ctx, peer); err != nil {
		return err
	}
	if err := s.WaitSafe(ctx); err != nil {
		return err
	}
	select {
	case err := <-fio:
		return fmt.Errorf("fio ended before the peer was back: %w", err)
	default:
		return nil
	}
}
