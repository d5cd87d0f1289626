package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/control"
	"duet/replication/internal/mirror"
	"duet/replication/meta"
	"duet/replication/nbd"
	"duet/replication/pool"
)

// serve is the life of the daemon.
func serve(ctx context.Context, runDir, poolDir string, stderr io.Writer) error {
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	legs, err := pool.OpenDir(poolDir)
	if err != nil {
		return err
	}
	defer legs.Close()
	listener, err := nbdListener(filepath.Join(runDir, "nbd.sock"))
	if err != nil {
		return err
	}
	defer listener.Close()

	var server *control.Server
	instance := rand.Text()
	m := mirror.New(mirror.Options{
		Log: log, Instance: instance,
		Pool: func(site meta.ID, node uint8) mirror.Pool { return legPool{legs, site, node} },
		Emit: func(e control.Event) { server.Emit(e) },
	})
	server, err = control.Listen(filepath.Join(runDir, "mirrord.sock"), instance, m, log)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("service manager not notified", "error", err)
	}
	log.Info("duet-mirrord serves", "instance", instance, "pool", poolDir)
	err = untilStopped(ctx, m, server, listener)
	log.Info("duet-mirrord stopped", "error", err)
	return err
}

// untilStopped runs both servers. The order of the end: no new grant, requests in progress end and legs close,
// then the connections of the guests; they find the listening socket open and wait for the next process.
func untilStopped(ctx context.Context, m *mirror.Mirror, server *control.Server, listener net.Listener) error {
	controlCtx, stopControl := context.WithCancel(ctx)
	nbdCtx, stopNBD := context.WithCancel(context.Background())
	defer stopNBD()
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Add(2)
	go func() { defer wg.Done(); failed <- server.Serve(controlCtx) }()
	go func() { defer wg.Done(); failed <- nbd.Serve(nbdCtx, listener, m.Exports()) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopControl()
	closeErr := m.Close()
	stopNBD()
	wg.Wait()
	return errors.Join(err, closeErr)
}

// nbdListener is the socket that the service manager passed, or a new one.
func nbdListener(path string) (net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	for name, list := range named {
		if name == "nbd" && len(list) > 0 && list[0] != nil {
			if u, ok := list[0].(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false) // it is the manager's
			}
			return list[0], nil
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("old NBD socket: %w", err)
	}
	old := unix.Umask(0o117) // QEMU connects as a member of the group
	defer unix.Umask(old)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("NBD socket: %w", err)
	}
	return l, nil
}

// legPool creates legs of one site and node.
type legPool struct {
	dir  *pool.Dir
	site meta.ID
	node uint8
}

func (p legPool) Create(ctx context.Context, id meta.ID, size int64, progress func(done, total int64)) error {
	return p.dir.Create(ctx, pool.Spec{Site: p.site, Volume: id, Node: p.node, SizeBytes: size}, progress)
}

func (p legPool) Open(id meta.ID) (block.Device, block.Device, error) { return p.dir.Open(id) }

func (p legPool) Renew(id meta.ID) error { return p.dir.Renew(id, p.site, p.node, "") }

func (p legPool) Has(id meta.ID) (bool, error) {
	entries, err := p.dir.List()
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Volume == id {
			return true, nil
		}
	}
	return false, nil
}
