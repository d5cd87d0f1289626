package ns

import "time"

// Spec is one machine at one power-on, sent to its init by the core.
type Spec struct {
	Machine    string      `json:"machine"`  // a, b, witness, client
	Hostname   string      `json:"hostname"` // node-a
	BootID     string      `json:"boot_id"`  // new at every power-on
	MachineID  string      `json:"machine_id"`
	HostUUID   string      `json:"host_uuid"` // what libvirt says the machine is
	Upper      string      `json:"upper"`     // overlay upper: survives power cycles
	Work       string      `json:"work"`
	Root       string      `json:"root"`              // empty folder where the root is put together
	Hide       []string    `json:"hide,omitempty"`    // folders of the machine that a node must not see
	Bin        string      `json:"bin,omitempty"`     // bound to BinDir, read-only
	LogDir     string      `json:"log_dir"`           // outside the node's drives: logs survive a cut
	Drives     []Drive     `json:"drives,omitempty"`  // mounted through loop devices
	Watchdog   string      `json:"watchdog"`          // file bound to /dev/watchdog; empty: none
	Interfaces []Interface `json:"interfaces"`        // already in the network namespace
	Files      []File      `json:"files,omitempty"`   // written at every power-on
	Folders    []string    `json:"folders,omitempty"` // made when absent
	Remove     []string    `json:"remove,omitempty"`  // removed when there: what the machine's own root must not lend
	Units      []Unit      `json:"units,omitempty"`
}

// Drive is a file system on a lab drive.
type Drive struct {
	Name  string `json:"name"`  // a.0
	File  string `json:"file"`  // the drive's front end
	Mount string `json:"mount"` // /data
}

// Interface is a network interface and its static addresses (CIDR).
type Interface struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

// File is a file of the node.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	Data string `json:"data"`
}

// Unit is a service of a machine's init. Units are data: a test gives its own.
type Unit struct {
	Name    string   `json:"name"`
	Argv    []string `json:"argv"`              // a name without slash is looked for in BinDir, then in PATH
	Env     []string `json:"env,omitempty"`     // K=V, beside PATH, HOME and LANG
	Notify  bool     `json:"notify,omitempty"`  // tells READY=1 by sd_notify
	Sockets []Socket `json:"sockets,omitempty"` // opened by the init before the first start and kept over restarts
	Once    bool     `json:"once,omitempty"`    // not restarted when it ends well
	Stopped bool     `json:"stopped,omitempty"` // only started by a verb
}

// Socket is a listening unix socket that the init owns. A connect while the service restarts waits in the backlog
// instead of failing (systemd.socket(5) semantics: LISTEN_FDS, LISTEN_FDNAMES).
type Socket struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// BinDir is where the product's programs are in a node.
const BinDir = "/opt/duet/bin"

// Restart policy of the init. The product's promise is a restart in under a second (issue: "restart by the node's init").
const (
	restartDelay     = 100 * time.Millisecond // also what systemd's RestartSec gives by default
	restartDelayMax  = 5 * time.Second        // of a service that dies again and again
	restartQuick     = 5                      // deaths within restartWindow before the delay doubles
	restartWindow    = 10 * time.Second
	stopGrace        = 5 * time.Second // between SIGTERM and SIGKILL of a stopped unit
	logLineBytesMax  = 8 << 10         // a longer line is split
	listenBacklog    = 128
	notifyBytesMax   = 4096
	execsPerNodeMax  = 64    // at once
	nameBytesMax     = 64    // of a unit
	loopAttemptsMax  = 64    // another program may take the free loop device first
	defaultSocketMod = 0o600 // root only
)
