package postgres

import (
	"log/slog"
	"time"

	"duet/appliance/event"
	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
	"duet/appliance/site"
)

// Config is everything a manager needs. Durations that are zero get the defaults below.
type Config struct {
	Self     membership.Node
	Programs string // folder with postgres, initdb, pg_rewind, ...: /usr/lib/postgresql/15/bin
	Root     string // folder of the data directories: /data/postgres/15
	Run      string // folder of configuration and socket, rendered at every start: /run/duet/postgres
	Export   string // folder for tails of abandoned timelines (J3)
	UID, GID int    // of the server; the programs refuse to run as root

	Port       int    // of this server
	Listen     string // addresses for replication, on the link
	PeerHost   string // where the peer's server listens for replication
	PeerPort   int
	Networks   []string // of PeerHost, for pg_hba
	Rules      []Rule   // of the site
	Settings   string   // of the site, checked by Settings
	Secret     site.Secret
	SegmentMiB int   // of one WAL file, at initdb
	KeepMiB    int64 // wal_keep_size
	SlotMiB    int64 // max_slot_wal_keep_size: half of pgwal
	RateKiB    int   // of a whole copy; 0: unlimited

	Decide     decide.Config
	Authority  Authority
	Other      Other
	Gates      Gates
	Addresses  Addresses
	Enabled    func() bool
	Durability func() decide.Durability          // nil: available
	Report     func(fault *event.Fault, on bool) // may be nil
	Reset      func(why string)                  // makes this node go down hard (H2, X3); nil: it is only logged
	Log        *slog.Logger

	LookEvery     time.Duration
	AskTimeout    time.Duration // of one question to the server
	StartTimeout  time.Duration // crash recovery included
	StopTimeout   time.Duration // fast
	KillTimeout   time.Duration // immediate, and from SIGKILL to gone
	PromoteTime   time.Duration
	MarkTimeout   time.Duration // G3
	CheckTimeout  time.Duration // CHECKPOINT
	RewindTimeout time.Duration
	CopyTimeout   time.Duration // clone, pg_basebackup, initdb
}

// The defaults, with their reasons.
const (
	defaultLook    = 200 * time.Millisecond // five small questions a second cost nothing and L1 counts in seconds
	defaultAsk     = 2 * time.Second        // H1: a slow answer is not a dead server, but a look must end
	defaultStart   = 10 * time.Minute       // recovery of a full pgwal volume
	defaultStop    = 10 * time.Second       // P2
	defaultKill    = 5 * time.Second        // H2
	defaultPromote = 15 * time.Second       // pg_promote waits 10 s
	defaultMark    = 3 * time.Second        // a longer one would hold every commit for its length
	defaultCheck   = 60 * time.Second
	defaultRewind  = 30 * time.Minute
	defaultCopy    = 12 * time.Hour // a terabyte over a limited link
)

func (c *Config) fill() {
	orElse(&c.LookEvery, defaultLook)
	orElse(&c.AskTimeout, defaultAsk)
	orElse(&c.StartTimeout, defaultStart)
	orElse(&c.StopTimeout, defaultStop)
	orElse(&c.KillTimeout, defaultKill)
	orElse(&c.PromoteTime, defaultPromote)
	orElse(&c.MarkTimeout, defaultMark)
	orElse(&c.CheckTimeout, defaultCheck)
	orElse(&c.RewindTimeout, defaultRewind)
	orElse(&c.CopyTimeout, defaultCopy)
	orElse(&c.SegmentMiB, 16)
	orElse(&c.KeepMiB, 1024)
	orElse(&c.SlotMiB, 12*1024)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Enabled == nil {
		c.Enabled = func() bool { return true }
	}
	if c.Durability == nil {
		c.Durability = func() decide.Durability { return decide.Available }
	}
}

func orElse[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}
