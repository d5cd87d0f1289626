package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"duet/witness/register"
)

// change is one request that may write. do decides first and writes last: what it refuses leaves nothing in the
// transaction, which other requests share.
type change struct {
	do     func(*bbolt.Tx) error
	answer chan error // buffered: the writer never waits for a caller
}

// errUnchanged ends a change that has nothing to write: a repeat costs no sync.
var errUnchanged = errors.New("unchanged")

// errClosed is the end of the process: whoever asks then gets no answer.
var errClosed = errors.New("the store is closed")

// changesMax in one transaction: it bounds what one sync waits for. A site has two nodes and each one question.
const changesMax = 1024

// change has do carried out; it is durable when change returns nil. A caller whose ctx ends first knows nothing.
func (s *Store) change(ctx context.Context, do func(*bbolt.Tx) error) error {
	c := change{do: do, answer: make(chan error, 1)}
	select {
	case s.changes <- c:
	case <-s.quit:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", register.ErrNoAnswer, ctx.Err())
	}
	select {
	case err := <-c.answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", register.ErrNoAnswer, ctx.Err())
	}
}

// write carries changes out, as many together as wait.
func (s *Store) write() {
	for {
		select {
		case <-s.quit:
			return
		case c := <-s.changes:
			s.apply(s.gather(c))
		}
	}
}

func (s *Store) gather(first change) []change {
	batch := []change{first}
	for len(batch) < changesMax {
		select {
		case c := <-s.changes:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// apply answers every change of the batch after its transaction is durable, or all of them with the death of the store.
func (s *Store) apply(batch []change) {
	answers := make([]error, len(batch))
	if err := s.transact(batch, answers); err != nil {
		for i := range answers {
			answers[i] = err
		}
	}
	for i, c := range batch {
		c.answer <- answers[i]
	}
}

func (s *Store) transact(batch []change, answers []error) (err error) {
	if err := s.alive(); err != nil {
		return err
	}
	defer s.catch(&err)
	s.step("begin")
	err = s.db.Update(func(tx *bbolt.Tx) error {
		changed := false
		for i, c := range batch {
			err := c.do(tx)
			switch {
			case err == nil:
				changed = true
			case errors.Is(err, errUnchanged):
			case errors.Is(err, register.ErrUnknownRegister), errors.Is(err, register.ErrUnknownSite), errors.Is(err, register.ErrCorrupt):
				answers[i] = err
			default:
				return err
			}
		}
		if !changed {
			return errUnchanged
		}
		s.step("commit")
		return nil
	})
	s.step("committed")
	if err == nil || errors.Is(err, errUnchanged) {
		return nil
	}
	return s.die(err)
}

func (s *Store) view(do func(*bbolt.Tx) error) (err error) {
	if err := s.alive(); err != nil {
		return err
	}
	defer s.catch(&err)
	return s.db.View(do)
}

func (s *Store) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// die is final: an error of write or sync says that nothing is known about the medium any more.
func (s *Store) die(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead == nil {
		s.dead = fmt.Errorf("the store failed and serves nothing until it is started again: %w", err)
	}
	return s.dead
}

// catch turns a panic of bbolt over a damaged file into the death of the store: other sites' requests get an error,
// not a closed connection without a reason, and nothing is answered from pages that contradict each other.
func (s *Store) catch(err *error) {
	if p := recover(); p != nil {
		*err = s.die(fmt.Errorf("damaged file: %v", p))
	}
}
