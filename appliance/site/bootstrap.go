package site

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
	Accel         string `json:"accel,omitempty"` // how QEMU runs guests: "kvm" or "tcg"; empty: "tcg", which runs everywhere
}

// Path is one network way to the peer.
type Path struct {
	Name    string `json:"name"`    // "mirror0"
	Local   string `json:"local"`   // "fe80::a%mirror0", "198.51.100.11"
	Peer    string `json:"peer"`    // "fe80::b%mirror0", "198.51.100.12"
	Data    bool   `json:"data"`    // data lanes may use it
	Chassis bool   `json:"chassis"` // a cable inside the chassis: fresh nodes may pair over it
}

// LoadBootstrap reads and checks /etc/duet/node.json. Its error is a *FieldErrors or names the file.
func LoadBootstrap(path string) (Bootstrap, error) { return Bootstrap{}, nil }
