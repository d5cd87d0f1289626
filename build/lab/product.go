package lab

import (
	"encoding/json"
	"fmt"
	"strings"

	"duet/appliance/site"
	"duet/build/lab/core"
	"duet/build/lab/ns"
)

// What the lab's hardware asks for at its doors.
const (
	bmcUser       = "fence"
	bmcPassword   = "lab-only-4711"
	pduProduct    = "netio"
	chassisSerial = "LAB-0001"
	witnessPort   = 7443
	witnessData   = "/var/lib/duet-witness"
	peerPort      = 7701
	dataPort      = 7702
)

// productMachine is a machine with the product's services and configuration.
func productMachine(name string) core.MachineConfig {
	switch name {
	case A, B:
		return nodeMachine(name)
	case Witness:
		return core.MachineConfig{
			Name: name, Hostname: "witness", Folders: []string{witnessData},
			Units: []ns.Unit{{
				Name: "duet-witness",
				Argv: []string{"duet-witness", "serve", "--listen", fmt.Sprintf("%s:%d", core.AddressWitness, witnessPort), "--data", witnessData},
			}},
		}
	}
	return core.MachineConfig{Name: name, Hostname: name}
}

func nodeMachine(name string) core.MachineConfig {
	return core.MachineConfig{
		Name: name, Hostname: "node-" + name,
		Folders: []string{"/data/duet", "/var/log/duet", "/run/duet"},
		// The machine's own libvirt must lend no network and no guest.
		Remove: []string{"/etc/libvirt/qemu/networks", "/etc/libvirt/qemu/autostart"},
		Files: []ns.File{
			{Path: "/etc/duet/node.json", Mode: 0o644, Data: bootstrap(name)},
			{Path: "/etc/libvirt/libvirtd.conf", Mode: 0o644, Data: libvirtdConf},
			{Path: "/etc/libvirt/qemu.conf", Mode: 0o600, Data: qemuConf},
		},
		Units: []ns.Unit{
			{Name: "libvirtd", Argv: []string{"/usr/sbin/libvirtd"}, Notify: true},
			{
				Name: "duet-mirrord", Argv: []string{"duet-mirrord", "--run", "/run/duet", "--pool", "/pool"},
				Sockets: []ns.Socket{{Name: "nbd", Path: "/run/duet/nbd.sock", Mode: 0o600}},
			},
			{Name: "duetd", Argv: []string{"duetd", "--config", "/etc/duet/node.json"}},
		},
	}
}

// bootstrap is what the factory would have written.
func bootstrap(name string) string {
	peer, mine, theirs := B, "11", "12"
	if name == B {
		peer, mine, theirs = A, "12", "11"
	}
	b := site.Bootstrap{
		Node: name, ChassisSerial: chassisSerial, DataDir: "/data/duet", PoolDir: "/pool", RunDir: "/run/duet",
		Paths: []site.Path{
			{Name: "mirror0", Local: "fe80::" + name + "%mirror0", Peer: "fe80::" + peer + "%mirror0", Data: true, Chassis: true},
			{Name: "lan0", Local: "198.51.100." + mine, Peer: "198.51.100." + theirs, Data: true},
		},
		PeerPort: peerPort, DataPort: dataPort, Watchdog: "/dev/watchdog", LibvirtSocket: "/run/libvirt/libvirt-sock",
		Reset: site.ResetReboot, // reboot(2) ends the first process of the node, not the machine
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return string(text) + "\n"
}

// libvirt as lab.md section 11 says, without TCP: duetd uses the unix socket. host_uuid: two nodes with one would
// refuse each other's migrations.
var libvirtdConf = strings.Join([]string{
	`auth_unix_ro = "none"`,
	`auth_unix_rw = "none"`,
	`unix_sock_group = "root"`,
	`unix_sock_rw_perms = "0700"`,
	`listen_tls = 0`,
	`listen_tcp = 0`,
	`host_uuid = "` + core.HostUUIDMark + `"`,
	`log_outputs = "3:stderr"`,
	``,
}, "\n")

// No cgroups, no mount namespaces of its own, no log daemon: a node in namespaces has none of them to give.
var qemuConf = strings.Join([]string{
	`security_driver = "none"`,
	`user = "root"`,
	`group = "root"`,
	`dynamic_ownership = 0`,
	`remember_owner = 0`,
	`cgroup_controllers = []`,
	`namespaces = []`,
	`stdio_handler = "file"`,
	``,
}, "\n")
