package etcdstore

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"duet/witness/enrolment"
	"duet/witness/etcdstore/etcdtest"
	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/server"
	"duet/witness/store/storetest"
	"duet/witness/wire"
)

// What one node asked and what it heard. No answer: it took effect at some time, or never.
type (
	asked struct{ wire.Request }
	heard struct {
		wire.Reply
		silent bool
	}
)

// siteState is the whole of a site as text, so that porcupine can compare it: up to four registers, oldest first.
type siteState [register.PerSite]register.Register

func (s siteState) kept() register.Site {
	site := register.Site{ID: storetest.Site}
	for _, r := range s {
		if r.RID != (register.ID{}) {
			site.Kept = append(site.Kept, register.Kept{RID: r.RID, Register: r})
		}
	}
	return site
}

func stateOf(site register.Site) (s siteState) {
	for i, k := range site.Kept {
		s[i] = k.Register
	}
	return s
}

// unheard stands for the rid of a CREATE whose answer got lost.
func unheard(nonce uint64) register.ID { return register.ID{0xff, byte(nonce >> 8), byte(nonce)} }

// after is the sequential meaning of a request, by the pure rules: the answers it may have, and the state after.
func after(s siteState, q wire.Request, rid register.ID) (wire.Reply, siteState) {
	reply := wire.Reply{Op: q.Op, Nonce: q.Nonce, RID: q.RID, Result: wire.OK}
	site := s.kept()
	if q.Op == wire.Create {
		for i, k := range site.Kept { // made by a CREATE that nobody heard the answer of: now its rid is known
			if k.RID == unheard(q.Nonce) && k.Register.CreateNonce == q.Nonce {
				site.Kept[i].RID, site.Kept[i].Register.RID = rid, rid
			}
		}
		next, made, err := site.Create(register.Owner{}, storetest.Site, false, q.Nonce, q.New, rid)
		if err != nil {
			panic(err)
		}
		reply.RID, reply.Content, reply.Sequence = made.RID, made.Content, made.Sequence
		return reply, stateOf(next)
	}
	r, err := site.Find(q.RID)
	if err != nil {
		reply.Result = wire.UnknownRegister
		return reply, s
	}
	var done bool
	if q.Op == wire.CAS {
		r, done, _ = r.CAS(q.Expected, q.New)
	} else {
		r, done, _ = r.Push(q.New.Epoch)
	}
	if !done {
		reply.Result = wire.Failed
	}
	reply.Content, reply.Sequence = r.Content, r.Sequence
	return reply, stateOf(site.With(r))
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{siteState{}} },
		Step: func(state, input, output any) []any {
			s, in, out := state.(siteState), input.(asked), output.(heard)
			if out.silent {
				_, next := after(s, in.Request, unheard(in.Nonce))
				return []any{s, next}
			}
			want, next := after(s, in.Request, out.RID)
			if want.Result != out.Result || want.RID != out.RID || want.Content != out.Content || want.Sequence != out.Sequence {
				return nil
			}
			return []any{next}
		},
		Equal:             func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
	}
	return m.ToModel()
}

// plant is one site, and several witness processes' worth of servers over one etcd.
type plant struct {
	t       *testing.T
	servers []string // addresses
	nodes   [2]*tls.Config
	mu      sync.Mutex
	history []porcupine.Operation
	rids    []register.ID
	nonce   uint64
}

