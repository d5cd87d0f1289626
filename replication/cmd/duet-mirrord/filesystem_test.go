package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/replication/control"
)

// machine stands for a guest: QEMU's NBD client is behind a file, a loop device makes the file a disk, and the kernel
// mounts it. It lives in namespaces of its own, of mounts and of processes. When it is cut, its processes die at once, the file
// fails under the loop device, and what the file system had not synced is gone, as when a guest loses its power. It
// is cut as well when the test is killed: its first process waits for the end of a pipe.
//
// Not every kernel that tests run on has nbd, and a guest under TCG would take a minute to boot. nbdfuse would do without
// QEMU, but passes on requests of 512 bytes that libnbd then refuses: it asks for our block size and does not heed it.
type machine struct {
	t     *testing.T
	init  *exec.Cmd
	power io.Closer
	pid   string // of its first process, in our namespace
	dir   string
}

func startMachine(n *node) *machine {
	n.t.Helper()
	m := &machine{t: n.t, dir: n.t.TempDir()}
	m.init = exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "cat")
	power, err := m.init.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	m.power = power
	if err := m.init.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(m.cut)
	m.await("a first process", func() bool {
		unshare := m.init.Process.Pid
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", unshare, unshare))
		m.pid = strings.TrimSpace(string(children))
		comm, _ := os.ReadFile("/proc/" + m.pid + "/comm")
		return err == nil && string(comm) == "cat\n"
	})
	if err := errors.Join(os.Mkdir(m.root(), 0o700), os.WriteFile(m.disk(), nil, 0o600)); err != nil {
		n.t.Fatal(err)
	}
	fuse := m.command(context.Background(), "qemu-storage-daemon",
		"--blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path="+n.socket()+",export=disk",
		"--export", "type=fuse,id=disk,node-name=disk,writable=on,allow-other=off,mountpoint="+m.disk())
	var said bytes.Buffer
	fuse.Stdout, fuse.Stderr = &said, &said
	if err := fuse.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { m.cut(); _ = fuse.Wait() })
	m.await("QEMU serves the volume", func() bool {
		info, err := os.Stat(m.inside(m.disk()))
		return err == nil && info.Size() == n.size
	})
	return m
}

func (m *machine) disk() string { return filepath.Join(m.dir, "disk") }
func (m *machine) root() string { return filepath.Join(m.dir, "mnt") }

// inside is a path as the machine sees it.
func (m *machine) inside(path string) string { return "/proc/" + m.pid + "/root" + path }

func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--mount", "--pid", "--target", m.pid, "--", name}, args...)...)
}

// run runs a program in the machine.
func (m *machine) run(name string, args ...string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*patience)
	defer cancel()
	cmd := m.command(ctx, name, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// cut ends it, without a farewell.
func (m *machine) cut() {
	m.power.Close()
	_ = m.init.Wait()
}

func (m *machine) await(what string, reached func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		if time.Now().After(deadline) {
			m.t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// content of a file by its number.
func content(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 5))
	p := make([]byte, 1+r.IntN(300<<10))
	chacha := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
	_, _ = chacha.Read(p)
	return p
}

func (m *machine) file(i int) string {
	return m.inside(filepath.Join(m.root(), fmt.Sprintf("file-%d", i)))
}

// write writes files and syncs them.
func (m *machine) write(from, to int) {
	m.t.Helper()
	for i := from; i < to; i++ {
		if err := os.WriteFile(m.file(i), content(i), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	d, err := os.Open(m.inside(m.root()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		m.t.Fatal(err)
	}
}

// A file system on a volume, through programs that nobody here wrote and the kernel: what was synced is there, and the
// file system is whole, on the leg of the other node, after the machine and the daemon of its node died while it wrote
// on.
func TestFileSystemSurvivesTheNode(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real processes, needs root")
	}
	for name, tools := range map[string]struct{ make, check []string }{
		"ext4": {[]string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}},
		"xfs":  {[]string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n", "-f"}},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := startNodes(t)
			for _, n := range nodes {
				n.size = 320 << 20 // mkfs.xfs refuses less than 300 MiB
				n.start()
				n.pair()
			}
			for _, n := range nodes {
				n.awaitStage("paired")
			}
			a, b := nodes[0], nodes[1]
			const synced = 200
			m := startMachine(a)
			m.run(tools.make[0], append(tools.make[1:], m.disk())...)
			m.run("mount", "-o", "loop", m.disk(), m.root())
			m.write(0, synced/2)
			m.write(synced/2, synced)
			var more atomic.Int64
			ended := make(chan struct{})
			go func() { // until the disk fails under it
				defer close(ended)
				for i := synced; i < 400; i++ {
					f, err := os.OpenFile(m.file(i), os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
					if err != nil {
						return
					}
					_, err = f.Write(content(i))
					if f.Close(); err != nil {
						return
					}
					more.Add(1)
				}
			}()
			m.await("it writes on", func() bool { return more.Load() > 20 })
			a.kill()
			m.cut()
			<-ended
			acknowledged := synced + int(more.Load())

			for _, n := range nodes {
				n.owner = b.slot
			}
			b.grant(control.Grant{Mode: control.Solo, Epoch: 2, Members: 2})
			b.awaitStage("alone")
			m = startMachine(b)
			m.run("mount", "-o", "loop", m.disk(), m.root()) // replays the journal
			for i := range acknowledged {
				got, err := os.ReadFile(m.file(i))
				if err != nil || !bytes.Equal(got, content(i)) {
					t.Fatalf("file %d of %d: %d bytes, %v", i, acknowledged, len(got), err)
				}
			}
			m.run("umount", m.root())
			m.run(tools.check[0], append(tools.check[1:], m.disk())...)
			m.cut()
			b.stop()
			t.Logf("%d files synced, %d of them while it was killed", acknowledged, acknowledged-synced)
		})
	}
}
