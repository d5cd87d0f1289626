package control

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// PID is the process that listens on the socket, as the kernel recorded it. duetd kills it when it does not confirm
// a grant (protocol.md 5.1).
func (c *Client) PID() (int, error) {
	u, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T has no process behind it", c.conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	if cred.Pid <= 0 {
		return 0, fmt.Errorf("process %d is outside this node", cred.Pid)
	}
	return int(cred.Pid), nil
}
