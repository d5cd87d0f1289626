package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"duet/witness/register"
)

var (
	here  = Machine{ID: "machine-1", Hardware: "board-1"}
	site  = register.ID{1}
	owner = register.Owner{Name: "site-1", Keys: [2][32]byte{{1}, {2}}}
)

func both(ep register.Epoch) register.Content { return register.Content{Epoch: ep, Set: register.Both} }

func onlyA(ep register.Epoch) register.Content {
	return register.Content{Epoch: ep, Set: register.OnlyA}
}

func open(t *testing.T, cfg Config) (*Store, Opened) {
	t.Helper()
	s, opened, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, opened
}

func create(t *testing.T, s *Store, o register.Owner, site register.ID, nonce uint64, c register.Content) register.Register {
	t.Helper()
	r, err := s.Create(context.Background(), o, site, nonce, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnotherMachine(t *testing.T) {
	for _, test := range []struct {
		name  string
		now   Machine
		fresh bool
		aside bool
	}{
		{"the same", here, false, false},
		{"hardware cannot be read now", Machine{ID: here.ID}, false, false},
		{"another machine", Machine{ID: "machine-2", Hardware: here.Hardware}, false, true},
		{"the disk in another box", Machine{ID: here.ID, Hardware: "board-2"}, false, true},
		{"by order", here, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "registers.db")
			s, _ := open(t, Config{Path: path, Machine: here})
			r := create(t, s, owner, site, 1, both(1))
			s.Close()
			s, opened := open(t, Config{Path: path, Machine: test.now, NewIdentity: test.fresh})
			_, _, err := s.Push(context.Background(), owner, r.RID, 2)
			if got := opened.SetAside != ""; got != test.aside || errors.Is(err, register.ErrUnknownRegister) != test.aside {
				t.Errorf("%+v, %v", opened, err)
			}
			if test.aside && opened.Why == "" {
				t.Error("no reason")
			}
			if again := create(t, s, owner, site, 1, both(1)); test.aside == (again.RID == r.RID) {
				t.Error("a late CREATE brought the old rid back, or the kept one got lost")
			}
		})
	}
}

