package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	gobmc "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Chassis is what a BMC switches. Its methods are called from several goroutines.
type Chassis interface {
	Powered() bool   // the node runs
	PowerOn() error  // press the power button of a node that is off; on: nothing
	PowerOff() error // hard off; off: nothing
}

// BMCConfig describes one BMC.
type BMCConfig struct {
	User     string // at most 16 bytes
	Password string // at most 16 bytes
	GUID     [16]byte
	Chassis  Chassis
	Suites   []uint8 // cipher suites offered; none: 17 and 3
	Admin    bool    // the user's role on the LAN channel: administrator, else operator
}

// BMC is a simulated baseboard management controller. It starts alive (it has AC) and without faults.
type BMC struct {
	cfg BMCConfig

	mu     sync.Mutex
	faults BMCFaults
	dead   bool
	conn   net.PacketConn // while serving
	inbox  *packetQueue   // of the firmware that runs now; nil while it has no AC
	logins int
}

// BMCFaults are the switches of a BMC; the zero value is a healthy one.
type BMCFaults struct {
	Mute       bool          // no packet is answered
	Slow       time.Duration // every answer leaves this much later
	Password   string        // not empty: the user's password is this one instead ("wrong password")
	Refuse     bool          // Chassis Control is answered with an error code
	OffIgnored bool          // "off" is accepted and nothing happens
	OffLate    time.Duration // "off" is accepted and happens this much later
	Lie        Lie           // what the power state is said to be
	WrongGUID  bool          // another chassis answers at this address
	RoleUser   bool          // the user may look and may not switch
	Firmware   uint8         // not 0: another minor version of its firmware
}

// Lie is a power state that is reported whatever the chassis does.
type Lie uint8

// The lies.
const (
	Honest Lie = iota
	SaysOff
	SaysOn
)

// NewBMC makes a BMC; Serve lets it answer.
func NewBMC(cfg BMCConfig) (*BMC, error) {
	if cfg.Chassis == nil {
		return nil, errors.New("a BMC needs a chassis")
	}
	if len(cfg.User) == 0 || len(cfg.User) > maxName || len(cfg.Password) > maxName {
		return nil, fmt.Errorf("user and password of a BMC have 1 to %d bytes (IPMI 2.0, 22.28 and 22.30)", maxName)
	}
	if len(cfg.Suites) == 0 {
		cfg.Suites = []uint8{17, 3}
	}
	for _, id := range cfg.Suites {
		if !gobmc.SupportedCipherSuite(types.CipherSuiteID(id)) {
			return nil, fmt.Errorf("cipher suite %d is not simulated", id)
		}
	}
	return &BMC{cfg: cfg}, nil
}

const maxName = 16 // bytes of a user name or a 16-byte password: what every BMC takes (hardware.md section 2)

// SetAlive gives the BMC its AC or takes it away. Without AC it is silent; with AC again it starts afresh, without the
// sessions it had.
func (b *BMC) SetAlive(alive bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = !alive
	b.restart()
}

// SetMute makes the BMC answer nothing (and go on living).
func (b *BMC) SetMute(mute bool) { b.change(func(f *BMCFaults) { f.Mute = mute }) }

// SetFaults turns all switches at once.
func (b *BMC) SetFaults(faults BMCFaults) { b.change(func(f *BMCFaults) { *f = faults }) }

// Faults says how the switches stand.
func (b *BMC) Faults() BMCFaults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// Logins counts RAKP 1 messages: what a BMC counts before it locks a user out.
func (b *BMC) Logins() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.logins
}

func (b *BMC) change(turn func(*BMCFaults)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.faults
	turn(&b.faults)
	if b.faults.Password != before.Password || b.faults.WrongGUID != before.WrongGUID || b.faults.RoleUser != before.RoleUser ||
		b.faults.Firmware != before.Firmware {
		b.restart()
	}
}

// Serve answers on conn until ctx ends, then closes conn. One call at a time.
func (b *BMC) Serve(ctx context.Context, conn net.PacketConn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	b.mu.Lock()
	b.conn = conn
	b.restart()
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.conn = nil
		b.restart()
	}()

	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("BMC on %s: %w", conn.LocalAddr(), err)
		}
		b.receive(buf[:n], from)
	}
}

// receive hands one datagram to the firmware that runs now, unless the BMC is mute or dead.
func (b *BMC) receive(packet []byte, from net.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inbox == nil || b.faults.Mute {
		return
	}
	if isRAKP1(packet) {
		b.logins++
	}
	b.inbox.put(append([]byte(nil), packet...), from)
}

// restart ends the firmware that runs and, if the BMC has AC and a socket, starts another: it knows no session.
// The caller holds mu.
func (b *BMC) restart() {
	if b.inbox != nil {
		b.inbox.close()
		b.inbox = nil
	}
	if b.dead || b.conn == nil {
		return
	}
	b.inbox = newPacketQueue(b.conn, b.delay)
	firmware := server.NewServer(b.state(), b.inbox, server.WithHandlerRegistry(b.registry()), server.WithV15Disabled())
	go func(inbox *packetQueue) {
		_ = firmware.Serve(inbox.ctx) //nolint:errcheck // ends with the inbox, which is no error
		_ = firmware.Close()
	}(b.inbox)
}

func (b *BMC) delay() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults.Slow
}

// state is a BMC as it is after its own power-on. The caller holds mu.
func (b *BMC) state() *gobmc.BMC {
	guid, password := b.cfg.GUID, b.cfg.Password
	if b.faults.WrongGUID {
		guid[0] ^= 0xff
	}
	if b.faults.Password != "" {
		password = b.faults.Password
	}
	state := gobmc.New(gobmc.DeviceInfo{DeviceID: 0x20, DeviceRevision: 1, FirmwareMajor: 1, FirmwareMinor: b.faults.Firmware, IPMIVersion: 0x20}, guid, hardware{b})
	suites := make([]types.CipherSuiteID, len(b.cfg.Suites))
	for i, id := range b.cfg.Suites {
		suites[i] = types.CipherSuiteID(id)
	}
	state.SetCipherSuites(suites)
	user, err := state.Users.Add(2, b.cfg.User)
	if err != nil {
		panic(err) // slot 2 of a new store is free and the name was checked
	}
	user.SetPassword([]byte(password))
	user.Enabled = true
	role := gobmc.PrivilegeLevelOperator
	if b.cfg.Admin {
		role = gobmc.PrivilegeLevelAdministrator
	}
	if b.faults.RoleUser {
		role = gobmc.PrivilegeLevelUser
	}
	user.ChannelAccess[lanChannel] = gobmc.UserChannelAccess{MaxPrivilege: role, Enabled: true}
	return state
}

const (
	lanChannel = 1
	maxPacket  = 1024 // bytes of one RMCP+ datagram; none of ours has 200
)

// registry is the library's command set and Get System GUID (IPMI 2.0, 22.14), which its server lacks.
func (b *BMC) registry() *handlers.Registry {
	reg := handlers.NewRegistry()
	handlers.RegisterAllHandlers(reg)
	reg.RegisterFunc(types.CommandGetSystemGUID,
		func(_ context.Context, h *handlers.HandlerContext, _ []byte) ([]byte, types.CompletionCode, error) {
			guid := h.BMC.GUID
			return guid[:], types.CodeOK, nil
		})
	return reg
}

// isRAKP1 recognises RAKP message 1 in an RMCP+ datagram: class IPMI, format RMCP+, payload type 0x12.
func isRAKP1(packet []byte) bool {
	return len(packet) > 5 && packet[3]&0x1f == 0x07 && packet[4] == 0x06 && packet[5]&0x3f == 0x12
}
