package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"duet/replication/block"
)

// handshake greets the client and serves its options until one begins the transmission (true) or the client
// leaves (false).
func (c *conn) handshake() (began bool, err error) {
	c.haggleUntil(time.Now().Add(handshakeTimeout))
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if err := c.greet(hello); err != nil {
		return false, err
	}
	var answer [4]byte
	if _, err := io.ReadFull(c.in, answer[:]); err != nil {
		return false, err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return false, fmt.Errorf("client flags %#x", flags)
	}
	c.noZeroes = flags&flagNoZeroes != 0
	for range optionsMax {
		next, err := c.option()
		if err != nil || next != proceed {
			return next == begin, err
		}
	}
	return false, fmt.Errorf("more than %d options", optionsMax)
}

// verdict is what follows an option.
type verdict uint8

const (
	proceed verdict = iota // the next option
	begin                  // transmission
	leave                  // the end
)

// option reads and answers one option.
func (c *conn) option() (verdict, error) {
	var h [16]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return leave, err
	}
	be := binary.BigEndian
	if magic := be.Uint64(h[0:]); magic != magicOption {
		return leave, fmt.Errorf("option magic %#x", magic)
	}
	opt, n := be.Uint32(h[8:]), be.Uint32(h[12:])
	if n > optionBytesMax {
		if err := c.drain(int64(n)); err != nil {
			return leave, err
		}
		if opt == optExportName {
			return leave, errors.New("export name too long")
		}
		return proceed, c.refuse(opt, repErrTooBig, fmt.Sprintf("option data is limited to %d bytes", optionBytesMax))
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return leave, err
	}
	switch opt {
	case optExportName:
		return c.exportName(string(data))
	case optAbort:
		return leave, c.reply(opt, repAck, nil)
	case optList:
		return proceed, c.list(data)
	case optInfo, optGo:
		return c.infoOrGo(opt, data)
	case optStartTLS:
		return proceed, c.refuse(opt, repErrUnsup, "no TLS here: the socket is local and its permissions decide")
	case optStructuredReply:
		return proceed, c.structuredReply(data)
	case optListMeta, optSetMeta:
		return c.meta(opt, data)
	}
	return proceed, c.refuse(opt, repErrUnsup, fmt.Sprintf("unknown option %d", opt))
}

func (c *conn) structuredReply(data []byte) error {
	if len(data) != 0 {
		return c.refuse(optStructuredReply, repErrInvalid, "STRUCTURED_REPLY has no data")
	}
	c.offer.structured = true
	return c.reply(optStructuredReply, repAck, nil)
}

// flags are the transmission flags of this connection.
func (c *conn) flags() uint16 {
	if c.offer.structured {
		return transmissionFlags | sendDF
	}
	return transmissionFlags
}

// exportName is the old way to begin: there is no way to say no but to close.
func (c *conn) exportName(name string) (verdict, error) {
	if err := c.open(name); err != nil {
		return leave, fmt.Errorf("export %q: %w", name, err)
	}
	c.settleContexts(name)
	p := binary.BigEndian.AppendUint64(nil, c.offer.size)
	p = binary.BigEndian.AppendUint16(p, c.flags())
	if !c.noZeroes {
		p = append(p, make([]byte, 124)...)
	}
	return begin, c.greet(p)
}

func (c *conn) list(data []byte) error {
	if len(data) != 0 {
		return c.refuse(optList, repErrInvalid, "LIST has no data")
	}
	for _, e := range c.srv.backend.Exports() {
		p := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		p = append(append(p, e.Name...), e.Description...)
		if err := c.reply(optList, repServer, p); err != nil {
			return err
		}
	}
	return c.reply(optList, repAck, nil)
}

// infoOrGo opens the export, describes it, and with GO begins.
func (c *conn) infoOrGo(opt uint32, data []byte) (verdict, error) {
	name, wanted, ok := parseInfo(data)
	if !ok {
		return proceed, c.refuse(opt, repErrInvalid, "malformed INFO or GO")
	}
	if next, err := c.openOption(opt, name); next != begin {
		return next, err
	}
	if err := c.describe(opt, name, wanted); err != nil {
		return leave, err
	}
	if opt == optGo {
		c.settleContexts(name)
		return begin, nil
	}
	c.shut()
	return proceed, nil
}

