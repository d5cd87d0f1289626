package vms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"duet/appliance/event"
	"duet/appliance/site"
)

// maxDomains bounds one listing: far above the 31 VMs of a site, and a person may have some of their own.
const maxDomains = 1024

// converse opens one connection, runs f on it and closes it, all before the deadline. The deadline closes the
// connection, which ends every call that is under way with an error.
func (m *Manager) converse(ctx context.Context, timeout time.Duration, f func(*libvirt.Libvirt) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", m.cfg.LibvirtSocket)
	if err != nil {
		return event.New(event.LibvirtDown).Because(err)
	}
	defer conn.Close()                                      // also closed by the deadline; nothing is written after f
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // ends the calls under way
	defer stop()
	l := libvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
	if err := l.Connect(); err != nil {
		return event.New(event.LibvirtDown).Because(errors.Join(err, ctx.Err()))
	}
	err = f(l)
	if err != nil && ctx.Err() != nil {
		return event.New(event.LibvirtDown).Because(errors.Join(err, ctx.Err()))
	}
	_ = l.ConnectClose() //nolint:errcheck // politeness: without it libvirtd logs an error for every conversation
	return err
}

// Warm makes libvirt probe QEMU now: the first probe after a boot costs 2 s, which a takeover should not pay.
func (m *Manager) Warm(ctx context.Context) error {
	return m.converse(ctx, m.cfg.StartTimeout, func(l *libvirt.Libvirt) error {
		_, err := l.ConnectGetDomainCapabilities(nil, libvirt.OptString{"x86_64"}, libvirt.OptString{machine},
			libvirt.OptString{m.virtualization().domainType}, 0)
		if err != nil {
			return fmt.Errorf("capabilities of QEMU: %w", err)
		}
		m.warm.Store(true)
		return nil
	})
}

// create makes QEMU exist with its guest paused.
func (m *Manager) create(ctx context.Context, vm site.VM, epoch uint64) error {
	log, err := m.logFile(vm)
	if err != nil {
		return err
	}
	xml, err := m.domainXML(vm, epoch, log)
	if err != nil {
		return err
	}
	return m.converse(ctx, m.cfg.StartTimeout, func(l *libvirt.Libvirt) error {
		if _, err := l.DomainCreateXML(xml, libvirt.DomainStartPaused); err != nil {
			return fmt.Errorf("create domain: %w", err)
		}
		return nil
	})
}

// release lets the guest run.
func (m *Manager) release(ctx context.Context, vm site.VM) error {
	id, err := uuidOf(vm.ID)
	if err != nil {
		return err
	}
	return m.converse(ctx, m.cfg.QueryTimeout, func(l *libvirt.Libvirt) error {
		dom, err := l.DomainLookupByUUID(id)
		if err != nil {
			return fmt.Errorf("find domain: %w", err)
		}
		if err := l.DomainResume(dom); err != nil {
			return fmt.Errorf("release guest: %w", err)
		}
		return nil
	})
}

// domains lists our active domains with their states.
func (m *Manager) domains(ctx context.Context) ([]Seen, error) {
	var all []Seen
	err := m.converse(ctx, m.cfg.QueryTimeout, func(l *libvirt.Libvirt) error {
		list, _, err := l.ConnectListAllDomains(maxDomains, libvirt.ConnectListDomainsActive)
		if err != nil {
			return fmt.Errorf("list domains: %w", err)
		}
		for _, dom := range list {
			name, ours := strings.CutPrefix(dom.Name, m.cfg.Prefix)
			if !ours {
				continue
			}
			state, reason, err := l.DomainGetState(dom, 0)
			if libvirt.IsNotFound(err) {
				continue // it ended meanwhile
			}
			if err != nil {
				return fmt.Errorf("state of %s: %w", dom.Name, err)
			}
			all = append(all, Seen{ID: formatUUID(dom.UUID), Name: name, State: stateFrom(state, reason)})
		}
		return nil
	})
	return all, err
}

func stateFrom(state, reason int32) State {
	switch libvirt.DomainState(state) {
	case libvirt.DomainRunning, libvirt.DomainBlocked:
		return Running
	case libvirt.DomainPaused:
		if libvirt.DomainPausedReason(reason) == libvirt.DomainPausedIoerror {
			return PausedOnError
		}
		return Paused
	case libvirt.DomainShutdown, libvirt.DomainShutoff, libvirt.DomainCrashed:
		return Ending
	case libvirt.DomainNostate, libvirt.DomainPmsuspended:
	}
	return Unclear
}

func uuidOf(id string) (libvirt.UUID, error) {
	var u libvirt.UUID
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(raw) != len(u) {
		return u, fmt.Errorf("%q is not a UUID", id)
	}
	copy(u[:], raw)
	return u, nil
}

func formatUUID(u libvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
