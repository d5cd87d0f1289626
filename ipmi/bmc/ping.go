package bmc

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	ipmi "github.com/bougou/go-ipmi/pkg/client"
)

// Report is what a BMC says of itself in one session.
type Report struct {
	GUID     GUID
	State    PowerState
	Firmware string // manufacturer, product, version: what must not change unnoticed
}

// Inspect signs in as a fencing would, with the role operator, and asks who it is, whether the node is on and what
// firmware it runs. Nothing is switched.
func (c *Client) Inspect(ctx context.Context) (Report, error) {
	var report Report
	err := c.call(ctx, "inspection", func(ctx context.Context, session *ipmi.Client) error {
		guid, err := session.GetSystemGUID(ctx)
		if err != nil {
			return err
		}
		id, err := session.GetDeviceID(ctx)
		if err != nil {
			return err
		}
		report.GUID = guid.GUID
		report.Firmware = fmt.Sprintf("%d/%d %d.%x", id.ManufacturerID, id.ProductID, id.MajorFirmwareRevision, id.MinorFirmwareRevision)
		if len(id.AuxiliaryFirmwareRevision) > 0 {
			report.Firmware += fmt.Sprintf(" %x", id.AuxiliaryFirmwareRevision)
		}
		report.State, err = power(ctx, session)
		return err
	})
	if err != nil {
		return Report{}, err
	}
	return report, nil
}

// The presence ping (IPMI 2.0, 13.2.3): RMCP version, reserved, no ack, class ASF; ASF's enterprise number, type, tag,
// reserved, length. It opens no session, needs no password, and no BMC logs it.
const (
	pingBytes   = 12
	pingType    = 0x80
	pongType    = 0x40
	pingTries   = 2 // one datagram may be lost
	asfTypeAt   = 8
	asfTagAt    = 9
	rmcpClassAt = 3
	asfClass    = 0x06
)

// Ping says whether the BMC is alive. It neither waits for calls nor holds them up.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTries*exchangeLimit)
	defer cancel()
	fail := func(err error) error {
		return &Error{Address: c.cfg.Address, Op: "ping", Class: NoAnswer, Err: err}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(strings.Trim(c.host, "[]"), strconv.Itoa(c.port)))
	if err != nil {
		return fail(err)
	}
	defer conn.Close() // UDP: nothing is left to be sent
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var tag [1]byte
	_, _ = rand.Read(tag[:]) // never fails (crypto/rand)
	tag[0] &= 0x7f           // 0xff would mean that no answer is wanted
	for range pingTries {
		if err = pingOnce(conn, tag[0]); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func pingOnce(conn net.Conn, tag byte) error {
	if err := conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{6, 0, 0xff, asfClass, 0, 0, 0x11, 0xbe, pingType, tag, 0, 0}); err != nil {
		return err
	}
	var answer [128]byte
	for {
		n, err := conn.Read(answer[:])
		if err != nil {
			return err
		}
		if n >= pingBytes && answer[rmcpClassAt] == asfClass && answer[asfTypeAt] == pongType && answer[asfTagAt] == tag {
			return nil
		}
	}
}
