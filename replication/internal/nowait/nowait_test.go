package nowait

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is two ends of a connection over a network.
func pair(t *testing.T, network, address string) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// What net.Conn promises: more than the socket holds crosses whole, whoever waits; deadlines and the end are told as ever.
func TestConn(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			x, y := pair(t, network, address)
			a, b := New(x), New(y)
			want := make([]byte, 16<<20)
			rand.Read(want)
			wrote := make(chan error, 1)
			go func() {
				_, err := a.Write(want)
				wrote <- err
			}()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("not what was written: %v", err)
			}
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
			b.SetReadDeadline(time.Unix(1, 0))
			if _, err := b.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after its deadline: %v", err)
			}
			b.SetReadDeadline(time.Time{})
			if n, err := b.Read(nil); n != 0 || err != nil {
				t.Errorf("of nothing: %d, %v", n, err)
			}
			a.Close()
			if _, err := b.Read(got); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
			if _, err := a.Write(want); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write when closed: %v", err)
			}
			if _, err := a.Read(got); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read when closed: %v", err)
			}
			var failed error
			for range 100 {
				if _, failed = b.Write(want); failed != nil {
					break
				}
			}
			if !errors.Is(failed, unix.EPIPE) && !errors.Is(failed, unix.ECONNRESET) {
				t.Errorf("to nobody: %v", failed)
			}
		})
	}
}

func TestWritev(t *testing.T) {
	x, y := pair(t, "unix", filepath.Join(t.TempDir(), "s"))
	raw, err := New(x).(*Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	vectors := make([][]byte, VectorsMax+7)
	for i := range vectors {
		vectors[i] = bytes.Repeat([]byte{byte(i)}, i%3)
	}
	n := 0
	if err := raw.Write(func(fd uintptr) bool { n, err = Writev(fd, vectors); return true }); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join(vectors[:VectorsMax], nil)[:n] // under the race detector it writes less
	got := make([]byte, len(want))
	if _, e := io.ReadFull(y, got); err != nil || e != nil || n == 0 || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, %v", n, err, e)
	}
	full := [][]byte{make([]byte, 1<<20)}
	for err == nil {
		_ = raw.Write(func(fd uintptr) bool { _, err = Writev(fd, full); return true })
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full socket: %v", err)
	}
}

// What is not a socket of the kernel is left as it is.
func TestNewOfAPipe(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	if New(a) != a {
		t.Error("not the same")
	}
	a.Close()
}
