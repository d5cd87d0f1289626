package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"duet/witness/enrolment"
	"duet/witness/etcdstore"
	"duet/witness/pinned"
	"duet/witness/server"
	"duet/witness/store"
)

// storeFlags say where the registers are.
type storeFlags struct{ url, ca, cert, key string }

const embedded = "embedded"

func (f *storeFlags) define(flags *flag.FlagSet) {
	flags.StringVar(&f.url, "store", embedded, "embedded, or etcd://HOST:PORT[,HOST:PORT...]")
	flags.StringVar(&f.ca, "etcd-ca", "", "file of the authority that signed etcd's certificates: TLS")
	flags.StringVar(&f.cert, "etcd-cert", "", "file of this witness's certificate for etcd")
	flags.StringVar(&f.key, "etcd-key", "", "file of its key")
}

// endpoints are those of the url; none: the embedded store.
func (f *storeFlags) endpoints() ([]string, error) {
	if f.url == embedded {
		if f.ca != "" || f.cert != "" || f.key != "" {
			return nil, fmt.Errorf("%w: --etcd-* without --store etcd://", errUsage)
		}
		return nil, nil
	}
	list, ok := strings.CutPrefix(f.url, "etcd://")
	if !ok {
		return nil, fmt.Errorf("%w: --store is %s or etcd://HOST:PORT,..., not %q", errUsage, embedded, f.url)
	}
	endpoints := strings.Split(list, ",")
	for _, endpoint := range endpoints {
		if host, port, err := net.SplitHostPort(endpoint); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("%w: --store: %q is not HOST:PORT", errUsage, endpoint)
		}
	}
	return endpoints, nil
}

// tls is the client's side of TLS with etcd; nil: none was asked for.
func (f *storeFlags) tls() (*tls.Config, error) {
	if f.ca == "" && f.cert == "" && f.key == "" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12} // Debian's etcd 3.4 speaks no newer one to its own tools
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--etcd-ca %s holds no certificate", f.ca)
		}
	}
	if f.cert != "" || f.key != "" {
		cert, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cert, --etcd-key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

type closingStore interface {
	server.Store
	io.Closer
}

// openStore opens what the flags name.
func (c command) openStore(ctx context.Context, log *slog.Logger) (closingStore, error) {
	endpoints, err := c.store.endpoints()
	if err != nil {
		return nil, err
	}
	machine := store.ThisMachine()
	if endpoints == nil {
		registers, opened, err := store.Open(store.Config{
			Path: filepath.Join(c.data, "registers.db"), Machine: machine, NewIdentity: c.newIdentity,
		})
		if err == nil && opened.SetAside != "" {
			log.Warn("all registers were set aside; every site has to admit a new one", "why", opened.Why, "file", opened.SetAside)
		}
		return registers, err
	}
	secured, err := c.store.tls()
	if err != nil {
		return nil, err
	}
	return etcdstore.Open(ctx, etcdstore.Config{
		Endpoints: endpoints, TLS: secured, Memory: filepath.Join(c.data, "etcd.json"), Machine: machine.Digest(),
		NewIdentity: c.newIdentity, Log: log,
	})
}

// gcPercent is half of Go's default: with a few MiB in use, garbage is cheaper to collect than to keep on a small machine
// (measured with 10,000 sites: 52 MiB instead of 61 at the peak, no more time).
const gcPercent = 50

func (c command) serve(ctx context.Context, log *slog.Logger) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	identity, err := c.identity()
	if err != nil {
		return err
	}
	registers, err := c.openStore(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registers.Close()) }()
	sites := enrolment.Open(c.sites(), func(fault error) { log.Error("an enrolment cannot be used", "error", fault) })
	s, err := server.New(server.Config{Identity: identity, Sites: sites, Store: registers, Log: log})
	if err != nil {
		return err
	}
	door, err := openDoor(c.data)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		err = fmt.Errorf("%w; is another duet-witness running, or the address of another machine?", err)
		return errors.Join(err, door.ln.Close())
	}
	log.Info("serving", "address", ln.Addr().String(), "store", registers.Kind(), "key", pinned.FormatKey(identity.Public().(ed25519.PublicKey)))
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	beside.Go(func() { door.serve(ctx, s, log) })
	beside.Go(func() { keepManagerInformed(ctx, s.Alive, log) })
	return s.Serve(ctx, ln)
}
