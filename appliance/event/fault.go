package event

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is an operator-visible problem on its way to a person: a code of the catalogue and the values for its texts.
// It is an error, so it travels through ordinary returns; the API turns it into problem+json.
type Fault struct {
	Code  Code
	Args  map[string]string
	Cause error  // for the log, appended to the why; may be nil
	Words *Words // of who found it; nil: those of the catalogue
}

// Words are the texts of a fault as its finder wrote them, with the address, the reading or the error that it saw.
type Words struct{ What, Why, Next string }

// Reported is a fault that was found and worded by what knows nothing of this package: duet-mirrord, ipmi/fence. Its
// words arrive unchanged; title, severity and command are those of the catalogue.
func Reported(code Code, words Words, args ...string) *Fault {
	f := New(code, args...)
	f.Words = &words
	return f
}

// New makes a fault; args are pairs of name and value, as the catalogue's texts name them.
func New(code Code, args ...string) *Fault {
	f := &Fault{Code: code, Args: map[string]string{}}
	for i := 0; i+1 < len(args); i += 2 {
		f.Args[args[i]] = args[i+1]
	}
	return f
}

// Because adds what was underneath and returns the same fault.
func (f *Fault) Because(err error) *Fault {
	f.Cause = err
	return f
}

// Error is the one line of a fault: code and what.
func (f *Fault) Error() string {
	if f.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", f.Code, f.What(), f.Cause)
	}
	return fmt.Sprintf("%s: %s", f.Code, f.What())
}

// Unwrap is the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// What happened, with the values put in.
func (f *Fault) What() string {
	if f.Words != nil {
		return f.Words.What
	}
	return f.fill(Lookup(f.Code).What)
}

// Why it happened or matters.
func (f *Fault) Why() string {
	why := f.fill(Lookup(f.Code).Why)
	if f.Words != nil {
		why = f.Words.Why
	}
	if f.Cause != nil {
		why += " (" + strings.ReplaceAll(f.Cause.Error(), "\n", "; ") + ")"
	}
	return why
}

// Next is the one next safe step.
func (f *Fault) Next() string {
	if f.Words != nil {
		return f.Words.Next
	}
	return f.fill(Lookup(f.Code).Next)
}

// Command is the next step as a command, or empty.
func (f *Fault) Command() string { return f.fill(Lookup(f.Code).Command) }

// fill puts the values in, in one pass: a value may contain braces.
func (f *Fault) fill(text string) string {
	pairs := make([]string, 0, 2*len(f.Args))
	for name, value := range f.Args {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// As finds the fault in err's chain; any other error becomes SYS-9000, so that nothing reaches a person without a code.
func As(err error) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return New(Internal, "error", err.Error())
}

// CodeOf is the code of err's fault; empty for no error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return As(err).Code
}
