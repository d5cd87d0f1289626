package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"duet/witness/pinned"
	"duet/witness/register"
	"duet/witness/wire"
)

// The promises (features.md N-09, N-11; issue of the membership core).
const (
	targetRSSMiB      = 64
	targetBitsPerSite = 1000
	targetStormSecond = 5
)

// figures is the JSON line.
type figures struct {
	Bench            string         `json:"bench"`
	Commit           string         `json:"commit"`
	Machine          map[string]any `json:"machine"`
	Sites            int            `json:"sites"`
	Connections      int            `json:"connections"` // two each, as far as this machine allows open files
	ConnectSeconds   float64        `json:"connect_seconds"`
	RSSEmptyMiB      float64        `json:"rss_empty_mib"` // enrolled, nobody connected
	RSSIdleMiB       float64        `json:"rss_idle_mib"`  // highest of one second's readings while idle
	RSSStormMiB      float64        `json:"rss_storm_mib"` // after the storms
	RSSPeakMiB       float64        `json:"rss_peak_mib"`  // highest ever, by the kernel: handshakes and storms too
	BytesPerSecond   float64        `json:"bytes_per_second"`
	BitsPerSitesIdle float64        `json:"bits_per_second_per_site"`
	Renewals         int            `json:"renewals"`
	CPUIdlePercent   float64        `json:"cpu_idle_percent"` // of one core
	SitesPerCore     int            `json:"sites_per_core"`   // idle ones, by that
	StormRequests    int            `json:"storm_requests"`
	StormSeconds     float64        `json:"storm_seconds"`
	RedialSeconds    float64        `json:"storm_with_new_connections_seconds"` // the same with a handshake each
	Targets          map[string]int `json:"targets"`
	TargetsMissed    []string       `json:"targets_missed"`
}

const (
	listen        = "127.0.0.1:7443"
	sourcePorts   = 10_000
	startLimit    = 30 * time.Second
	createAbreast = 500
)

