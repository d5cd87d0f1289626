package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"
)

// cell is one subject under one job for a few seconds.
type cell struct {
	load
	servers time.Duration // CPU
	foreign float64       // processors that others used meanwhile
	steal   float64       // processors that the hypervisor took
	span    time.Duration
}

// cells of one job: by subject, one a round.
type cells map[string][]cell

const cellSpare = 60 * time.Second // beyond its length, before a cell is given up

func measure(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	// Every child is killed when the thread that started it ends. The first goroutine's thread ends with the process.
	runtime.LockOSThread()
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "bench-mirror: "+format+"\n", args...) }
	todo, err := chosen(o.jobs, o.gate)
	if err != nil {
		return err
	}
	names, err := chosenSubjects(o.subjects, o.gate)
	if err != nil {
		return err
	}
	b := &bench{o: o, volumes: 1}
	for _, j := range todo {
		b.volumes = max(b.volumes, j.volumes())
	}
	if b.spaces, err = newSpaces(ctx); err != nil {
		return err
	}
	defer b.spaces.b.Close()
	defer b.stop()
	f := newFigures(ctx, o)
	say("seed %d, %d rounds of %v, legs of %d MiB; %v", o.seed, o.rounds, o.length, o.mib, f.Machine)
	var subjects []*subject
	for _, name := range names {
		s, err := b.prepare(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		l, err := fio(ctx, fillLimit, fillArgs(s.places, o.mib))
		if err != nil {
			return fmt.Errorf("%s: fill: %w", name, err)
		}
		say("%s is filled, %.0f MiB/s", name, l.perSecond)
		subjects = append(subjects, s)
	}
	var all []cells
	order := rand.New(rand.NewPCG(o.seed, 0))
	for _, j := range todo {
		some, err := b.job(ctx, j, subjects, order, say)
		if err != nil {
			return fmt.Errorf("%s: %w", j.Name, err)
		}
		all = append(all, some)
		if o.profile != "" {
			if err := b.profile(ctx, j, subjects); err != nil {
				return fmt.Errorf("%s: profile: %w", j.Name, err)
			}
		}
	}
	f.take(todo, all)
	return f.publish(o, todo, all, stdout, say)
}

const fillLimit = 5 * time.Minute

// job measures one job: every round all subjects, in another order.
func (b *bench) job(ctx context.Context, j job, subjects []*subject, order *rand.Rand, say func(string, ...any)) (cells, error) {
	subjects = slices.DeleteFunc(slices.Clone(subjects), func(s *subject) bool { return !j.runs(s.name) })
	some := cells{}
	for round := range b.o.rounds {
		order.Shuffle(len(subjects), func(i, k int) { subjects[i], subjects[k] = subjects[k], subjects[i] })
		for _, s := range subjects {
			c, err := b.cell(ctx, j, s, uint64(round))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			some[s.name] = append(some[s.name], c)
			say("%-18s round %d %-17s %8.0f/s  p50 %6.0f us  p99 %6.0f us  CPU %4.0f us  foreign %.2f",
				j.Name, round+1, s.name, c.perSecond, micros(c.latency.percentile(500)), micros(c.latency.percentile(990)),
				c.perOperation(c.servers), c.foreign)
		}
	}
	return some, nil
}

func (b *bench) cell(ctx context.Context, j job, s *subject, round uint64) (cell, error) {
	servers := s.pids()
	ours := append([]int{os.Getpid(), os.Getppid()}, servers...)
	before, err := read(servers)
	if err != nil {
		return cell{}, err
	}
	places := s.places
	if s.name != rawTwo {
		places = places[:j.volumes()]
	}
	l, err := fio(ctx, b.o.length+cellSpare, fioArgs(j, places, b.o.mib, b.o.length, b.o.seed+round))
	if err != nil {
		return cell{}, errors.Join(err, s.alive())
	}
	after, err := read(servers)
	if err != nil {
		return cell{}, errors.Join(err, s.alive())
	}
	span := after.at.Sub(before.at)
	if s.name == rawTwo { // a leg's part
		l.perSecond /= 2
	}
	return cell{
		load: l, servers: after.servers - before.servers, span: span,
		foreign: foreignLoad(before, after, ours, l.cpu),
		steal:   float64(after.steal-before.steal) / float64(span),
	}, nil
}

// alive tells of servers that ended.
func (s *subject) alive() error {
	var all error
	for _, one := range s.servers {
		select {
		case <-one.over:
			all = errors.Join(all, one.died())
		default:
		}
	}
	return all
}

func (c cell) perOperation(cpu time.Duration) float64 { return micros(cpu) / float64(c.ops) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// publish writes the line and the document, and ends with the gates.
func (f *figures) publish(o options, todo []job, all []cells, stdout io.Writer, say func(string, ...any)) error {
	if o.update != "" {
		text, err := os.ReadFile(o.update)
		if err != nil {
			return err
		}
		if text, err = replaceGenerated(text, f.tables(todo)); err != nil {
			return fmt.Errorf("%s: %w", o.update, err)
		}
		if err := os.WriteFile(o.update, text, 0o644); err != nil {
			return err
		}
	}
	if o.gate {
		f.GatesFailed = gates(todo, all, say)
	}
	if err := json.NewEncoder(stdout).Encode(f); err != nil {
		return err
	}
	if len(f.GatesFailed) > 0 {
		return fmt.Errorf("%w: %v", errGate, f.GatesFailed)
	}
	return nil
}
