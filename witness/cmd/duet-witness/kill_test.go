package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"duet/build/testport"
	"duet/witness/client"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// TestMain lets this binary be the program: a witness that is killed has to be a process.
func TestMain(m *testing.M) {
	if os.Getenv("BE_DUET_WITNESS") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// process is a witness that runs as one.
type process struct {
	t       *testing.T
	data    string
	address string
	key     ed25519.PublicKey
	env     []string
	extra   []string
	cmd     *exec.Cmd
	log     bytes.Buffer
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{t: t, data: filepath.Join(t.TempDir(), "w")}
	_, text, _ := call(t, "key", "--data", p.data)
	var err error
	if p.key, err = pinned.ParseKey(strings.TrimSpace(text)); err != nil {
		t.Fatal(err)
	}
	p.address = testport.Address(t, "127.0.0.1")
	t.Cleanup(p.kill)
	return p
}

// start starts it and waits until it listens.
func (p *process) start(args ...string) {
	p.t.Helper()
	p.log.Reset()
	p.cmd = exec.Command(os.Args[0], append(append([]string{"serve", "--data", p.data, "--listen", p.address}, p.extra...), args...)...)
	p.cmd.Env = append(append(os.Environ(), "BE_DUET_WITNESS=1"), p.env...)
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			p.kill()
			p.t.Fatalf("it does not listen: %v\n%s", err, p.log.String())
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (p *process) kill() { p.end(syscall.SIGKILL) }

func (p *process) end(sig syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(sig)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// enrol makes a site with two keys.
func (p *process) enrol(name string) (a, b ed25519.PrivateKey) {
	p.t.Helper()
	pubA, a, errA := ed25519.GenerateKey(nil)
	pubB, b, errB := ed25519.GenerateKey(nil)
	if err := errors.Join(errA, errB); err != nil {
		p.t.Fatal(err)
	}
	if status, _, errs := call(p.t, "enroll", "--data", p.data, "--name", name, "--key-a", pinned.FormatKey(pubA), "--key-b", pinned.FormatKey(pubB)); status != 0 {
		p.t.Fatal(errs)
	}
	return a, b
}

func (p *process) client(identity ed25519.PrivateKey) *client.Client {
	p.t.Helper()
	c, err := client.New(client.Config{Address: p.address, ServerKey: p.key, Identity: identity})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// insist repeats a request with the same nonce until it is answered, as a node does.
func insist(ctx context.Context, c *client.Client, q wire.Request) (wire.Reply, error) {
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		reply, err := c.Do(try, q)
		cancel()
		if err == nil || ctx.Err() != nil {
			return reply, err
		}
	}
}

// storm asks for one change after the other, alone on its site: each goes from what the one before left. So every answer
// but "ok" means that something acknowledged was taken back, or that a repeat was answered otherwise than the first time.
func storm(ctx context.Context, c *client.Client, site register.ID, answered *atomic.Int64) error {
	create := wire.Request{Op: wire.Create, Nonce: 1, Site: site, New: register.Content{Epoch: 1, Set: register.Both}}
	made, err := insist(ctx, c, create)
	if err != nil || made.Result != wire.OK {
		return fmt.Errorf("CREATE: %v %w", made.Result, err)
	}
	now := made.Content
	for nonce := uint64(2); ctx.Err() == nil; nonce++ {
		q := wire.Request{Op: wire.CAS, Nonce: nonce, RID: made.RID, Expected: now, New: register.Content{Epoch: now.Epoch + 1, Set: register.OnlyA}}
		if now.Set == register.OnlyA {
			q = wire.Request{Op: wire.Push, Nonce: nonce, RID: made.RID, New: register.Content{Epoch: now.Epoch + 1}}
		}
		reply, err := insist(ctx, c, q)
		if err != nil {
			break // the test has ended
		}
		if reply.Result != wire.OK || reply.Content.Epoch != now.Epoch+1 || reply.Sequence != nonce {
			return fmt.Errorf("%s after (%d,%d): %s, %+v", q.Op, now.Epoch, now.Set, reply.Result, reply)
		}
		now = reply.Content
		answered.Add(1)
		if nonce%16 == 0 {
			if again, err := insist(ctx, c, create); err == nil && again.RID != made.RID {
				return fmt.Errorf("the repeated CREATE made %x after %x", again.RID, made.RID)
			}
		}
	}
	return nil
}

// Killed in the middle of a storm, again and again: nothing acknowledged is taken back.
func TestKilledInAStorm(t *testing.T) {
	const sites, rounds, answersPerRound = 8, 6, 200
	p := newProcess(t)
	var clients []*client.Client
	for i := range sites {
		a, _ := p.enrol(fmt.Sprintf("site-%d", i))
		clients = append(clients, p.client(a))
	}
	p.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	var answered atomic.Int64
	failed := make(chan error, sites)
	for i, c := range clients {
		running.Go(func() { failed <- storm(ctx, c, register.ID{byte(i + 1)}, &answered) })
	}
	more := func(answers int64) { // waits for so many
		t.Helper()
		from, limit := answered.Load(), time.After(time.Minute)
		for answered.Load() < from+answers {
			select {
			case err := <-failed:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			case <-limit:
				t.Fatalf("only %d of %d answers", answered.Load()-from, answers)
			}
		}
	}
	for range rounds {
		more(answersPerRound)
		p.kill()
		p.start()
	}
	more(sites)
	cancel()
	running.Wait()
	for range sites {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d answers over %d kills", answered.Load(), rounds)
}

// A store that was emptied knows nothing of before, and says so.
func TestEmptiedStore(t *testing.T) {
	for _, how := range []string{"removed", "by order"} {
		p := newProcess(t)
		a, _ := p.enrol("s")
		c := p.client(a)
		p.start()
		create := wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID{1}}
		made, err := insist(t.Context(), c, create)
		if err != nil {
			t.Fatal(err)
		}
		p.end(syscall.SIGTERM)
		if how == "removed" {
			if err := os.Remove(filepath.Join(p.data, "registers.db")); err != nil {
				t.Fatal(err)
			}
			p.start()
		} else {
			p.start("--new-identity")
		}
		push := wire.Request{Op: wire.Push, Nonce: 2, RID: made.RID, New: register.Content{Epoch: 5}}
		if got, err := insist(t.Context(), c, push); err != nil || got.Result != wire.UnknownRegister {
			t.Errorf("%s: %+v, %v", how, got, err)
		}
		if again, err := insist(t.Context(), c, create); err != nil || again.Result != wire.OK || again.RID == made.RID {
			t.Errorf("%s: a late CREATE: %+v, %v", how, again, err)
		}
		p.end(syscall.SIGTERM)
	}
}
