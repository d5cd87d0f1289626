package pdu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/goburrow/modbus"
)

// Class is why a call failed, as far as people act differently.
type Class uint8

// The classes.
const (
	Other         Class = iota
	NoAnswer            // silent, unreachable, or the port is closed
	BadReply            // an answer that is not one to this question
	WrongIdentity       // another number of outlets, or another name: another device
	NoSuchOutlet        // the PDU does not have that outlet
	Rejected            // a Modbus exception
	Settling            // "on" is blocked by an "off" without answer
	NoMap               // the product does not switch, or a number that it needs was not seen
)

// String is the class in words.
func (c Class) String() string {
	names := [...]string{
		Other: "failed", NoAnswer: "no answer", BadReply: "wrong answer", WrongIdentity: "another device",
		NoSuchOutlet: "no such outlet", Rejected: "rejected", Settling: "waits for an earlier command", NoMap: "no register map to switch by",
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
	Held    time.Duration // Settling: at least this long
	Err     error
}

// Error is the failure in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("PDU %s: %s: %s: %v", e.Address, e.Op, e.Class, e.Err)
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError is the *Error in err, which every error of a Client is.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

func (c *Client) fail(op string, err error) *Error {
	e, ok := AsError(err)
	if !ok {
		e = &Error{Class: classify(err), Err: err}
	}
	e.Address, e.Op = c.address, op
	return e
}

func classify(err error) Class {
	var exception *modbus.ModbusError
	var network *net.OpError
	switch {
	case errors.As(err, &exception):
		return Rejected
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &network):
		return NoAnswer
	default:
		return BadReply // the library's own texts: wrong id, wrong length, wrong function
	}
}
