package gate

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"duet/appliance/postgres/decide"
)

// The names in the kernel. The form changes when the rules do: a table of another form is replaced.
const (
	tableName = "duet_pg"
	formName  = "form-1"
)

// setName of the addresses of a gate, by family.
func setName(g decide.Gate, six bool) string {
	name := map[decide.Gate]string{decide.Write: "write", decide.Read: "read"}[g]
	if six {
		return name + "6"
	}
	return name + "4"
}

// fingerprint names everything that the rules are made of; it is the name of an empty set in the table.
func (c Config) fingerprint() string {
	return fmt.Sprintf("%s-%d-%x", formName, c.Port, exemptSum(c.Exempt))
}

// exemptSum is FNV-1a: it only has to tell configurations apart.
func exemptSum(names []string) uint32 {
	sum := uint32(2166136261)
	for _, n := range names {
		for _, b := range append([]byte(n), 0) {
			sum = (sum ^ uint32(b)) * 16777619
		}
	}
	return sum
}

// build puts table, sets, chains and rules into one batch, in the place of what is there.
func (c Config) build(conn *nftables.Conn) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	if err := conn.AddSet(&nftables.Set{Table: table, Name: c.fingerprint(), KeyType: nftables.TypeInetService}, nil); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	for _, g := range []decide.Gate{decide.Write, decide.Read} {
		for _, six := range []bool{false, true} {
			if err := conn.AddSet(timedSet(table, g, six), nil); err != nil {
				return fmt.Errorf("gate: %w", err)
			}
		}
	}
	for _, d := range []direction{inward, outward} {
		chain := conn.AddChain(&nftables.Chain{
			Name: d.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: d.hook, Priority: nftables.ChainPriorityFilter,
		})
		for _, rule := range c.rules(d) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
		}
	}
	return nil
}

func timedSet(table *nftables.Table, g decide.Gate, six bool) *nftables.Set {
	kind := nftables.TypeIPAddr
	if six {
		kind = nftables.TypeIP6Addr
	}
	return &nftables.Set{Table: table, Name: setName(g, six), KeyType: kind, HasTimeout: true}
}

// direction is what differs between packets to the server and from it.
type direction struct {
	name      string
	hook      *nftables.ChainHook
	interfac  expr.MetaKey
	port      uint32    // offset in the TCP header (RFC 9293 section 3.1)
	address   [2]uint32 // offsets in the headers of IPv4 (RFC 791 section 3.1) and IPv6 (RFC 8200 section 3)
	closed    []expr.Any
	resetPass bool
}

var (
	inward = direction{
		name: "inward", hook: nftables.ChainHookInput, interfac: expr.MetaKeyIIFNAME, port: 2, address: [2]uint32{16, 24},
		closed: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
	}
	outward = direction{
		name: "outward", hook: nftables.ChainHookOutput, interfac: expr.MetaKeyOIFNAME, port: 0, address: [2]uint32{12, 8},
		closed: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, resetPass: true,
	}
)

// flagsOffset and flagReset: the flags of a TCP header.
const (
	flagsOffset = 13
	flagReset   = 4
)

// rules of one direction, in order: exempt interfaces, open addresses, resets outward, closed.
func (c Config) rules(d direction) [][]expr.Any {
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	var all [][]expr.Any
	for _, name := range append([]string{"lo"}, c.Exempt...) {
		padded := make([]byte, unix.IFNAMSIZ)
		copy(padded, name)
		all = append(all, []expr.Any{
			&expr.Meta{Key: d.interfac, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}, accept,
		})
	}
	port := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: d.port, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, c.Port)},
	}
	for family, six := range []bool{false, true} {
		protocol, size := byte(unix.NFPROTO_IPV4), uint32(4)
		if six {
			protocol, size = unix.NFPROTO_IPV6, 16
		}
		for _, g := range []decide.Gate{decide.Write, decide.Read} {
			rule := append([]expr.Any{}, port...)
			all = append(all, append(rule,
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: d.address[family], Len: size},
				&expr.Lookup{SourceRegister: 1, SetName: setName(g, six)}, accept))
		}
	}
	if d.resetPass {
		rule := append([]expr.Any{}, port...)
		all = append(all, append(rule,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagReset}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}}, accept))
	}
	return append(all, append(append([]expr.Any{}, port...), d.closed...))
}
