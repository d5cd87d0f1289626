package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"duet/appliance/api"
	"duet/build/lab"
	"duet/build/scenario"
)

// duetSite is a founded site with a database, as the scenarios have it.
type duetSite struct{ s *scenario.Site }

const (
	duetSocket = "/run/duet-postgres"
	duetWrite  = "198.51.100.20"
)

func upDuet(ctx context.Context, o options) (pair, error) {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	s, err := scenario.UpDatabase(ctx, lab.Options{
		Name: filepath.Base(o.state) + "-duet", State: filepath.Join(o.state, duetPair), Bin: o.bin,
	}, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	return duetSite{s}, nil
}

func (d duetSite) site() *lab.Lab { return d.s.Lab }
func (d duetSite) down() error    { return d.s.Down() }

func (d duetSite) url() string {
	return fmt.Sprintf("postgres://%s:%s@%s:%s/%s?sslmode=disable", databaseUser, databaseWord, duetWrite, databasePort, databaseName)
}

func (d duetSite) sql(ctx context.Context, node, database, statement string) ([]byte, error) {
	return d.s.Lab.Exec(ctx, node, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", duetSocket, "-U", "postgres", "-d", database, "-c", statement)
}

// inSync asks both nodes: they have one owner, both directories count, and both addresses are held.
func (d duetSite) inSync(ctx context.Context) (string, error) {
	owner := ""
	for _, node := range []string{lab.A, lab.B} {
		st, err := d.s.Status(ctx, node) // it does not ask a node that is off
		if err != nil {
			return "", err
		}
		if st.Mode != "paired" {
			return "", fmt.Errorf("node %s is %s", node, st.Mode)
		}
		out, err := d.s.Lab.Exec(ctx, node, "duet", "db", "status", "-o", "json")
		if err != nil {
			return "", err
		}
		var db api.Database
		if err := json.Unmarshal(out, &db); err != nil {
			return "", err
		}
		for _, row := range db.Nodes {
			if mine := row.Node == db.Owner; len(db.Record.Copies) != 2 || row.PGStatus != map[bool]string{true: "PRI", false: "HS:sync"}[mine] ||
				mine && row.Write != "held" || !mine && row.Read != "held" {
				return "", fmt.Errorf("%s says: owner %s, copies %v, node %s %s %s", node, db.Owner, db.Record.Copies, row.Node, row.PGStatus, row.Activity)
			}
		}
		if owner != "" && owner != db.Owner {
			return "", errors.New("the nodes name two owners")
		}
		owner = db.Owner
	}
	return owner, streaming(ctx, d, owner)
}

// switchover: a refusal, as while the checkpoint after the last promotion is under way, leaves the primary where it was.
func (d duetSite) switchover(ctx context.Context, primary string) error {
	_, err := d.s.Lab.Exec(ctx, primary, "duet", "db", "switchover", "--reason", "bench", "--yes", "--confirm-site", "demo")
	if _, refused := errors.AsType[*lab.ExitError](err); refused {
		return errors.Join(errNotNow, err)
	}
	return err
}
