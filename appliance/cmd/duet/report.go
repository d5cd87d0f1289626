package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"duet/appliance/api"
	"duet/appliance/event"
)

// The exit codes.
const (
	exitDone      = 0
	exitRefused   = 1
	exitUsage     = 2
	exitNoContact = 3
)

// usageError is a command that was written wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// report prints an error in its four words and chooses the exit code.
func report(w io.Writer, err error) int {
	var usage usageError
	var problem *api.Problem
	var contact *api.ContactError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(w, "duet: %v\nnext     duet help\n", err)
		return exitUsage
	case errors.As(err, &problem):
		word := "refused"
		if problem.Status >= 500 {
			word = "failed"
		}
		fourWords(w, word, problem)
		return exitRefused
	case errors.As(err, &contact):
		fourWords(w, "failed", faultProblem(api.AsFault(event.New(event.DaemonSilent, "socket", contact.Socket).Because(contact.Err), nil)))
		return exitNoContact
	}
	fmt.Fprintf(w, "duet: %v\n", err)
	return exitRefused
}

func fourWords(w io.Writer, word string, p *api.Problem) {
	fmt.Fprintf(w, "%-8s %s  %s\n", word, p.Code, p.What)
	fmt.Fprintf(w, "why      %s\n", p.Why)
	for _, f := range p.Errors {
		fmt.Fprintf(w, "field    %s: %s; %s; %s\n", f.Field, f.What, f.Why, f.Next)
	}
	next := p.Next.Text
	if p.Next.Command != "" {
		next += " (" + p.Next.Command + ")"
	}
	fmt.Fprintf(w, "next     %s\n", next)
}

// faultProblem is a fault of a task in the form of a refusal.
func faultProblem(f *api.Fault) *api.Problem {
	return &api.Problem{Code: f.Code, What: f.What, Why: f.Why, Next: api.NextStep{Text: f.Next, Command: f.Command}, Status: 500}
}
