package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"
)

// Class is why a call failed, as far as people act differently.
type Class uint8

// The classes.
const (
	Other         Class = iota
	NoAnswer            // silent, unreachable, or the port is closed
	LoginRefused        // unknown user or wrong password: they look alike on the wire
	RoleRefused         // the user exists and may not be operator on the LAN channel
	NoSession           // the BMC has no free session
	SuiteRefused        // neither cipher suite 17 nor 3
	CommandFailed       // it answered and did not do it
)

// String is the class in words.
func (c Class) String() string {
	names := [...]string{
		Other: "failed", NoAnswer: "no answer", LoginRefused: "login refused", RoleRefused: "role refused",
		NoSession: "no free session", SuiteRefused: "no common cipher suite", CommandFailed: "answered and did not do it",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Error is a failed call.
type Error struct {
	Address string
	Op      string
	Class   Class
	Held    time.Duration // not 0: nothing was sent; the last login was refused and the next is due after this
	Err     error
}

// Error is the failure in one line.
func (e *Error) Error() string {
	if e.Held > 0 {
		return fmt.Sprintf("BMC %s: %s: %s; not asked again for %s, or it would lock the user out", e.Address, e.Op, e.Class, e.Held)
	}
	cause := strings.Join(strings.Fields(e.Err.Error()), " ") // the library's texts have lines
	return fmt.Sprintf("BMC %s: %s: %s: %s", e.Address, e.Op, e.Class, cause)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// classify reads the class from the text: Connect joins its errors with %v, so errors.Is and errors.As find nothing
// in them (hardware.md section 2). TestTexts pins these texts to the version of the library.
func classify(err error) Class {
	var response *types.ResponseError
	text := err.Error()
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("authentication code mismatch", "integrity check value", "Unauthorized name", "Invalid integrity check value"):
		return LoginRefused
	case isSilence(err), has("connection refused", "no route to host", "network is unreachable"):
		return NoAnswer
	case has("Unauthorized role", "SetSessionPrivilegeLevel"):
		return RoleRefused
	case has("Insufficient resources to create"):
		return NoSession
	case openSessionFailed(err):
		return SuiteRefused
	case errors.As(err, &response):
		return CommandFailed
	default:
		return Other
	}
}

func isSilence(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		(errors.As(err, &timeout) && timeout.Timeout()) ||
		strings.Contains(err.Error(), "i/o timeout") || strings.Contains(err.Error(), "deadline")
}

// openSessionFailed says that the first message of a session was not accepted: what a BMC says to a cipher suite that
// it does not have, by a status code or, as OpenIPMI's does, by a message cut short.
func openSessionFailed(err error) bool {
	return strings.Contains(err.Error(), "RMCP+ Open Session failed")
}
