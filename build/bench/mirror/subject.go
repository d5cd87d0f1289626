package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"duet/replication/control"
)

// subject is what a load is put on.
type subject struct {
	name    string
	places  []place // one a volume
	servers []*server
}

func (s *subject) pids() []int {
	var all []int
	for _, one := range s.servers {
		all = append(all, one.pid())
	}
	return all
}

// bench has the subjects of a run and what they stand on.
type bench struct {
	o       options
	spaces  *spaces
	volumes int
	stops   []func()
}

func (b *bench) stop() {
	for _, f := range slices.Backward(b.stops) {
		f()
	}
}

func (b *bench) leg(name string) string    { return filepath.Join(b.o.inside, name) }
func (b *bench) socket(name string) string { return filepath.Join(b.o.sockets, name) }

// start runs a program on a node.
func (b *bench) start(node int, name string, args ...string) (*server, error) {
	s, err := start(name, b.leg(name+".log"), b.spaces.in(node, args...))
	if err == nil {
		b.stops = append(b.stops, s.stop)
	}
	return s, err
}

// allocate makes a file with all its blocks; the load that fills it comes through its subject.
func (b *bench) allocate(name string, mib int) (string, error) {
	path := b.leg(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(mib)<<20); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return "", errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return path, errors.Join(f.Truncate(int64(mib)<<20), f.Close())
}

// prepare starts a subject by its name.
func (b *bench) prepare(ctx context.Context, name string) (*subject, error) {
	switch name {
	case raw:
		return b.raw(raw, b.volumes)
	case rawTwo:
		return b.raw(rawTwo, 2)
	case duet:
		return b.duet(ctx, duet, true)
	case duetTLS:
		return b.duet(ctx, duetTLS, false)
	case oneCopy:
		return b.oneCopy(ctx)
	case quorumUnix:
		return b.quorum(ctx, quorumUnix, "unix", b.socket(quorumUnix+"-far"))
	case quorumTCP:
		return b.quorum(ctx, quorumTCP, "tcp", addresses[1])
	}
	return nil, fmt.Errorf("no subject %q", name)
}

func (b *bench) raw(name string, count int) (*subject, error) {
	s := &subject{name: name}
	for i := range count {
		file, err := b.allocate(fmt.Sprintf("%s-%d", name, i), b.o.mib)
		if err != nil {
			return nil, err
		}
		s.places = append(s.places, place{file: file})
	}
	return s, nil
}

// QEMU's programs: io_uring and O_DIRECT as far as they go, otherwise their defaults. Flushes are real.
const qsd = "qemu-storage-daemon"

const nbdPort = "10809"

func (b *bench) file(node, path string) []string {
	return []string{"--blockdev", "driver=file,node-name=" + node + ",aio=io_uring,cache.direct=on,filename=" + path}
}

func export(node string) []string {
	return []string{"--export", "type=nbd,id=export,name=disk,writable=on,node-name=" + node}
}

func (b *bench) unixServer(name string) []string {
	return []string{"--nbd-server", "addr.type=unix,addr.path=" + b.socket(name)}
}

func (b *bench) place(name string) place {
	return place{uri: "nbd+unix:///disk?socket=" + b.socket(name)}
}

func (b *bench) oneCopy(ctx context.Context) (*subject, error) {
	file, err := b.allocate(oneCopy, b.o.mib)
	if err != nil {
		return nil, err
	}
	s, err := b.start(0, oneCopy, slices.Concat([]string{qsd}, b.file("disk", file), b.unixServer(oneCopy), export("disk"))...)
	if err != nil {
		return nil, err
	}
	return &subject{oneCopy, []place{b.place(oneCopy)}, []*server{s}}, s.listens(ctx, "unix", b.socket(oneCopy))
}

// quorum is one storage daemon with a leg and an NBD client to the other one's. A write needs both, a read takes the
// near one.
func (b *bench) quorum(ctx context.Context, name, network, address string) (*subject, error) {
	var legs [2]string
	for i := range legs {
		var err error
		if legs[i], err = b.allocate(fmt.Sprintf("%s-%d", name, i), b.o.mib); err != nil {
			return nil, err
		}
	}
	farNode, listen, client, dial := 0, b.unixServer(name+"-far"), "server.type=unix,server.path="+address, address
	if network == "tcp" {
		farNode, dial = 1, address+":"+nbdPort
		listen = []string{"--nbd-server", "addr.type=inet,addr.host=" + address + ",addr.port=" + nbdPort}
		client = "server.type=inet,server.host=" + address + ",server.port=" + nbdPort
	}
	far, err := b.start(farNode, name+"-far", slices.Concat([]string{qsd}, b.file("disk", legs[1]), listen, export("disk"))...)
	if err != nil {
		return nil, err
	}
	if err := far.listens(ctx, network, dial); err != nil {
		return nil, err
	}
	near, err := b.start(0, name, slices.Concat([]string{qsd}, b.file("near", legs[0]),
		[]string{"--blockdev", "driver=nbd,node-name=far,export=disk," + client},
		[]string{"--blockdev", "driver=quorum,node-name=both,vote-threshold=2,read-pattern=fifo,children.0=near,children.1=far"},
		b.unixServer(name), export("both"))...)
	if err != nil {
		return nil, err
	}
	return &subject{name, []place{b.place(name)}, []*server{near, far}}, near.listens(ctx, "unix", b.socket(name))
}

