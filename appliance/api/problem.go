package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"duet/appliance/event"
	"duet/appliance/site"
)

// Problem is every error of the API: problem+json (RFC 9457) with the four words code, what, why, next.
type Problem struct {
	Type   string            `json:"type"`
	Status int               `json:"status"`
	Title  string            `json:"title"`
	Code   string            `json:"code"`
	What   string            `json:"what"`
	Why    string            `json:"why"`
	Next   NextStep          `json:"next"`
	Args   map[string]string `json:"args"`
	Errors []site.FieldError `json:"errors"`
	Task   string            `json:"task"`
}

// NextStep is the one next safe step, as words and as a command where there is one.
type NextStep struct {
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

// Error is code and what.
func (p *Problem) Error() string { return p.Code + ": " + p.What }

// GetStatus is for huma.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is for huma.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// problemOf turns any error into a problem.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	var other *OtherNodeError
	var fields site.FieldErrors
	switch {
	case errors.As(err, &other):
		return fromFault(event.New(event.OtherNodeOwns, "object", other.Object, "node", other.Node))
	case errors.As(err, &fields):
		return fieldsProblem(fields)
	case errors.Is(err, context.DeadlineExceeded):
		return fromFault(event.New(event.DeadlinePassed, "what", "The order", "seconds", fmt.Sprint(int(callTimeout/time.Second))))
	}
	return fromFault(event.As(err))
}

func fieldsProblem(fields site.FieldErrors) *Problem {
	names := ""
	for i, f := range fields {
		if i > 0 {
			names += ", "
		}
		names += f.Field
	}
	p := fromFault(event.New(event.DocumentInvalid, "count", fmt.Sprint(len(fields)), "fields", names))
	p.Errors = fields
	return p
}

func fromFault(f *event.Fault) *Problem {
	return &Problem{
		Type: "/docs/faults/" + string(f.Code), Status: statusOf(f.Code), Title: event.Lookup(f.Code).Title, Code: string(f.Code),
		What: f.What(), Why: f.Why(), Next: NextStep{Text: f.Next(), Command: f.Command()}, Args: f.Args, Errors: []site.FieldError{},
	}
}

// AsFault is the object form of an error, for status and tasks; nil for no error.
func AsFault(err error, since *time.Time) *Fault {
	if err == nil {
		return nil
	}
	p := problemOf(err)
	return &Fault{
		Code: p.Code, Severity: event.Lookup(event.Code(p.Code)).Severity.String(), What: p.What, Why: p.Why,
		Next: p.Next.Text, Command: p.Next.Command, Args: p.Args, Since: since,
	}
}

// statusOf: interfaces.md section 2.2. An order that a safety check refuses is a conflict.
func statusOf(code event.Code) int {
	switch code {
	case event.BadRequest:
		return http.StatusBadRequest
	case event.NotRoot:
		return http.StatusForbidden
	case event.UnknownVM, event.UnknownVolume, event.UnknownTask, event.UnknownObject:
		return http.StatusNotFound
	case event.DocumentInvalid:
		return http.StatusUnprocessableEntity
	case event.TaskRunning:
		return http.StatusLocked
	case event.Internal:
		return http.StatusInternalServerError
	case event.FrozenWaits, event.LibvirtDown, event.MirrorDown, event.NoPeer:
		return http.StatusServiceUnavailable
	case event.DeadlinePassed:
		return http.StatusGatewayTimeout
	default:
		return http.StatusConflict
	}
}

// withCode gives huma's own errors (a body that is no JSON, an unknown media type) our form. huma's hook for this is a
// package variable; a transformer does the same without changing a foreign package.
func withCode(_ huma.Context, _ string, body any) (any, error) {
	e, ok := body.(*huma.ErrorModel)
	if !ok {
		return body, nil
	}
	detail := e.Detail
	for _, d := range e.Errors {
		detail += "; " + d.Error()
	}
	p := fromFault(event.New(event.BadRequest, "detail", detail))
	p.Status = e.Status
	return p, nil
}