func newPlant(t *testing.T, etcd []*etcdtest.Server, servers int) *plant {
	p := &plant{t: t}
	var nodes [2]ed25519.PrivateKey
	for i := range nodes {
		_, nodes[i], _ = ed25519.GenerateKey(nil)
	}
	_, identity, _ := ed25519.GenerateKey(nil)
	public := func(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }
	dir := t.TempDir()
	if err := enrolment.Write(dir, enrolment.Site{Name: "s", KeyA: public(nodes[0]), KeyB: public(nodes[1])}); err != nil {
		t.Fatal(err)
	}
	for range servers {
		st := newWitness(t, etcd...).open(t, false)
		srv, err := server.New(server.Config{Identity: identity, Sites: enrolment.Open(dir, func(err error) { t.Error(err) }), Store: st})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, ln) }()
		t.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		p.servers = append(p.servers, ln.Addr().String())
	}
	for i := range nodes {
		var err error
		if p.nodes[i], err = pinned.Client(nodes[i], public(identity)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// draw makes up a request of a node: mostly something that can succeed, sometimes something old.
func (p *plant) draw(rng *rand.Rand, node register.Set) wire.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonce++
	content := func() register.Content {
		return register.Content{Epoch: register.Epoch(rng.IntN(6) + 1), Set: register.Set(rng.IntN(3) + 1)}
	}
	if len(p.rids) == 0 || rng.IntN(12) == 0 {
		q := wire.Request{Op: wire.Create, Nonce: p.nonce, Site: storetest.Site, New: register.Content{Epoch: 1, Set: register.Both}}
		if rng.IntN(3) == 0 && p.nonce > 3 {
			q.Nonce = p.nonce - uint64(rng.IntN(3)) // a repeat, perhaps of somebody else's CREATE
		}
		return q
	}
	rid := p.rids[len(p.rids)-1-rng.IntN(min(len(p.rids), register.PerSite+1))]
	if rng.IntN(3) == 0 {
		return wire.Request{Op: wire.Push, Nonce: p.nonce, RID: rid, New: register.Content{Epoch: register.Epoch(rng.IntN(8) + 1)}}
	}
	return wire.Request{Op: wire.CAS, Nonce: p.nonce, RID: rid, Expected: content(), New: register.Content{Epoch: register.Epoch(rng.IntN(8) + 1), Set: node}}
}

const silence = 3 * time.Second // of a server whose etcd is away; then the history says "no answer"

// lines are the connections of one actor. A request is sent once: package client would repeat it, and of two executions
// of one request the answer may be that of the second, which is right for a node (protocol.md section 11) and is not one
// operation to a checker.
type lines map[string]*tls.Conn

func (l lines) ask(address string, config *tls.Config, q wire.Request) (wire.Reply, error) {
	conn := l[address]
	if conn == nil {
		var err error
		if conn, err = tls.DialWithDialer(&net.Dialer{Timeout: silence}, "tcp", address, config); err != nil {
			return wire.Reply{}, err
		}
		l[address] = conn
	}
	frame := q.Encode()
	var raw [wire.ReplySize]byte
	err := conn.SetDeadline(time.Now().Add(silence))
	if err == nil {
		_, err = conn.Write(frame[:])
	}
	if err == nil {
		_, err = io.ReadFull(conn, raw[:])
	}
	if err != nil {
		conn.Close()
		delete(l, address)
		return wire.Reply{}, err
	}
	return wire.DecodeReply(raw)
}

func (l lines) close() {
	for _, conn := range l {
		conn.Close()
	}
}

// act asks requests one after another and writes the history.
func (p *plant) act(actor int, began time.Time, requests int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(actor)))
	node := actor % 2
	var last wire.Reply
	open := make(lines)
	defer open.close()
	for range requests {
		q := p.draw(rng, register.Set(node+1))
		if q.Op == wire.CAS && last.RID == q.RID && rng.IntN(4) > 0 {
			q.Expected = last.Content
		}
		call := time.Since(began).Nanoseconds()
		reply, err := open.ask(p.servers[rng.IntN(len(p.servers))], p.nodes[node], q)
		op := porcupine.Operation{ClientId: actor, Input: asked{q}, Call: call, Output: heard{Reply: reply}, Return: time.Since(began).Nanoseconds()}
		if err != nil {
			op.Output, op.Return = heard{silent: true}, int64(1)<<62
		}
		p.mu.Lock()
		p.history = append(p.history, op)
		if err == nil && q.Op == wire.Create && !slices.Contains(p.rids, reply.RID) {
			p.rids = append(p.rids, reply.RID)
		}
		p.mu.Unlock()
		if err == nil {
			last = reply
		}
	}
}