// openOption opens the export that an option names (begin), or answers why not.
func (c *conn) openOption(opt uint32, name string) (verdict, error) {
	err := c.open(name)
	switch {
	case err == nil:
		return begin, nil
	case errors.Is(err, ErrUnknown):
		return proceed, c.refuse(opt, repErrUnknown, fmt.Sprintf("unknown export %q", name))
	case errors.Is(err, ErrGone), errors.Is(err, context.Canceled):
		return leave, nil // the client left, or connects again: no error may tell it to give up
	}
	return proceed, c.refuse(opt, repErrPlatform, err.Error())
}

// parseInfo reads the data of INFO and GO.
func parseInfo(data []byte) (name string, wanted []uint16, ok bool) {
	be := binary.BigEndian
	name, data, ok = cutString(data)
	if !ok || len(data) < 2 || len(name) > nameBytesMax {
		return "", nil, false
	}
	count := be.Uint16(data)
	data = data[2:]
	if len(data) != 2*int(count) {
		return "", nil, false
	}
	for ; len(data) > 0; data = data[2:] {
		wanted = append(wanted, be.Uint16(data))
	}
	return name, wanted, true
}

// describe sends the information replies and the acknowledgement.
func (c *conn) describe(opt uint32, name string, wanted []uint16) error {
	be := binary.BigEndian
	p := be.AppendUint16(nil, infoExport)
	p = be.AppendUint64(p, c.offer.size)
	p = be.AppendUint16(p, c.flags())
	if err := c.reply(opt, repInfo, p); err != nil {
		return err
	}
	told := map[uint16]bool{}
	for _, w := range wanted {
		if told[w] {
			continue
		}
		told[w] = true
		p := be.AppendUint16(nil, w)
		switch w {
		case infoName:
			p = append(p, name...)
		case infoDescription:
			text := c.description(name)
			if text == "" {
				continue
			}
			p = append(p, text...)
		case infoBlockSize:
			p = be.AppendUint32(p, block.Unit)
			p = be.AppendUint32(p, block.Unit)
			p = be.AppendUint32(p, PieceBytesMax)
		default:
			continue
		}
		if err := c.reply(opt, repInfo, p); err != nil {
			return err
		}
	}
	return c.reply(opt, repAck, nil)
}

func (c *conn) description(name string) string {
	for _, e := range c.srv.backend.Exports() {
		if e.Name == name {
			return e.Description
		}
	}
	return ""
}

// open opens an export for this connection.
func (c *conn) open(name string) error {
	return c.whileOpening(func(ctx context.Context) error {
		v, err := c.srv.backend.Open(ctx, name)
		if err != nil {
			return err
		}
		size := v.Size()
		if size < 0 || size%block.Unit != 0 {
			panic(fmt.Sprintf("nbd: export %q has %d bytes, not a multiple of %d", name, size, block.Unit))
		}
		c.name, c.volume, c.offer.size = name, v, uint64(size)
		if guard, ok := v.(Guard); ok {
			c.guard = guard
		}
		if terms, ok := v.(Terms); ok {
			c.terms = terms
		}
		if begins, ok := v.(Beginner); ok {
			c.begins = begins
		}
		c.ranges = c.srv.lockOf(name)
		return nil
	})
}

// shut closes what INFO opened.
func (c *conn) shut() {
	c.volume.Close()
	c.srv.unlockOf(c.name)
	c.volume, c.guard, c.terms, c.begins, c.ranges, c.name = nil, nil, nil, nil, nil, ""
}

// reply answers an option.
func (c *conn) reply(opt, kind uint32, data []byte) error {
	be := binary.BigEndian
	p := be.AppendUint64(nil, magicReply)
	p = be.AppendUint32(p, opt)
	p = be.AppendUint32(p, kind)
	p = be.AppendUint32(p, uint32(len(data)))
	return c.greet(append(p, data...))
}

// refuse answers an option with an error and a text for people.
func (c *conn) refuse(opt, kind uint32, why string) error { return c.reply(opt, kind, []byte(why)) }

// greet writes during the handshake.
func (c *conn) greet(p []byte) error {
	_, err := c.net.Write(p)
	return err
}