func TestCorruptRegister(t *testing.T) {
	s, _ := open(t, Config{Path: filepath.Join(t.TempDir(), "r"), Machine: here})
	r, other := create(t, s, owner, site, 1, both(1)), create(t, s, owner, site, 2, both(1))
	err := s.db.Update(func(tx *bbolt.Tx) error {
		record := bytes.Clone(tx.Bucket(bucketRegisters).Get(r.RID[:]))
		record[47] ^= 1 // the epoch
		return tx.Bucket(bucketRegisters).Put(r.RID[:], record)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CAS(context.Background(), owner, r.RID, both(1), onlyA(2)); !errors.Is(err, register.ErrCorrupt) {
		t.Errorf("a corrupt register: %v", err)
	}
	if _, done, err := s.Push(context.Background(), owner, other.RID, 2); err != nil || !done {
		t.Errorf("the other register: %v", err)
	}
}

// After a failed write nothing is served, even if the next write would work.
func TestFailureIsFinal(t *testing.T) {
	s, _ := open(t, Config{Path: filepath.Join(t.TempDir(), "r"), Machine: here})
	r := create(t, s, owner, site, 1, both(1))
	s.step = func(at string) {
		if at == "commit" {
			panic("write error")
		}
	}
	if _, _, err := s.Push(context.Background(), owner, r.RID, 2); err == nil {
		t.Fatal("no error")
	}
	s.step = func(string) {}
	if _, _, err := s.Push(context.Background(), owner, r.RID, 3); err == nil || errors.Is(err, register.ErrUnknownRegister) {
		t.Errorf("a dead store answers: %v", err)
	}
	if _, err := s.List(context.Background(), owner); err == nil {
		t.Error("a dead store lists")
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registers.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("not a store "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(Config{Path: path, Machine: here}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is no store: %v", err)
	}
	s, opened := open(t, Config{Path: path, Machine: here, NewIdentity: true})
	if opened.SetAside == "" {
		t.Error("not set aside")
	}
	create(t, s, owner, site, 1, both(1))
}

func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registers.db")
	open(t, Config{Path: path, Machine: here})
	if _, _, err := Open(Config{Path: path, Machine: here}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
}

// What a start reads comes from the medium: nothing of the file that was in the page cache before is there afterwards,
// but the pages that the start itself has read.
func TestStartReadsTheMedium(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registers.db")
	var kind unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &kind); err != nil {
		t.Fatal(err)
	}
	if kind.Type == unix.TMPFS_MAGIC {
		t.Skip("on a tmpfs the page cache is the medium")
	}
	s, _ := open(t, Config{Path: path, Machine: here})
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketHeader).Put([]byte("padding"), make([]byte, 4<<20))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if cached, pages := inCache(t, path); cached < pages {
		t.Fatalf("%d of %d pages are in the cache: the test sees nothing", cached, pages)
	}
	open(t, Config{Path: path, Machine: here})
	if cached, pages := inCache(t, path); cached > pages/2 {
		t.Errorf("%d of %d pages are in the cache", cached, pages)
	}
}

// inCache counts the pages of a file, and those in the page cache.
func inCache(t *testing.T, path string) (cached, pages int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	resident := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&resident[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, page := range resident {
		cached += int(page & 1)
	}
	return cached, len(resident)
}

// script is what the process that dies does: every kind of change. Each is repeated as a node does that heard nothing.
var script = []func(s *Store, first register.ID) (register.Register, bool, error){
	func(s *Store, _ register.ID) (register.Register, bool, error) {
		r, err := s.Create(context.Background(), owner, site, 1, both(1))
		return r, true, err
	},
	func(s *Store, first register.ID) (register.Register, bool, error) {
		return s.Push(context.Background(), owner, first, 2)
	},
	func(s *Store, first register.ID) (register.Register, bool, error) {
		return s.CAS(context.Background(), owner, first, both(2), onlyA(3))
	},
	func(s *Store, _ register.ID) (register.Register, bool, error) {
		r, err := s.Create(context.Background(), owner, site, 2, onlyA(3))
		return r, true, err
	},
}

// state is every register of the site, newest first.
func state(t *testing.T, s *Store) (all []register.Register) {
	t.Helper()
	rids, err := s.List(context.Background(), owner)
	for _, rid := range rids {
		r, _, pushErr := s.Push(context.Background(), owner, rid, 0) // changes nothing
		err = errors.Join(err, pushErr)
		all = append(all, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Killed at every step of every change, the store holds the old register or the new one; after its answer, the new. The
// change that got no answer is repeated and answered as if nothing had been, and the rest goes on from there.
func TestKilledAtEveryStep(t *testing.T) {
	if at := os.Getenv("STORE_KILL_AT"); at != "" {
		killed(t, at)
		return
	}
	for at := 1; ; at++ {
		path := filepath.Join(t.TempDir(), "registers.db")
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledAtEveryStep$")
		cmd.Env = append(os.Environ(), "STORE_KILL_AT="+strconv.Itoa(at), "STORE_PATH="+path)
		out, err := cmd.Output()
		answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		answered := bytes.Count(out, []byte("answered "))
		var exit *exec.ExitError
		if err == nil {
			if answered != len(script) || at != 3*len(script)+1 {
				t.Fatalf("%d changes without a kill at step %d", answered, at)
			}
			return
		}
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("step %d: %v\n%s", at, err, out)
		}
		s, _ := open(t, Config{Path: path, Machine: here})
		holds := answered
		if at%3 == 0 {
			holds++ // killed between the commit and the answer
		}
		all := state(t, s)
		registers, epoch := min(holds, 1), register.Epoch(min(holds, 3))
		if holds == len(script) {
			registers = 2
		}
		if len(all) != registers || (registers > 0 && all[registers-1].Content.Epoch != epoch) {
			t.Errorf("killed at step %d after %d answers, it holds %+v", at, answered, all)
		}
		var first register.ID
		if registers > 0 {
			first = all[registers-1].RID
		}
		if answered > 0 && answers[0] != fmt.Sprintf("answered %x", first) {
			t.Errorf("killed at step %d: the first register is %x, it said %s", at, first, answers[0])
		}
		for i := answered; i < len(script); i++ {
			r, done, err := script[i](s, first)
			if err != nil || !done {
				t.Errorf("killed at step %d, change %d again: %+v %v %v", at, i, r, done, err)
			}
			if i == 0 {
				first = r.RID
			}
		}
		all = state(t, s)
		if len(all) != 2 || all[1].RID != first || all[1].Content != onlyA(3) || all[1].Sequence != 3 || all[0].CreateNonce != 2 {
			t.Errorf("killed at step %d, in the end: %+v", at, all)
		}
		s.Close()
	}
}

// killed is the process that dies.
func killed(t *testing.T, at string) {
	s, _ := open(t, Config{Path: os.Getenv("STORE_PATH"), Machine: here})
	steps := 0
	s.step = func(string) {
		if steps++; strconv.Itoa(steps) == at {
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	var first register.ID
	for _, change := range script {
		r, done, err := change(s, first)
		if err != nil || !done {
			t.Fatal(err)
		}
		if first == (register.ID{}) {
			first = r.RID
		}
		fmt.Printf("answered %x\n", r.RID)
	}
}

// Changes that wait together share one transaction; what one of them refuses leaves nothing of it behind.
func TestChangesShareATransaction(t *testing.T) {
	s, _ := open(t, Config{Path: filepath.Join(t.TempDir(), "r"), Machine: here})
	r := create(t, s, owner, site, 1, both(1))
	commits, first, waiting := 0, make(chan struct{}), make(chan struct{})
	s.step = func(at string) {
		switch {
		case at != "commit":
		case commits == 0:
			commits++
			close(first)
			<-waiting // the others arrive while the first one is written
		default:
			commits++
		}
	}
	const others = 50
	answers := make(chan error, others+1)
	go func() {
		_, _, err := s.Push(context.Background(), owner, r.RID, 2)
		answers <- err
	}()
	<-first
	var sent sync.WaitGroup
	for n := range others {
		sent.Add(1)
		c := change{answer: make(chan error, 1), do: func(tx *bbolt.Tx) error {
			if n%10 == 0 {
				return register.ErrUnknownRegister
			}
			before, err := load(tx, r.RID)
			if err != nil {
				return err
			}
			after, _, _ := before.Push(before.Content.Epoch + 1)
			return save(tx, after)
		}}
		go func() {
			sent.Done()
			s.changes <- c
			answers <- <-c.answer
		}()
	}
	sent.Wait()
	close(waiting)
	refused := 0
	for range others + 1 {
		err := <-answers
		if errors.Is(err, register.ErrUnknownRegister) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if after := state(t, s); after[0].Content.Epoch != 2+others-others/10 || refused != others/10 {
		t.Errorf("%d refused, then %+v", refused, after)
	}
	if commits >= others {
		t.Errorf("%d transactions for %d changes", commits, others+1)
	}
}

func TestOrderKeySorts(t *testing.T) {
	if bytes.Compare(orderKey(site, 255), orderKey(site, 256)) >= 0 || binary.BigEndian.Uint64(orderKey(site, 7)[16:]) != 7 {
		t.Error("the order of creation is not the order of keys")
	}
}
