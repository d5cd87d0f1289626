package probe

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The constants of the NBD protocol (doc/proto.md of the NetworkBlockDevice project) that one simple client needs.
// They are written down here a second time on purpose: an oracle shares no code with what it judges.
const (
	magicServer   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply = 0x3e889045565a9
	magicRequest  = 0x25609513
	magicReply    = 0x67446698

	flagFixedNewstyle = 1
	flagNoZeroes      = 2

	optGo    = 7
	repAck   = 1
	repInfo  = 3
	repError = 1 << 31

	infoExport = 0

	cmdRead  = 0
	cmdWrite = 1
	cmdFlush = 3
)

// maxOptionReply bounds what a server may send in one option reply.
const maxOptionReply = 1 << 16

// Client is one NBD connection with one request at a time.
type Client struct {
	conn   net.Conn
	r      *bufio.Reader
	cookie uint64
	// SizeBytes is the size of the export.
	SizeBytes int64
}

// Dial connects to an export on a unix socket. It waits as long as the server does: a held export is not an error.
func Dial(socket, export string) (*Client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReader(conn)}
	if err := c.handshake(export); err != nil {
		return nil, errors.Join(fmt.Errorf("export %q: %w", export, err), conn.Close())
	}
	return c, nil
}

func (c *Client) handshake(export string) error {
	var hello struct {
		Magic, Option uint64
		Flags         uint16
	}
	if err := binary.Read(c.r, binary.BigEndian, &hello); err != nil {
		return err
	}
	if hello.Magic != magicServer || hello.Option != magicOption || hello.Flags&flagFixedNewstyle == 0 {
		return errors.New("not a fixed newstyle NBD server")
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(flagFixedNewstyle|hello.Flags&flagNoZeroes))
	msg = binary.BigEndian.AppendUint64(msg, magicOption)
	msg = binary.BigEndian.AppendUint32(msg, optGo)
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(export)+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(export)))
	msg = append(msg, export...)
	msg = binary.BigEndian.AppendUint16(msg, 0) // no information requests
	if _, err := c.conn.Write(msg); err != nil {
		return err
	}
	for {
		done, err := c.optionReply()
		if done || err != nil {
			return err
		}
	}
}

// optionReply reads one reply to GO; done is true after ACK.
func (c *Client) optionReply() (done bool, err error) {
	var h struct {
		Magic                uint64
		Option, Type, Length uint32
	}
	if err := binary.Read(c.r, binary.BigEndian, &h); err != nil {
		return false, err
	}
	if h.Magic != magicOptReply || h.Option != optGo || h.Length > maxOptionReply {
		return false, errors.New("malformed option reply")
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(c.r, data); err != nil {
		return false, err
	}
	switch {
	case h.Type == repAck:
		return true, nil
	case h.Type == repInfo && len(data) == 12 && binary.BigEndian.Uint16(data) == infoExport:
		c.SizeBytes = int64(binary.BigEndian.Uint64(data[2:]))
	case h.Type&repError != 0:
		return false, fmt.Errorf("refused (reply %#x): %s", h.Type, data)
	}
	return false, nil
}

// Write writes p at off; it returns when the server has acknowledged.
func (c *Client) Write(p []byte, off int64) error { return c.do(cmdWrite, p, nil, off, len(p)) }

// Read fills p from off.
func (c *Client) Read(p []byte, off int64) error { return c.do(cmdRead, nil, p, off, len(p)) }

// Flush makes all acknowledged writes durable.
func (c *Client) Flush() error { return c.do(cmdFlush, nil, nil, 0, 0) }

// Close drops the connection without a farewell: what was acknowledged must not depend on it.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) do(command uint16, out, in []byte, off int64, length int) error {
	c.cookie++
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, 28+len(out)), magicRequest)
	msg = binary.BigEndian.AppendUint16(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, command)
	msg = binary.BigEndian.AppendUint64(msg, c.cookie)
	msg = binary.BigEndian.AppendUint64(msg, uint64(off))
	msg = binary.BigEndian.AppendUint32(msg, uint32(length))
	if _, err := c.conn.Write(append(msg, out...)); err != nil {
		return err
	}
	var reply struct {
		Magic, Error uint32
		Cookie       uint64
	}
	if err := binary.Read(c.r, binary.BigEndian, &reply); err != nil {
		return err
	}
	if reply.Magic != magicReply || reply.Cookie != c.cookie {
		return errors.New("reply out of step")
	}
	if reply.Error != 0 {
		return &ServerError{Command: command, Code: reply.Error}
	}
	_, err := io.ReadFull(c.r, in)
	return err
}

// ServerError is an I/O error that a guest would have seen. In duet's promise it never happens to a valid request.
type ServerError struct {
	Command uint16
	Code    uint32
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("server answered command %d with error %d", e.Command, e.Code)
}
