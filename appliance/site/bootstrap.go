package site

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path"
)

// Bootstrap is what a node knows before it belongs to a site: its slot, where things live, and the ways to its
// peer. The factory (in the lab: the lab) writes it to /etc/duet/node.json; nothing changes it at run time.
type Bootstrap struct {
	Node          string `json:"node"`            // "a" or "b"
	ChassisSerial string `json:"chassis_serial"`  // fresh nodes pair by themselves only inside one chassis
	DataDir       string `json:"data_dir"`        // /data/duet: identity, record, document; durable
	PoolDir       string `json:"pool_dir"`        // directory pool of legs
	RunDir        string `json:"run_dir"`         // /run/duet: sockets and snapshot, tmpfs
	Paths         []Path `json:"paths"`           // in order of preference
	PeerPort      int    `json:"peer_port"`       // duetd ↔ duetd
	DataPort      int    `json:"data_port"`       // duet-mirrord ↔ duet-mirrord
	Watchdog      string `json:"watchdog"`        // "/dev/watchdog", empty: none
	LibvirtSocket string `json:"libvirt_socket"`  // "/run/libvirt/libvirt-sock"
	Reset         string `json:"reset,omitempty"` // "reboot": a node that cannot stop what it must stop reboots itself by reboot(2); empty: only the watchdog is left
	Accel         string `json:"accel,omitempty"` // how QEMU runs guests: "kvm" or "tcg"; empty: "tcg", which runs everywhere

	// Database is where the server of the database pair lives; absent: the defaults of each field.
	Database DatabaseHome `json:"database,omitzero"`

	// FlightBytes is the size of the flight recorder's ring; absent: 128 MiB.
	FlightBytes int64 `json:"flight_bytes,omitempty"`
}

// DatabaseHome is where the server of the database pair lives. Its folders belong to the server's user, so they lie in none of
// duet's own, which only root may enter.
type DatabaseHome struct {
	Programs string `json:"programs,omitempty"` // folder with postgres, initdb, ...: "/usr/lib/postgresql/15/bin"
	DataDir  string `json:"data_dir,omitempty"` // durable: "/data/postgres/15"
	RunDir   string `json:"run_dir,omitempty"`  // tmpfs, configuration and socket: "/run/duet-postgres"
	User     string `json:"user,omitempty"`     // "postgres"
}

// filled has the defaults in the place of what is empty.
func (h DatabaseHome) filled() DatabaseHome {
	h.Programs = cmp.Or(h.Programs, "/usr/lib/postgresql/15/bin")
	h.DataDir = cmp.Or(h.DataDir, "/data/postgres/15")
	h.RunDir = cmp.Or(h.RunDir, "/run/duet-postgres")
	h.User = cmp.Or(h.User, "postgres")
	return h
}

// ResetReboot is the Reset of every real node and of the lab's; a test that shares its machine leaves it empty.
const ResetReboot = "reboot"

// Path is one network way to the peer.
type Path struct {
	Name    string `json:"name"`               // "mirror0"
	Local   string `json:"local"`              // "fe80::a%mirror0", "198.51.100.11"
	Peer    string `json:"peer"`               // "fe80::b%mirror0", "198.51.100.12"
	Data    bool   `json:"data"`               // data lanes may use it
	Chassis bool   `json:"chassis"`            // a cable inside the chassis: fresh nodes may pair over it
	DataTLS string `json:"data_tls,omitempty"` // "on" (also empty) or "off": data lanes of a chassis path are not encrypted after the handshake
}

