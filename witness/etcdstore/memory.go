package etcdstore

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"duet/witness/register"
)

// memory is what one witness process keeps of the etcd it serves from, so that it notices one that was restored. It is
// a file on its own machine; nothing of it decides about a register.
type memory struct {
	Format     string `json:"format"`
	Machine    string `json:"machine"`  // digest; a file from elsewhere is not believed
	Instance   string `json:"instance"` // names this process's marker in etcd
	Cluster    string `json:"cluster,omitempty"`
	Generation string `json:"generation,omitempty"`
	Number     uint64 `json:"number,omitempty"`
	Start      string `json:"start,omitempty"`   // marker of the last start
	Pending    string `json:"pending,omitempty"` // marker that may be in etcd instead
	Revision   int64  `json:"revision,omitempty"`
}

const memoryFormat = "duet-witness etcd memory 1"

// readMemory reads the file, or begins a new one if there is none or it came from another machine: this process is then
// one more that serves what etcd holds.
func readMemory(path string, machine [32]byte) (memory, error) {
	fresh := memory{Format: memoryFormat, Machine: hex.EncodeToString(machine[:]), Instance: rand.Text()}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.Format != memoryFormat || m.Instance == "" {
		return fresh, fmt.Errorf("memory of etcd %s cannot be read (%w); start once with --new-identity", path, err)
	}
	if m.Machine != fresh.Machine {
		return fresh, nil
	}
	return m, nil
}

// doubt says why etcd is not what this process left, or nothing. Each test sees what the others cannot: the cluster id a
// restore under another name, the revision one that lost writes, the marker one from before the last start whose
// revision was raised again, the number one from before a new identity.
func (m memory) doubt(now etcdState, seen int64) string {
	generation := hex.EncodeToString(now.generation[:])
	switch {
	case now.revision == 0 && m.Generation != "":
		return "etcd is empty, and this witness has served registers from it: another etcd, or one that lost its data"
	case now.revision == 0:
		return ""
	case now.origin != clusterText(now.cluster):
		return "the registers were made in another etcd cluster: a copy or a restored snapshot"
	case m.Cluster != clusterText(now.cluster):
		return "" // a first meeting: there is nothing to compare
	case now.now < max(m.Revision, seen):
		return fmt.Sprintf("etcd went back from revision %d to %d: a restored snapshot", max(m.Revision, seen), now.now)
	case now.number < m.Number, now.number == m.Number && generation != m.Generation:
		return "etcd holds an older generation than this witness has served: a restored snapshot"
	case generation == m.Generation && now.start != m.Start && (m.Pending == "" || now.start != m.Pending):
		return "the last start of this witness is not in etcd: a restored snapshot"
	}
	return ""
}

// write is durable when it returns: aside, synced, renamed, folder synced.
func (m memory) write(path string) (err error) {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	aside, err := os.CreateTemp(filepath.Dir(path), ".etcd-*")
	if err != nil {
		return fmt.Errorf("memory of etcd: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("memory of etcd %s: %w", path, err), os.Remove(aside.Name()))
		}
	}()
	_, err = aside.Write(append(text, '\n'))
	if err = errors.Join(err, aside.Sync(), aside.Close()); err != nil {
		return err
	}
	if err = os.Rename(aside.Name(), path); err != nil {
		return err
	}
	dir, openErr := os.Open(filepath.Dir(path))
	if openErr != nil {
		return openErr
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// note asks etcd now and then, so that its health is known while no node asks, and keeps the highest revision: what a
// restore takes back after the last note, cannot be noticed by the revision.
func (s *Store) note() {
	ticker := time.NewTicker(memorySpan)
	defer ticker.Stop()
	s.probe()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
			s.probe()
			if err := s.remember(); err != nil {
				s.cfg.Log.Error("the revision of etcd cannot be noted", "error", err)
			}
		}
	}
}

// probe is a question of nobody: its outcome is the health of the store.
func (s *Store) probe() {
	_, err := s.List(s.ctx, register.Owner{})
	if err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Error("etcd does not answer", "error", err)
	}
}

func (s *Store) remember() error {
	s.binding <- struct{}{}
	defer func() { <-s.binding }()
	if s.bound.Load() == nil || s.seen.Load() == s.memory.Revision {
		return nil
	}
	next := s.memory
	next.Revision = s.seen.Load()
	if err := next.write(s.cfg.Memory); err != nil {
		return err
	}
	s.memory = next
	return nil
}

// fileLock keeps a second process from using the same memory: each would take the other's marker for a restore.
type fileLock struct{ f *os.File }

func lockFile(path string) (fileLock, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fileLock{}, fmt.Errorf("memory of etcd: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fileLock{}, errors.Join(fmt.Errorf("memory of etcd %s is in use by another process", path), f.Close())
	}
	return fileLock{f}, nil
}

func (l fileLock) close() error { return l.f.Close() }
