// Package watchdog is a hardware watchdog timer outside the node: a FUSE file that is bound to the node's
// /dev/watchdog. Machines of development have neither the driver nor CUSE.
//
// It behaves as the kernel's watchdog API says (watchdog-api.rst): opening starts the timer; every write pets it; a
// close after a written 'V' stops it, a close without leaves it counting; a second opener gets EBUSY; SETTIMEOUT,
// GETTIMEOUT, GETTIMELEFT, GETSUPPORT and KEEPALIVE are answered. When the timer ends, expired is called once: the lab
// resets the node, frozen or not, because nothing of the timer lives inside it.
//
// Trap: WDIOC_KEEPALIVE is declared as the read of an int, so through FUSE it needs a valid pointer, else the kernel
// answers EFAULT before this package is asked (lab.md section 9). The product pets by write.
package watchdog

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"duet/build/lab/fusefile"
)

// FileName is the watchdog's file in the folder where it is attached.
const FileName = "watchdog"

// TimeoutDefault is in force until SETTIMEOUT: hardware.md section 7, T = 5 s. timeoutMax is what SETTIMEOUT takes.
const (
	TimeoutDefault = 5 * time.Second
	timeoutMax     = 600 * time.Second
)

// The ioctl numbers of linux/watchdog.h on the architectures Debian calls amd64 and arm64.
const (
	wdiocGetSupport  = 0x80285700
	wdiocKeepAlive   = 0x80045705
	wdiocSetTimeout  = 0xc0045706
	wdiocGetTimeout  = 0x80045707
	wdiocGetTimeLeft = 0x8004570a
)

// The options GETSUPPORT tells.
const (
	wdiofSetTimeout    = 0x0080
	wdiofMagicClose    = 0x0100
	wdiofKeepAlivePing = 0x8000
)

// Timer is one node's watchdog for one power-on.
type Timer struct {
	fuse.RawFileSystem
	dir     string
	expired func()

	mu      sync.Mutex
	open    bool
	magic   bool // the last write held a 'V'
	timeout time.Duration
	timer   *time.Timer // nil: not armed
	ends    time.Time
	dead    bool // power is gone
}

// Attach mounts a new, idle watchdog at dir. expired is called on its own goroutine.
func Attach(dir string, expired func()) (*Timer, error) {
	t := &Timer{RawFileSystem: fuse.NewDefaultRawFileSystem(), dir: dir, expired: expired, timeout: TimeoutDefault}
	if err := fusefile.Mount(dir, "duet-lab-watchdog", t); err != nil {
		return nil, err
	}
	return t, nil
}

// File is the path to bind to /dev/watchdog.
func (t *Timer) File() string { return filepath.Join(t.dir, FileName) }

// Detach takes the mount away.
func (t *Timer) Detach() error { return fusefile.Unmount(t.dir) }

// Stop ends the timer for ever: the node lost power or is being reset.
func (t *Timer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = true
	t.disarm()
}

// State is "idle" or "armed 5s".
func (t *Timer) State() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil {
		return "idle"
	}
	return "armed " + t.timeout.String()
}

func (t *Timer) disarm() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// pet starts the count again. It runs under mu, and so does the expiry's last check: a pet that came first wins.
func (t *Timer) pet() {
	if t.dead {
		return
	}
	t.disarm()
	t.ends = time.Now().Add(t.timeout)
	var mine *time.Timer
	mine = time.AfterFunc(t.timeout, func() {
		t.mu.Lock()
		struck := t.timer == mine && !t.dead
		if struck {
			t.dead, t.timer = true, nil
		}
		t.mu.Unlock()
		if struck {
			t.expired()
		}
	})
	t.timer = mine
}

// String names the file system in go-fuse's messages.
func (t *Timer) String() string { return "duet-lab-watchdog" }

func attr(node uint64, a *fuse.Attr) { fusefile.Attr(node, 0, a) }

// Lookup knows one name.
func (t *Timer) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != fuse.FUSE_ROOT_ID || name != FileName {
		return fuse.ENOENT
	}
	out.NodeId = fusefile.Node
	attr(fusefile.Node, &out.Attr)
	return fuse.OK
}

// GetAttr answers stat.
func (t *Timer) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// SetAttr takes the O_TRUNC of a shell's redirection.
func (t *Timer) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// Open arms the timer.
func (t *Timer) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fusefile.Node {
		return fuse.EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open {
		return fuse.EBUSY
	}
	t.open, t.magic = true, false
	t.pet()
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE
	return fuse.OK
}

// Writev pets.
func (t *Timer) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.magic = false
	for _, d := range data {
		t.magic = t.magic || bytes.IndexByte(d, 'V') >= 0
	}
	t.pet()
	return in.Size, fuse.OK
}

// Release is the close of the last descriptor: it stops the timer only after the magic 'V'.
func (t *Timer) Release(_ <-chan struct{}, _ *fuse.ReleaseIn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = false
	if t.magic {
		t.disarm()
	}
}

// Flush is close(2) of one descriptor; Release decides.
func (t *Timer) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.OK }

// Ioctl is the watchdog API.
func (t *Timer) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, arg []byte, _ *fuse.IoctlOut, out []byte) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	var value time.Duration
	switch in.Cmd {
	case wdiocGetSupport: // struct watchdog_info: options, firmware version, identity
		binary.NativeEndian.PutUint32(out, wdiofSetTimeout|wdiofMagicClose|wdiofKeepAlivePing)
		binary.NativeEndian.PutUint32(out[4:], 1)
		copy(out[8:40], "duet lab watchdog\x00")
		return fuse.OK
	case wdiocSetTimeout:
		want := time.Duration(int32(binary.NativeEndian.Uint32(arg))) * time.Second
		if want < time.Second || want > timeoutMax {
			return fuse.EINVAL
		}
		t.timeout, value = want, want
		t.pet()
	case wdiocGetTimeout:
		value = t.timeout
	case wdiocGetTimeLeft:
		if t.timer != nil {
			value = time.Until(t.ends)
		}
	case wdiocKeepAlive:
		t.pet()
	default:
		return fuse.Status(syscall.ENOTTY)
	}
	binary.NativeEndian.PutUint32(out, uint32(value/time.Second))
	return fuse.OK
}
