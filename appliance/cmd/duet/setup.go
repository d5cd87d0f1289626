package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"duet/appliance/api"
	"duet/appliance/event"
)

// followEvery is how often a task is asked for its steps.
const followEvery = 200 * time.Millisecond

// maxAnswerBytes bounds what is read from the file; duetd refuses more than 1 MiB.
const maxAnswerBytes = 1<<20 + 1

func (c *cli) setup() *cobra.Command {
	var wait time.Duration
	answer := &cobra.Command{
		Use: "answer FILE", Short: "Found the site from a file of answers (- for stdin)", Args: exact(1),
		Long: "Founds the site with the volumes, VMs, witness, BMCs and PDU of FILE, and follows each step. Setup turns\n" +
			"each node off once to prove that it can. When it turns off the node on which this command runs, the\n" +
			"command ends with it; `duet setup show` tells the rest on either node.",
		Example: "  duet setup answer /etc/duet/answers.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			return c.answer(ctx, args[0])
		},
	}
	answer.Flags().DurationVar(&wait, "timeout", 10*time.Minute, "how long to follow")
	return group("setup", "Found a site",
		show(c, "show", "Show how far setup has come", 0, func(ctx context.Context, a *api.Client, _ []string) (api.Setup, error) {
			return a.Setup(ctx)
		}, setupTable), answer)
}

func setupTable(w io.Writer, s api.Setup) {
	fmt.Fprintf(w, "setup: %s\n", s.State)
	rows := []string{row(s.Node, s.ChassisSerial, s.NodeKey, "answers")}
	if p := s.Peer; p != nil {
		state := "belongs to a site"
		if p.Fresh {
			state = "fresh, over " + p.Path
		}
		rows = append(rows, row(p.Node, p.ChassisSerial, p.Key, state))
	}
	table(w, "NODE\tCHASSIS\tKEY\tSEEN", rows)
	for _, st := range s.Steps {
		fmt.Fprintln(w, stepLine(st))
	}
	if f := s.Problem; f != nil {
		fourWords(w, "failed", faultProblem(f))
	}
}

func stepLine(s api.Step) string {
	text := fmt.Sprintf("%-8s %s", s.State, s.Name)
	if s.Detail != "" {
		text += ": " + s.Detail
	}
	if s.State == "running" && s.WaitingFor != "" {
		text += fmt.Sprintf(" (waits for %s, at latest %s)", s.WaitingFor, s.Deadline.UTC().Format("15:04:05Z"))
	}
	return text
}

func (c *cli) answer(ctx context.Context, file string) error {
	document, err := c.read(file)
	if err != nil {
		return err
	}
	client := c.client()
	defer client.Close()
	task, err := client.Answer(ctx, document)
	if err != nil {
		return err
	}
	shown := map[string]string{}
	if err := c.follow(ctx, client, task.ID, shown); err != nil {
		return err
	}
	s, err := client.Setup(ctx)
	if err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) { setupTable(w, s) })
}

// read takes the answers from a file or from stdin.
func (c *cli) read(file string) ([]byte, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close() // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxAnswerBytes))
	if err != nil {
		return nil, usageError{err}
	}
	return data, nil
}

// follow prints each change of a step until the task is over. A duetd that was restarted has forgotten the task; then
// the durable progress is followed instead.
func (c *cli) follow(ctx context.Context, client *api.Client, id string, shown map[string]string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	begin := time.Now()
	for {
		done, err := c.look(ctx, client, id, shown)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return faultProblem(api.AsFault(event.New(event.StillRunning, "what", "Setup", "seconds", fmt.Sprint(int(time.Since(begin).Seconds()))), nil))
		case <-tick.C:
		}
	}
}

func (c *cli) look(ctx context.Context, client *api.Client, id string, shown map[string]string) (done bool, err error) {
	task, err := client.Task(ctx, id)
	if forgotten(err) {
		return c.lookAtSetup(ctx, client, shown)
	}
	if lost(err) {
		return false, nil // duetd restarts within a second
	}
	if err != nil {
		return false, err
	}
	c.steps(task.Steps, shown)
	if task.State == "failed" && task.Problem != nil {
		return true, faultProblem(task.Problem)
	}
	return task.State != "running", nil
}

func (c *cli) lookAtSetup(ctx context.Context, client *api.Client, shown map[string]string) (done bool, err error) {
	s, err := client.Setup(ctx)
	if lost(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.steps(s.Steps, shown)
	switch {
	case s.State == "complete":
		return true, nil
	case s.Problem != nil:
		return true, faultProblem(s.Problem)
	case s.State == "fresh":
		return true, faultProblem(api.AsFault(event.New(event.FoundingFailed, "step", "founding", "reason", "duetd was restarted before the site was founded"), nil))
	}
	return false, nil
}

func (c *cli) steps(steps []api.Step, shown map[string]string) {
	for _, s := range steps {
		if line := stepLine(s); shown[s.Name] != line {
			shown[s.Name] = line
			fmt.Fprintln(c.stderr, line)
		}
	}
}

func forgotten(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == string(event.UnknownTask)
}

func lost(err error) bool {
	var contact *api.ContactError
	return errors.As(err, &contact)
}
