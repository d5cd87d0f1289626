package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/build/lab"
)

// pair is a database on two nodes in a lab, whoever keeps it.
type pair interface {
	// inSync says who is primary when the pair could lose either node without losing a row; otherwise what is missing.
	inSync(ctx context.Context) (primary string, err error)
	// switchover moves the primary by order. A refusal that leaves everything as it was is errNotNow.
	switchover(ctx context.Context, primary string) error
	// sql runs a statement on a node, as the server's superuser by its socket.
	sql(ctx context.Context, node, database, statement string) ([]byte, error)
	// url is what a client is given.
	url() string
	// site is the lab that it is in.
	site() *lab.Lab
	down() error
}

var errNotNow = errors.New("not now")

// The pairs.
const (
	duetPair     = "duet"
	patroniUsual = "patroni-default"
	patroniLeast = "patroni-minimum"
)

var pairNames = []string{duetPair, patroniUsual, patroniLeast}

// up brings a pair up, without rows and writers.
func up(ctx context.Context, o options, name string) (pair, error) {
	switch name {
	case duetPair:
		return upDuet(ctx, o)
	case patroniUsual:
		return upPatroni(ctx, o, name, timing{TTL: 30, LoopWait: 10, RetryTimeout: 10})
	case patroniLeast:
		return upPatroni(ctx, o, name, timing{TTL: 20, LoopWait: 1, RetryTimeout: 3})
	}
	return nil, fmt.Errorf("no pair %q", name)
}

// The database of the writers.
const (
	databaseUser = "app"
	databaseName = "app"
	databaseWord = "lab-only-4711"
	databasePort = "5432"
)

// The nodes on the network of the clients.
const (
	addressA = "198.51.100.11"
	addressB = "198.51.100.12"
)

// labMiB holds a data directory, its log, and a copy beside it.
const labMiB = 1024

// prepare makes user, database and table.
func prepare(ctx context.Context, p pair, primary string) error {
	for _, in := range [][2]string{
		{"postgres", "CREATE ROLE " + databaseUser + " LOGIN PASSWORD '" + databaseWord + "'"},
		{"postgres", "CREATE DATABASE " + databaseName + " OWNER " + databaseUser},
		{databaseName, "SET ROLE " + databaseUser + "; CREATE TABLE rows (writer int, n int)"},
	} {
		if _, err := p.sql(ctx, primary, in[0], in[1]); err != nil {
			return err
		}
	}
	return nil
}

func other(node string) string {
	if node == lab.A {
		return lab.B
	}
	return lab.A
}

// fault is something that happens to a pair.
type fault struct {
	name, text string
	// play does it. It says which node has to be switched on again afterwards, if any.
	play func(ctx context.Context, p pair, primary string) (off string, err error)
}

var faults = []fault{
	{"switchover", "planned switchover", func(ctx context.Context, p pair, primary string) (string, error) {
		return "", until(ctx, syncLimit, "the switchover", func(ctx context.Context) error {
			err := p.switchover(ctx, primary)
			if err != nil && !errors.Is(err, errNotNow) {
				return final{err}
			}
			return err
		})
	}},
	{"crash", "kill -9 of the primary's postmaster", func(ctx context.Context, p pair, primary string) (string, error) {
		return "", kill(ctx, p, primary)
	}},
	{"standby-crash", "kill -9 of the standby's postmaster", func(ctx context.Context, p pair, primary string) (string, error) {
		return "", kill(ctx, p, other(primary))
	}},
	{"standby-loss", "power cut of the standby's node", func(ctx context.Context, p pair, primary string) (string, error) {
		return other(primary), p.site().Cut(ctx, other(primary))
	}},
	{"power-cut", "power cut of the primary's node", func(ctx context.Context, p pair, primary string) (string, error) {
		return primary, p.site().Cut(ctx, primary)
	}},
}

func faultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// kill is kill -9 of a node's postmaster, its oldest process, and of nothing else: its children see that and end.
func kill(ctx context.Context, p pair, node string) error {
	_, err := p.site().Exec(ctx, node, "pkill", "-9", "-o", "-x", "postgres")
	return err
}

// The limits of waits. They judge nothing: a pair that has not come by then has failed.
const (
	upLimit   = 3 * time.Minute
	syncLimit = 4 * time.Minute
	callLimit = 30 * time.Second
	lookEvery = 200 * time.Millisecond
)

// final is an error that waiting does not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// until repeats until ready has no error, or the time is over.
func until(ctx context.Context, limit time.Duration, what string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[final](err); ok {
			return f.error
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not come in %v: %w (%w)", what, limit, err, ctx.Err())
		}
	}
}

// waitInSync waits for a pair that could lose either node.
func waitInSync(ctx context.Context, p pair, limit time.Duration) (primary string, err error) {
	err = until(ctx, limit, "in sync", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		var err error
		primary, err = p.inSync(ctx)
		return err
	})
	return primary, err
}

// streaming is nil when the primary's server has a standby that commits wait for.
func streaming(ctx context.Context, p pair, primary string) error {
	out, err := p.sql(ctx, primary, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'")
	if err == nil && strings.TrimSpace(string(out)) != "1" {
		err = fmt.Errorf("node %s has %s standbys that commits wait for", primary, strings.TrimSpace(string(out)))
	}
	return err
}
