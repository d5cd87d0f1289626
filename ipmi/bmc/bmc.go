// Package bmc speaks to one baseboard management controller over the LAN (IPMI 2.0, RMCP+).
//
// It promises that every call opens a session, uses it and closes it, that calls to one BMC happen one after another,
// and that every call ends by its context or after 3 s, whichever is first. A power state is On or Off only if the BMC
// said so in an authenticated session within that call; everything else is Unknown, with an error that says of which
// class it is. It switches hard: off is "power down", never soft, never a cycle, and off for a node that is off is
// done.
//
// It refuses to guess a password: after a refused login it makes one try per minute, later one per ten minutes, and
// answers from memory in between, because BMCs lock users out. It asks for the role operator, which suffices to read
// and to switch, and for the cipher suites 17 and 3 only.
//
// The library (go-ipmi v0.9.1) is used around its traps, each noted where it is avoided; hardware.md section 2 has
// the measurements. The classes of failure are told apart by its texts, which a test pins to that version.
package bmc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	ipmi "github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Config says how to reach a BMC.
type Config struct {
	Address  string // host or host:port; default port 623
	User     string // at most 16 bytes
	Password string // at most 16 bytes: more is not taken by every BMC
}

// PowerState is what a BMC says of its node.
type PowerState uint8

// The power states; the zero value is unknown.
const (
	Unknown PowerState = iota
	Off
	On
)

// GUID is the system GUID, in the order of the wire.
type GUID [16]byte

// String is the GUID in 32 hex digits.
func (g GUID) String() string { return hex.EncodeToString(g[:]) }

// The limits of a call, and their reasons.
const (
	callLimit     = 3 * time.Second        // fencing goes on to the outlets meanwhile
	exchangeLimit = time.Second            // for one datagram and its answer
	retries       = 1                      // datagrams do get lost; more would only prolong silence
	closeLimit    = 500 * time.Millisecond // a BMC that has just answered closes in milliseconds

	loginPause     = time.Minute      // after a refused login
	loginPauseLong = 10 * time.Minute // after loginsShort of them in a row
	loginsShort    = 3

	nameMax     = 16
	defaultPort = 623
)

// suites are tried in this order until one is accepted; then only that one is sent. Without a list the library
// probes for seconds, with a list it sends a wrong password once per suite (hardware.md section 2): so each attempt
// here names exactly one.
var suites = []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3}

// Client is one BMC.
type Client struct {
	cfg  Config
	host string
	port int
	now  func() time.Time // for the pauses after a refused login

	turn    chan struct{} // holds one token: the call that runs
	closing sync.WaitGroup

	// Owned by the call that has the turn.
	suite   int  // index of the suite to begin with
	settled bool // that suite was accepted once
	refused int  // logins refused in a row
	after   time.Time
	lastErr *Error
}

// New makes a client. It reaches nothing.
func New(cfg Config) (*Client, error) {
	host, port, err := splitAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	if len(cfg.User) == 0 || len(cfg.User) > nameMax || len(cfg.Password) > nameMax {
		return nil, fmt.Errorf("BMC %s: user and password have at most %d bytes, and a user is needed", cfg.Address, nameMax)
	}
	return &Client{cfg: cfg, host: host, port: port, now: time.Now, turn: make(chan struct{}, 1)}, nil
}

func splitAddress(address string) (string, int, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		host, portText = strings.Trim(address, "[]"), strconv.Itoa(defaultPort)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || host == "" || port == 0 {
		return "", 0, fmt.Errorf("BMC address %q is not host or host:port", address)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // the library joins host and port with a bare colon
	}
	return host, int(port), nil
}

// Close waits for sockets of calls that were cut off; each ends within a second.
func (c *Client) Close() error {
	c.closing.Wait()
	return nil
}

// Power asks for the power state of the node.
func (c *Client) Power(ctx context.Context) (PowerState, error) {
	state := Unknown
	err := c.call(ctx, "power state", func(ctx context.Context, session *ipmi.Client) error {
		var err error
		state, err = power(ctx, session)
		return err
	})
	return state, err
}

// PowerDown switches the node off, hard. A reply says that the command was taken, not that the node is off: read back.
func (c *Client) PowerDown(ctx context.Context) error {
	return c.call(ctx, "power down", func(ctx context.Context, session *ipmi.Client) error {
		return control(ctx, session, chassis.ChassisControlPowerDown, Off)
	})
}

// PowerUp switches the node on.
func (c *Client) PowerUp(ctx context.Context) error {
	return c.call(ctx, "power up", func(ctx context.Context, session *ipmi.Client) error {
		return control(ctx, session, chassis.ChassisControlPowerUp, On)
	})
}

