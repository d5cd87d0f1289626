// Package control is how the parts of the lab talk: verbs to the lab's core over the socket in its state folder, and
// the core to the init of each machine over a socket pair.
//
// One message is one JSON value in one SEQPACKET datagram, so there is no framing to get wrong, and open files
// (stdin, stdout, stderr of an exec) travel beside it as SCM_RIGHTS. A message longer than MessageBytesMax is
// refused by the sender. Replies come in the order of the requests of one connection; whoever wants two things at
// once opens two connections.
//
// The package also holds what the core answers: Status (what the lab did) and Truth (what is so, seen from outside
// the nodes). Neither ever asks the product: a witness that repeats the accused is none.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// MessageBytesMax bounds one message. A truth with all its events stays far below it; the kernel refuses more than
// the send buffer, which is set to twice this.
const MessageBytesMax = 512 << 10

// SocketName is the control socket's name in the state folder.
const SocketName = "control.sock"

// filesPerMessageMax is stdin, stdout, stderr and one spare.
const filesPerMessageMax = 4

// Conn sends and receives messages. One goroutine may send while another receives.
type Conn struct{ u *net.UnixConn }

// NewConn wraps one end of a SEQPACKET socket.
func NewConn(u *net.UnixConn) *Conn {
	// Best effort: with the default buffers only very large messages are refused, with an error.
	_ = u.SetWriteBuffer(2 * MessageBytesMax)
	_ = u.SetReadBuffer(2 * MessageBytesMax)
	return &Conn{u: u}
}

// FromFile makes a connection of an inherited descriptor and closes the file.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("control socket: not a unix socket")
	}
	return NewConn(u), nil
}

// Pair returns two connected ends; the second is for a child process.
func Pair() (*Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	c, err := FromFile(os.NewFile(uintptr(fds[0]), "core"))
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "init"), nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.u.Close() }

// CloseOn closes the connection when ctx ends, which wakes a blocked Send or Receive. The returned function undoes it.
func (c *Conn) CloseOn(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.u.Close() })
}

// Send sends v and the files; the files stay the caller's.
func (c *Conn) Send(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	if len(b) > MessageBytesMax {
		return fmt.Errorf("control message of %d bytes is longer than %d", len(b), MessageBytesMax)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = syscall.UnixRights(fds...)
	}
	if _, _, err = c.u.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	return nil
}

// Receive waits for one message, decodes it into v and returns the files that came with it (the caller closes them).
// The end of the connection is io.EOF.
func (c *Conn) Receive(v any) ([]*os.File, error) {
	b := make([]byte, MessageBytesMax)
	oob := make([]byte, syscall.CmsgSpace(4*filesPerMessageMax))
	n, oobn, flags, _, err := c.u.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	files, err := filesOf(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if n == 0 {
		closeAll(files)
		return nil, io.EOF
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, errors.New("control message: too long, truncated")
	}
	if err := json.Unmarshal(b[:n], v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("control message: %w", err)
	}
	return files, nil
}

func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("control message: %w", err)
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed-"+strconv.Itoa(fd)))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Listen opens the control socket in the state folder; only root may use it. The path is taken through /proc/self/fd
// because a socket address holds 107 characters and a test's folder is often longer.
func Listen(state string) (*net.UnixListener, error) {
	path := filepath.Join(state, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var l *net.UnixListener
	err := throughFolder(state, func(short string) error {
		old := syscall.Umask(0o077)
		defer syscall.Umask(old)
		var err error
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// Dial connects to the lab whose state folder this is.
func Dial(state string) (*Conn, error) {
	var c *Conn
	err := throughFolder(state, func(short string) error {
		u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: short, Net: "unixpacket"})
		if err != nil {
			return err
		}
		c = NewConn(u)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("control socket of %s: %w", state, err)
	}
	return c, nil
}

func throughFolder(state string, use func(short string) error) error {
	dir, err := os.Open(state)
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketName))
}