// LoadBootstrap reads and checks the file. A missing or wrong file stops the daemon with every wrong field named.
func LoadBootstrap(file string) (Bootstrap, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Bootstrap{}, fmt.Errorf("bootstrap configuration: %w", err)
	}
	var b Bootstrap
	if err := strictJSON(data, &b); err != nil {
		return Bootstrap{}, fmt.Errorf("%s: %w", file, err)
	}
	if b.Accel == "" {
		b.Accel = "tcg"
	}
	b.Database = b.Database.filled()
	if err := b.Validate().Err(); err != nil {
		return Bootstrap{}, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// Validate names every wrong field.
func (b Bootstrap) Validate() FieldErrors {
	var c checker
	const mend = "correct the file"
	if b.Node != "a" && b.Node != "b" {
		c.wrong("node", fmt.Sprintf("is %q", b.Node), "a chassis has the slots a and b", mend)
	}
	if b.ChassisSerial == "" {
		c.wrong("chassis_serial", "is empty", "fresh nodes trust each other only inside one chassis", mend)
	}
	for _, f := range []struct {
		field, path string
		optional    bool
	}{
		{"data_dir", b.DataDir, false},
		{"pool_dir", b.PoolDir, false},
		{"run_dir", b.RunDir, false},
		{"watchdog", b.Watchdog, true},
		{"libvirt_socket", b.LibvirtSocket, true},
		{"database.programs", b.Database.Programs, true},
		{"database.data_dir", b.Database.DataDir, true},
		{"database.run_dir", b.Database.RunDir, true},
	} {
		if f.path == "" && f.optional {
			continue
		}
		if !path.IsAbs(f.path) || path.Clean(f.path) != f.path {
			c.wrong(f.field, fmt.Sprintf("%q is not an absolute path", f.path), "the daemons have no working directory", mend)
		}
	}
	for _, f := range []struct {
		field string
		port  int
	}{{"peer_port", b.PeerPort}, {"data_port", b.DataPort}} {
		if f.port < 1 || f.port > 65535 {
			c.wrong(f.field, fmt.Sprintf("is %d", f.port), "a TCP port is 1 to 65535", mend)
		}
	}
	if b.PeerPort == b.DataPort {
		c.wrong("data_port", "is the peer port", "duetd and duet-mirrord listen on the same addresses", mend)
	}
	if b.Accel != "" && b.Accel != "kvm" && b.Accel != "tcg" {
		c.wrong("accel", fmt.Sprintf("is %q", b.Accel), "QEMU runs guests by kvm or tcg", mend)
	}
	c.paths(b.Paths)
	return c.errors
}

// paths: at least one, one of them for data, addresses that can be dialled as they stand.
func (c *checker) paths(paths []Path) {
	const mend = "correct the file"
	data := false
	names := map[string]bool{}
	for i, p := range paths {
		at := fmt.Sprintf("paths[%d]", i)
		data = data || p.Data
		if p.Name == "" || names[p.Name] {
			c.wrong(at+".name", fmt.Sprintf("%q is empty or used twice", p.Name), "status names the paths", mend)
		}
		names[p.Name] = true
		for _, f := range []struct{ field, address string }{{".local", p.Local}, {".peer", p.Peer}} {
			addr, err := netip.ParseAddr(f.address)
			if err != nil || addr.IsUnspecified() || addr.IsLinkLocalUnicast() && addr.Is6() && addr.Zone() == "" {
				c.wrong(at+f.field, fmt.Sprintf("%q is not an address", f.address), "it is an IP address; a link-local one needs its interface", "write it as 198.51.100.11 or fe80::a%mirror0")
			}
		}
		switch {
		case p.DataTLS != "" && p.DataTLS != "on" && p.DataTLS != "off":
			c.wrong(at+".data_tls", fmt.Sprintf("is %q", p.DataTLS), "data lanes are encrypted or not", `write "on" or "off"`)
		case p.DataTLS == "off" && !(p.Data && p.Chassis):
			c.wrong(at+".data_tls", "is off", "only on a cable inside the chassis nobody can listen or write", `mark the path as chassis and data, or write "on"`)
		}
		if p.Local == p.Peer {
			c.wrong(at+".peer", "is the local address", "a node is not its own peer", mend)
		}
	}
	if !data {
		c.wrong("paths", "none is for data", "the mirror needs a way to the peer", "mark at least one path as data")
	}
}