// GUID asks which system this is.
func (c *Client) GUID(ctx context.Context) (GUID, error) {
	var guid GUID
	err := c.call(ctx, "system GUID", func(ctx context.Context, session *ipmi.Client) error {
		r, err := session.GetSystemGUID(ctx)
		if err == nil {
			guid = r.GUID
		}
		return err
	})
	return guid, err
}

// Identify asks for GUID and power state in one session: the answer and its identity belong together.
func (c *Client) Identify(ctx context.Context) (GUID, PowerState, error) {
	var guid GUID
	state := Unknown
	err := c.call(ctx, "identity and power state", func(ctx context.Context, session *ipmi.Client) error {
		r, err := session.GetSystemGUID(ctx)
		if err != nil {
			return err
		}
		guid = r.GUID
		state, err = power(ctx, session)
		return err
	})
	return guid, state, err
}

func power(ctx context.Context, session *ipmi.Client) (PowerState, error) {
	r, err := session.GetChassisStatus(ctx)
	switch {
	case err != nil:
		return Unknown, err
	case r.PowerIsOn:
		return On, nil
	default:
		return Off, nil
	}
}

// control sends a chassis command. A BMC that refuses it because the node is already so has done it
// (ClusterLabs/fence-agents#596).
func control(ctx context.Context, session *ipmi.Client, command chassis.ChassisControl, want PowerState) error {
	_, err := session.ChassisControl(ctx, command)
	if err == nil {
		return nil
	}
	if state, readErr := power(ctx, session); readErr == nil && state == want {
		return nil
	}
	return err
}

// call runs do in a session of its own, when it is its turn.
func (c *Client) call(ctx context.Context, op string, do func(context.Context, *ipmi.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	fail := func(err error) *Error {
		if over := ended(ctx); over != nil && !errors.Is(err, over) { // the library forgets that its caller gave up
			err = fmt.Errorf("%w: %w", over, err)
		}
		return &Error{Address: c.cfg.Address, Op: op, Class: classify(err), Err: err}
	}
	select { // one client of the library is not safe for concurrent calls, and BMCs have few sessions
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fail(fmt.Errorf("another call is running: %w", ctx.Err()))
	}
	if wait := c.after.Sub(c.now()); wait > 0 {
		held := *c.lastErr
		held.Op, held.Held = op, wait.Round(time.Second)
		return &held
	}
	session, err := c.connect(ctx)
	if err != nil {
		return c.login(fail(err))
	}
	c.refused, c.settled = 0, true
	err = do(ctx, session)
	c.hangUp(ctx, session, err == nil)
	if err != nil {
		return fail(err)
	}
	return nil
}

// connect opens a session with the remembered suite, or with the first that the BMC accepts.
func (c *Client) connect(ctx context.Context) (*ipmi.Client, error) {
	for {
		session, err := ipmi.NewClient(c.host, c.port, c.cfg.User, c.cfg.Password)
		if err != nil {
			return nil, err
		}
		// The default role is administrator, which an operator is refused; the default timing is 1 s × 5 attempts
		// for each of six exchanges.
		session.WithCipherSuiteID(suites[c.suite]).WithMaxPrivilegeLevel(types.PrivilegeLevelOperator).
			WithTimeout(exchangeLimit).WithRetry(retries)
		if err = session.Connect(ctx); err == nil {
			return session, nil
		}
		c.hangUp(ctx, session, false)
		if c.settled || !openSessionFailed(err) {
			return nil, err
		}
		// Opening a session carries no credentials, so another suite may be tried. One that met silence is left to
		// the next call: this one has no time for it.
		c.suite = (c.suite + 1) % len(suites)
		if c.suite == 0 || ctx.Err() != nil || classify(err) == NoAnswer {
			return nil, err
		}
	}
}

// hangUp closes the session, exactly once: without it socket and goroutine leak and the BMC runs out of sessions; a
// second Close panics (close of closed channel). After a failure the context is ended beforehand, because saying
// goodbye to a silent BMC costs its silence again; the socket may then take up to exchangeLimit to come free, which
// nobody has to wait for.
func (c *Client) hangUp(ctx context.Context, session *ipmi.Client, answered bool) {
	if answered {
		polite, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		_ = session.Close(polite) // the answer is here; the BMC ends idle sessions by itself
		return
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c.closing.Go(func() { _ = session.Close(ended) })
}

// login counts refused logins and sets the pause before the next.
func (c *Client) login(err *Error) *Error {
	if err.Class != LoginRefused {
		return err
	}
	c.refused++
	pause := loginPause
	if c.refused > loginsShort {
		pause = loginPauseLong
	}
	c.after, c.lastErr = c.now().Add(pause), err
	return err
}

// AsError is the *Error in err, which every error of a Client is.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// ended is ctx.Err, also in the instant in which a socket's deadline, taken from ctx, is over and ctx's own timer has not
// run yet.
func ended(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
