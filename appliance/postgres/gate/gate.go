package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

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
	addresses [2][]netip.Addr // by decide.Gate
}

// New makes the table, or takes over one that an earlier process of the same configuration has left.
func New(c Config) (*Gates, error) {
	g := &Gates{}
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
	if err := c.build(conn); err != nil {
		return nil, err
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("gate: table %s: %w", tableName, err)
	}
	return g, nil
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

// Set opens a gate until a moment of CLOCK_BOOTTIME (0: no end), or closes it. A moment that is over closes it.
func (g *Gates) Set(which decide.Gate, open bool, until membership.Boottime) error {
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

// Open asks the kernel. A gate that cannot be asked counts as closed: whoever wants it open sets it again.
func (g *Gates) Open(which decide.Gate) bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	all, err := conn.GetSetElements(timedSet(table, which, g.addresses[which][0].Is6()))
	return err == nil && len(all) > 0
}
