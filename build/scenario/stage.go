package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Stage gives a long run its site, and a fresh one after a failure: one broken case says nothing about the next.
type Stage struct {
	Fresh func(ctx context.Context) (*Site, error)
	Say   func(format string, args ...any)
	site  *Site
	kept  int
}

// failuresMax ends a run that goes wrong again and again.
const failuresMax = 8

// Site is a living, whole site.
func (g *Stage) Site(ctx context.Context) (*Site, error) {
	if g.site != nil {
		return g.site, nil
	}
	s, err := g.Fresh(ctx)
	g.site = s
	return s, err
}

// Failed keeps the logs of a site in which something went wrong, under a name, and ends it.
func (g *Stage) Failed(name string) error {
	if g.site == nil {
		return nil
	}
	s := g.site
	g.site = nil
	g.kept++
	kept, err := keepLogs(s, name)
	g.Say("  logs of the failure: %s", kept)
	err = errors.Join(err, s.Down())
	if g.kept >= failuresMax {
		err = errors.Join(err, fmt.Errorf("%d failures: the run ends", g.kept))
	}
	return err
}

// Down ends what there is.
func (g *Stage) Down() error {
	if g.site == nil {
		return nil
	}
	s := g.site
	g.site = nil
	return s.Down()
}

// keepLogs copies events, logs, consoles and what both nodes say about themselves.
func keepLogs(s *Site, name string) (string, error) {
	state := s.Lab.State()
	into := filepath.Join(state, "episode", strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) {
			return r
		}
		return '-'
	}, strings.ToLower(name)))
	if err := os.MkdirAll(into, 0o755); err != nil {
		return into, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, node := range []string{"a", "b"} {
		if power, err := s.power(ctx, node); err != nil || power != "on" {
			continue
		}
		text, err := s.Lab.Exec(ctx, node, "duet", "status", "-o", "json")
		if err != nil {
			text = []byte(err.Error())
		}
		if err := os.WriteFile(filepath.Join(into, "status-"+node+".json"), text, 0o644); err != nil {
			return into, err
		}
	}
	patterns := []string{"events.jsonl", "core.log", "*/log/*.log", "*/upper/var/log/duet/*.log"}
	var failed error
	for _, p := range patterns {
		files, err := filepath.Glob(filepath.Join(state, p))
		failed = errors.Join(failed, err)
		for _, f := range files {
			failed = errors.Join(failed, copyLog(f, filepath.Join(into, strings.ReplaceAll(strings.TrimPrefix(f, state+"/"), "/", "-"))))
		}
	}
	return into, failed
}

func copyLog(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// Play plays every case whose "row/case" passes want, until the budget is used up, and reports.
func (g *Stage) Play(ctx context.Context, rows []Row, want func(string) bool, budget time.Duration) (*Liveness, error) {
	var measured []Measured
	began, skipped := time.Now(), "not asked for in this run"
	for _, row := range rows {
		for _, c := range row.Cases {
			if !want(row.Name + "/" + c.Name) {
				continue
			}
			if time.Since(began) > budget {
				skipped = "the run's budget of time was used up before"
				continue
			}
			s, err := g.Site(ctx)
			if err != nil {
				return Collect(rows, measured, skipped), err
			}
			m := s.PlayCase(ctx, row, c)
			measured = append(measured, m)
			if m.Failed == "" {
				continue
			}
			if err := errors.Join(ctx.Err(), g.Failed(row.Name+"-"+c.Name)); err != nil {
				return Collect(rows, measured, skipped), err
			}
		}
	}
	return Collect(rows, measured, skipped), nil
}
