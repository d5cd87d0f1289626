package etcdstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"duet/witness/register"
)

// header is the value of the header key, JSON: people will look at it with etcdctl.
type header struct {
	Format     string `json:"format"`
	Cluster    string `json:"cluster"`    // the etcd cluster id in which this generation began, hex
	Generation string `json:"generation"` // 128 random bits, hex; part of every key
	Number     uint64 `json:"number"`     // +1 with every generation
}

const headerFormat = "duet-witness etcd 1"

// errForeign is a header that another program wrote: nothing is done to it and nothing is answered.
var errForeign = errors.New("the header in etcd is not one of this program")

// bind is the generation to serve: the one known, or what etcd says now compared with what this process remembers.
func (s *Store) bind(ctx context.Context) (*bound, error) {
	if b := s.bound.Load(); b != nil {
		return b, nil
	}
	return s.rebind(ctx, "")
}

// newIdentity ends the present generation by order.
func (s *Store) newIdentity(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, newIdentityPatience*callLimit)
	defer cancel()
	for {
		_, err := s.rebind(ctx, "a new identity was asked for")
		if err == nil {
			return nil
		}
		if errors.Is(err, errForeign) || !pause(ctx, readPause) {
			return fmt.Errorf("new identity: etcd: %w", err)
		}
	}
}

const newIdentityPatience = 5 // calls: a person waits for it

// rebind reads the header and takes it, or begins a new generation: by order, in an empty etcd, or because etcd is not
// what this process left. One at a time in a process; between processes the header's revision decides.
func (s *Store) rebind(ctx context.Context, order string) (*bound, error) {
	select {
	case s.binding <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.binding }()
	if b := s.bound.Load(); b != nil && order == "" {
		return b, nil
	}
	for {
		seen := s.seen.Load() // before the request: what others hear meanwhile may be newer than its answer
		state, err := s.look(ctx)
		if err != nil {
			return nil, err
		}
		why := order
		if why == "" {
			why = s.memory.doubt(state, seen)
		}
		if state.revision == 0 || why != "" {
			begun, err := s.begin(ctx, &state, why)
			if err != nil {
				return nil, err
			}
			if !begun {
				continue // another process was faster: look again
			}
		}
		return s.take(ctx, state)
	}
}

// etcdState is what etcd says of itself.
type etcdState struct {
	cluster    uint64
	now        int64 // its revision
	revision   int64 // of the header key; 0: there is none
	number     uint64
	origin     string // cluster of the header
	generation register.ID
	start      string // this process's marker
	startAt    int64  // revision of its key; 0: there is none
}

// look reads the header, then this process's marker below it.
func (s *Store) look(ctx context.Context) (etcdState, error) {
	resp, err := s.kv.Get(ctx, headerKey)
	if err != nil {
		return etcdState{}, err
	}
	state := etcdState{cluster: resp.Header.ClusterId, now: resp.Header.Revision}
	if len(resp.Kvs) == 0 {
		return state, nil
	}
	var h header
	raw := make([]byte, 16)
	err = json.Unmarshal(resp.Kvs[0].Value, &h)
	if n, decodeErr := hex.Decode(raw, []byte(h.Generation)); err != nil || decodeErr != nil || n != 16 || h.Format != headerFormat {
		return etcdState{}, fmt.Errorf("%w: %q; remove the key %s to begin empty", errForeign, resp.Kvs[0].Value, headerKey)
	}
	state.revision, state.number, state.origin, state.generation = resp.Kvs[0].ModRevision, h.Number, h.Cluster, register.ID(raw)
	b := bound{generation: state.generation}
	marker, err := s.kv.Get(ctx, b.key("start", s.memory.Instance))
	if err != nil {
		return etcdState{}, err
	}
	if len(marker.Kvs) > 0 {
		state.start, state.startAt = string(marker.Kvs[0].Value), marker.Kvs[0].ModRevision
	}
	return state, nil
}

// begin makes a new generation in the place of the one in state, and says whether nobody had been faster.
func (s *Store) begin(ctx context.Context, state *etcdState, why string) (bool, error) {
	var generation register.ID
	if _, err := rand.Read(generation[:]); err != nil {
		return false, err
	}
	h := header{
		Format: headerFormat, Cluster: clusterText(state.cluster), Generation: hex.EncodeToString(generation[:]),
		Number: max(state.number, s.memory.Number) + 1,
	}
	value, err := json.Marshal(h)
	if err != nil {
		return false, err
	}
	resp, err := s.kv.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(headerKey), "=", state.revision)).
		Then(clientv3.OpPut(headerKey, string(value))).Commit()
	if err != nil || !resp.Succeeded {
		return false, err
	}
	if why != "" {
		s.cfg.Log.Warn("all registers were set aside; every site has to admit a new one", "why", why,
			"old", prefix+hex.EncodeToString(state.generation[:])+"/")
	}
	*state = etcdState{
		cluster: state.cluster, now: resp.Header.Revision, revision: resp.Header.Revision,
		number: h.Number, origin: h.Cluster, generation: generation,
	}
	return true, nil
}

// take leaves a marker of this start, remembers it, and serves the generation. The memory names the marker before etcd
// does: killed between the two, the next start finds the old marker or the new one, and knows both. A marker whose outcome
// nobody heard may still arrive, so the next try leaves the same one, never a third.
func (s *Store) take(ctx context.Context, state etcdState) (*bound, error) {
	b := &bound{generation: state.generation, cluster: state.cluster, revision: state.revision}
	next := s.memory
	next.Cluster, next.Generation, next.Number = clusterText(state.cluster), hex.EncodeToString(state.generation[:]), state.number
	if next.Pending == "" || next.Start != state.start || next.Generation != s.memory.Generation {
		next.Pending = rand.Text()
	}
	next.Start, next.Revision = state.start, state.now
	if err := next.write(s.cfg.Memory); err != nil {
		return nil, err
	}
	s.memory = next
	s.seen.Store(state.now)
	resp, err := s.mark(ctx, b, next, state.startAt)
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		return nil, errStaleHeader
	}
	s.raise(resp.Header.Revision)
	next.Start, next.Pending, next.Revision = next.Pending, "", resp.Header.Revision
	if err := next.write(s.cfg.Memory); err != nil {
		return nil, err
	}
	s.memory = next
	s.bound.Store(b)
	return b, nil
}

// mark leaves the pending marker in the place of the one of revision at. One that arrives late, after another start has
// left its own, changes nothing: the memory of that start would not know it, and the next one would take it for a restore.
func (s *Store) mark(ctx context.Context, b *bound, m memory, at int64) (*clientv3.TxnResponse, error) {
	key := b.key("start", m.Instance)
	return s.kv.Txn(ctx).If(b.current(), clientv3.Compare(clientv3.ModRevision(key), "=", at)).
		Then(clientv3.OpPut(key, m.Pending)).Commit()
}

func clusterText(id uint64) string { return fmt.Sprintf("%016x", id) }