func measure(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	dir, err := os.MkdirTemp("", "duet-bench-witness-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "bench-witness: "+format+"\n", args...) }
	limit, err := connectionsMax()
	if err != nil {
		return err
	}
	say("%d sites are enrolled", o.sites)
	sites, err := makeSites(o.sites, filepath.Join(dir, "data", "sites"))
	if err != nil {
		return err
	}
	w, err := startWitness(ctx, o.program, filepath.Join(dir, "data"), listen)
	if err != nil {
		return err
	}
	defer w.stop()
	defer func() {
		if err != nil {
			log, _ := os.ReadFile(w.log.Name())
			say("the witness said:\n%s", log[max(0, len(log)-2000):])
		}
	}()
	f := figures{
		Bench: "witness", Commit: commit(ctx), Machine: machine(), Sites: o.sites, StormRequests: o.storm,
		Targets: map[string]int{"rss_mib": targetRSSMiB, "bits_per_second_per_site": targetBitsPerSite, "storm_seconds": targetStormSecond},
	}
	if err := f.take(ctx, o, w, sites, limit, say); err != nil {
		return err
	}
	f.judge()
	return json.NewEncoder(stdout).Encode(f)
}

func (f *figures) take(ctx context.Context, o options, w *witness, sites []*site, limit int, say func(string, ...any)) error {
	key, err := pinned.ParseKey(w.key)
	if err != nil {
		return err
	}
	if err := listening(ctx); err != nil {
		return err
	}
	if f.RSSEmptyMiB, err = mib(w.pid(), "VmRSS"); err != nil {
		return err
	}
	began := time.Now()
	if f.Connections, err = connect(ctx, sites, listen, key, sourcePorts, limit); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	f.ConnectSeconds = time.Since(began).Seconds()
	say("%d connections in %.1f s", f.Connections, f.ConnectSeconds)
	if err := found(sites); err != nil {
		return fmt.Errorf("found the sites: %w", err)
	}
	if err := f.idle(ctx, o, w, sites); err != nil {
		return fmt.Errorf("idle: %w", err)
	}
	say("idle: %.1f MiB, %.0f bit/s per site, %.1f %% of a core", f.RSSIdleMiB, f.BitsPerSitesIdle, f.CPUIdlePercent)
	storming := sites[:min(o.storm, len(sites))]
	if f.StormSeconds, err = vote(storming, 0); err != nil {
		return fmt.Errorf("storm: %w", err)
	}
	began = time.Now()
	for _, s := range storming {
		close(s.nodes[1].ask)
	}
	if err := redial(ctx, storming, key); err != nil {
		return fmt.Errorf("storm with new connections: %w", err)
	}
	if _, err = vote(storming, 1); err != nil {
		return fmt.Errorf("storm with new connections: %w", err)
	}
	f.RedialSeconds = time.Since(began).Seconds()
	var errPeak error
	f.RSSStormMiB, err = mib(w.pid(), "VmRSS")
	f.RSSPeakMiB, errPeak = mib(w.pid(), "VmHWM")
	return errors.Join(err, errPeak)
}

func listening(ctx context.Context) error {
	for deadline := time.Now().Add(startLimit); ; {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", listen)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the witness does not listen: %w", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// found gives every site its register at epoch 1.
func found(sites []*site) error {
	err := everySite(sites, 0, createAbreast, func(_ int, s *site) wire.Request {
		return wire.Request{Op: wire.Create, Nonce: 1, Site: register.ID([]byte(s.name + "......"))}
	}, func(s *site, reply wire.Reply) { s.rid = reply.RID })
	if err != nil {
		return err
	}
	return everySite(sites, 0, createAbreast, func(_ int, s *site) wire.Request {
		return wire.Request{Op: wire.Push, Nonce: 2, RID: s.rid, New: register.Content{Epoch: 1}}
	}, func(*site, wire.Reply) {})
}

func (f *figures) idle(ctx context.Context, o options, w *witness, sites []*site) error {
	bytesBefore, err := onWire()
	if err != nil {
		return err
	}
	cpuBefore, err := cpuTime(w.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	var unread error
	watch := func() {
		now, err := mib(w.pid(), "VmRSS")
		f.RSSIdleMiB, unread = max(f.RSSIdleMiB, now), errors.Join(unread, err)
	}
	f.Renewals, err = idle(ctx, sites, o.renew, o.idle, watch)
	watch()
	if err := errors.Join(err, unread); err != nil {
		return err
	}
	span := time.Since(began).Seconds()
	bytesAfter, errBytes := onWire()
	cpuAfter, errCPU := cpuTime(w.pid())
	if err := errors.Join(errBytes, errCPU); err != nil {
		return err
	}
	f.BytesPerSecond = float64(bytesAfter-bytesBefore) / span
	f.BitsPerSitesIdle = 8 * f.BytesPerSecond / float64(o.sites)
	load := (cpuAfter - cpuBefore).Seconds() / span
	f.CPUIdlePercent = 100 * load
	if load > 0 {
		f.SitesPerCore = int(float64(o.sites) / load)
	}
	return nil
}

// vote has one node of every site ask for the vote at the same moment, and waits for all answers.
func vote(sites []*site, of int) (float64, error) {
	expected := register.Content{Epoch: register.Epoch(1 + of), Set: register.Both}
	if of == 1 {
		expected.Set = register.OnlyA
	}
	next := register.Content{Epoch: expected.Epoch + 1, Set: register.Set(1 + of)}
	began := time.Now()
	err := everySite(sites, of, len(sites), func(_ int, s *site) wire.Request {
		return wire.Request{Op: wire.CAS, Nonce: uint64(10 + of), RID: s.rid, Expected: expected, New: next}
	}, func(*site, wire.Reply) {})
	return time.Since(began).Seconds(), err
}

// redial gives node b of every site a new connection, as after a reboot.
func redial(ctx context.Context, sites []*site, key []byte) error {
	slots := make(chan error, len(sites))
	for _, s := range sites {
		go func() {
			conn, err := dial(ctx, net.IPv4(127, 0, 2, 1), listen, s.keys[1], key)
			if err == nil {
				s.nodes[1] = newNode(conn)
			}
			slots <- err
		}()
	}
	var all error
	for range sites {
		all = errors.Join(all, <-slots)
	}
	return all
}

func mib(pid int, field string) (float64, error) {
	kib, err := memoryKiB(pid, field)
	if err != nil {
		return 0, fmt.Errorf("memory of the witness: %w", err)
	}
	return float64(kib*10/1024) / 10, nil
}

// judge names the targets that were missed. Of memory the highest reading of all counts, of storms each.
func (f *figures) judge() {
	f.TargetsMissed = []string{}
	for _, check := range []struct {
		name   string
		missed bool
	}{
		{"rss_mib", max(f.RSSIdleMiB, f.RSSStormMiB, f.RSSPeakMiB) > targetRSSMiB},
		{"bits_per_second_per_site", f.BitsPerSitesIdle > targetBitsPerSite},
		{"storm_seconds", f.StormSeconds > targetStormSecond},
		{"storm_with_new_connections_seconds", f.RedialSeconds > targetStormSecond},
	} {
		if check.missed {
			f.TargetsMissed = append(f.TargetsMissed, check.name)
		}
	}
}
