package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// Config is what the rules are made of.
type Config struct {
	Port   uint16   // of the server
	Exempt []string // interfaces of the link between the nodes
	// Addresses that a gate opens: the service address that goes with it, and this node's own.
	Write, Read []netip.Addr
}

// Gates are both gates of this node.
type Gates struct {
	cfg       Config
	addresses [2][]netip.Addr // by decide.Gate
}

// New makes the table, or takes over one that an earlier process of the same configuration has left.
func New(c Config) (*Gates, error) {
	g := &Gates{cfg: c}
	g.addresses[decide.Write], g.addresses[decide.Read] = c.Write, c.Read
	for _, all := range g.addresses {
		if len(all) == 0 || slices.ContainsFunc(all, func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() || a.Zone() != "" }) {
			return nil, fmt.Errorf("gate: addresses %v", all)
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	if made(conn, c) {
		return g, nil
	}
	return g, c.make(conn)
}

// make puts the table into the kernel, with closed gates.
func (c Config) make(conn *nftables.Conn) error {
	if err := c.build(conn); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("gate: table %s: %w", tableName, err)
	}
	return nil
}

// made: the table is there and has this form. What cannot be asked is made anew.
func made(conn *nftables.Conn, c Config) bool {
	table, err := conn.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	if err != nil || table == nil {
		return false
	}
	_, err = conn.GetSetByName(table, c.fingerprint())
	return err == nil
}

// gone: the kernel has no such table, for certain.
func gone(conn *nftables.Conn) bool {
	all, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	return err == nil && !slices.ContainsFunc(all, func(t *nftables.Table) bool { return t.Name == tableName })
}

// Remove takes the table away; without a server there is nothing to guard.
func Remove() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// Set opens a gate until a moment of CLOCK_BOOTTIME (0: no end), or closes it. A moment that is over closes it. A table that
// somebody has taken away comes back, both gates closed but for this one.
func (g *Gates) Set(which decide.Gate, open bool, until membership.Boottime) error {
	err := g.set(which, open, until)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	if err := g.cfg.make(conn); err != nil {
		return err
	}
	return g.set(which, open, until)
}

func (g *Gates) set(which decide.Gate, open bool, until membership.Boottime) error {
	var left time.Duration
	if open && until != 0 {
		// Down to the kernel's unit: a gate is never open after its deadline.
		left = (time.Duration(until) - time.Duration(boottime.Now())).Truncate(time.Millisecond)
		open = left > 0
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	for _, six := range []bool{false, true} {
		set := timedSet(table, which, six)
		conn.FlushSet(set) // and what follows, in one transaction
		var all []nftables.SetElement
		for _, a := range g.addresses[which] {
			if open && a.Is6() == six {
				all = append(all, nftables.SetElement{Key: a.AsSlice(), Timeout: left})
			}
		}
		if len(all) == 0 {
			continue
		}
		if err := conn.SetAddElements(set, all); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("gate: the %v gate: %w", which, err)
	}
	return nil
}

// Open asks the kernel. A gate that cannot be asked counts as closed: whoever wants it open sets it again. A table that somebody
// has taken away comes back closed.
func (g *Gates) Open(which decide.Gate) bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	all, err := conn.GetSetElements(timedSet(table, which, g.addresses[which][0].Is6()))
	if err != nil && gone(conn) {
		_ = g.cfg.make(conn) //nolint:errcheck // asked again with the next look; Set tells
	}
	return err == nil && len(all) > 0
}