// Several witness processes over one etcd, both nodes asking all of them at random, etcd killed meanwhile, each member in
// its turn: whatever was answered has one order that the sequential register could have given.
func TestConcurrentWitnesses(t *testing.T) {
	t.Parallel()
	t.Run("one member", func(t *testing.T) { concurrent(t, []*etcdtest.Server{etcdtest.Start(t)}) })
	t.Run("three members", func(t *testing.T) { concurrent(t, etcdtest.StartCluster(t, 3)) })
}

const checkLimit = 30 * time.Second // of porcupine: usually well below a second

func concurrent(t *testing.T, etcd []*etcdtest.Server) {
	const servers, actors, requests = 3, 6, 25 // requests of an actor between two kills
	p := newPlant(t, etcd, servers)
	began := time.Now()
	seed := uint64(began.UnixNano())
	var running sync.WaitGroup
	done := make(chan struct{}, actors*(len(etcd)+1))
	for actor := range actors {
		running.Go(func() {
			for part := range len(etcd) + 1 {
				p.act(actor, began, requests, seed+uint64(part))
				done <- struct{}{}
			}
		})
	}
	for _, member := range etcd {
		for range actors / 2 { // somebody is always in the middle of something
			<-done
		}
		member.Stop()
		for range actors / 2 {
			if len(etcd) > 1 { // the others are a majority: everything goes on
				<-done
			}
		}
		member.Run(t)
	}
	running.Wait()
	answered, changed := 0, 0
	for _, op := range p.history {
		if out := op.Output.(heard); !out.silent {
			answered++
			if out.Result == wire.OK {
				changed++
			}
		}
	}
	result, info := porcupine.CheckOperationsVerbose(model(), p.history, checkLimit)
	t.Logf("%d requests, %d answered, %d ok, by %d servers over %d members: %s (seed %d)", len(p.history), answered, changed, servers, len(etcd), result, seed)
	if result == porcupine.Unknown {
		t.Fatalf("the checker came to no end in %s: nothing is proved", checkLimit)
	}
	if result != porcupine.Ok {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("history-%d.html", seed))
		if err := porcupine.VisualizePath(model(), info, path); err == nil {
			t.Log("see ", path)
		}
		t.Error("no order explains the answers")
	}
	if answered < len(p.history)/2 || changed < answered/8 {
		t.Error("hardly anything was answered: the history proves nothing")
	}
}

// The checker can fail: one answer that no order allows.
func TestModelRefuses(t *testing.T) {
	t.Parallel()
	rid := register.ID{1}
	create := porcupine.Operation{
		Input:  asked{wire.Request{Op: wire.Create, Nonce: 1, Site: storetest.Site, New: storetest.Both(1)}},
		Output: heard{Reply: wire.Reply{Op: wire.Create, Nonce: 1, Result: wire.OK, RID: rid, Content: storetest.Both(1), Sequence: 1}}, Call: 0, Return: 1,
	}
	vote := func(set register.Set, call int64) porcupine.Operation {
		next := register.Content{Epoch: 2, Set: set}
		return porcupine.Operation{
			ClientId: int(set), Call: call, Return: call + 10,
			Input:  asked{wire.Request{Op: wire.CAS, RID: rid, Expected: storetest.Both(1), New: next}},
			Output: heard{Reply: wire.Reply{Op: wire.CAS, Result: wire.OK, RID: rid, Content: next, Sequence: 2}},
		}
	}
	if !porcupine.CheckOperations(model(), []porcupine.Operation{create, vote(register.OnlyA, 2)}) {
		t.Error("one vote is refused")
	}
	if porcupine.CheckOperations(model(), []porcupine.Operation{create, vote(register.OnlyA, 2), vote(register.OnlyB, 3)}) {
		t.Error("both nodes got the vote, and the checker is content")
	}
}