// The pair under test. Nobody takes the grant away, so its deadline is far.
const (
	site       = "00112233445566778899aabbccddeeff"
	session    = 11
	bothLegs   = control.Set(3)
	noDeadline = 1 << 62
)

var lanePort = map[string]int{duet: 7440, duetTLS: 7441}

func volumeID(i int) string { return fmt.Sprintf("%032x", 0xd0e7<<16+i) }
func bootID(i int) string   { return fmt.Sprintf("%032x", i+1) }

// duet starts two daemons, tells them what exists and lets node a serve.
func (b *bench) duet(ctx context.Context, as string, clear bool) (*subject, error) {
	program, err := filepath.Abs(b.o.program)
	if err != nil {
		return nil, err
	}
	s := &subject{name: as}
	var public [2]ed25519.PublicKey
	var private [2]ed25519.PrivateKey
	for i := range private {
		if public[i], private[i], err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	var volumes []control.VolumeConfig
	var grants []control.VolumeGrant
	for i := range b.volumes {
		name := fmt.Sprintf("disk%d", i)
		volumes = append(volumes, control.VolumeConfig{ID: volumeID(i), Name: name, SizeBytes: int64(b.o.mib) << 20})
		grants = append(grants, control.VolumeGrant{Volume: volumeID(i), Legs: bothLegs})
		s.places = append(s.places, place{uri: "nbd+unix:///" + name + "?socket=" + filepath.Join(b.socket(as+"-a"), "nbd.sock")})
	}
	for i, name := range []string{"a", "b"} {
		pool, sockets := b.leg(as+"-"+name), b.socket(as+"-"+name)
		if err := errors.Join(os.MkdirAll(pool, 0o700), os.MkdirAll(sockets, 0o700)); err != nil {
			return nil, err
		}
		daemon, err := b.start(i, as+"-mirrord-"+name, program, "--run", sockets, "--pool", pool)
		if err != nil {
			return nil, err
		}
		s.servers = append(s.servers, daemon)
		identity, err := x509.MarshalPKCS8PrivateKey(private[i])
		if err != nil {
			return nil, err
		}
		client, err := b.configure(ctx, daemon, filepath.Join(sockets, "mirrord.sock"), control.Config{
			Site: site, Node: control.Node(i), BootID: bootID(i), Port: lanePort[as],
			IdentityPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: identity}), PeerKey: public[1-i],
			Paths: []control.Path{{Name: "mirror0", Local: addresses[i], Peer: addresses[1-i], Clear: clear}}, Volumes: volumes,
		}, control.Grant{
			BootID: bootID(i), Sequence: 1, Mode: control.Paired, Epoch: 1, Session: session, Members: bothLegs,
			Deadline: noDeadline, Volumes: grants,
		})
		if err != nil {
			return nil, err
		}
		defer client.Close() // a grant outlives its connection
		// Both must be told before either is in sync.
		if i == 1 {
			if err := b.paired(ctx, daemon, client); err != nil {
				return nil, err
			}
		}
	}
	return s, s.servers[0].listens(ctx, "unix", filepath.Join(b.socket(as+"-a"), "nbd.sock"))
}

func (b *bench) configure(ctx context.Context, daemon *server, socket string, cfg control.Config, grant control.Grant) (*control.Client, error) {
	var client *control.Client
	err := daemon.await(ctx, "answers", func(ctx context.Context) (err error) {
		client, err = control.Dial(ctx, socket)
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for range client.Events() { // a client that does not read is cut off
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = client.Configure(ctx, cfg)
	if err == nil {
		err = client.Grant(ctx, grant)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

const callLimit = 10 * time.Second

func (b *bench) paired(ctx context.Context, daemon *server, client *control.Client) error {
	return daemon.await(ctx, "is paired", func(ctx context.Context) error {
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		for _, v := range status.Volumes {
			if v.Stage != "paired" {
				return fmt.Errorf("%s: %s", v.Name, v.Stage)
			}
		}
		if len(status.Volumes) < b.volumes {
			return errors.New("no volumes yet")
		}
		return nil
	})
}
