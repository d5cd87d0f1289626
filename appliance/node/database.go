package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/appliance/addresses"
	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/postgres"
	"duet/appliance/postgres/decide"
	"duet/appliance/postgres/gate"
	"duet/appliance/site"
)

// Times of the database on a node.
const (
	databaseAgain = 5 * time.Second        // a server that cannot be managed is tried again
	databaseLook  = 200 * time.Millisecond // whether there is a database to manage, and its word to the peer
	wantFor       = 2 * time.Second        // a wish for the ownership that is not repeated has passed
)

// database is this node's half of the PostgreSQL pair: it gives the manager (appliance/postgres) its authority, its gates, its
// addresses and the peer's word, and the core the one resource that they all are about.
type database struct {
	node    *Node
	records *postgres.Records

	mu        sync.Mutex
	manager   *postgres.Manager // nil: none runs
	ways      *databaseWays
	started   membership.Epoch    // Start was given under it, and Stop not since
	wantedAt  membership.Boottime // the manager's last wish for the ownership
	peer      decide.Peer
	peerShown api.DatabaseNode
	asks      map[uint64]chan error // replays to pause on the peer
	lastAsk   uint64
}

func newDatabase(n *Node) (*database, error) {
	records, err := postgres.OpenRecords(filepath.Join(n.boot.DataDir, "database"))
	if err != nil {
		return nil, event.New(event.DocumentUnread).Because(err)
	}
	return &database{node: n, records: records, asks: map[uint64]chan error{}}, nil
}

// of is the site's database; false: it has none.
func (d *database) of() (site.Database, membership.ResourceID, bool) {
	doc, ok := d.node.document()
	if !ok || doc.Database == nil {
		return site.Database{}, 0, false
	}
	return *doc.Database, membership.ResourceID(doc.Database.Slot), true //nolint:gosec // bounded by site.Check
}

// root of the data directories.
func (d *database) root() string { return d.node.boot.Database.DataDir }

// run manages the server while the site has a database.
func (d *database) run(ctx context.Context) error {
	for ctx.Err() == nil {
		_, _, has := d.of()
		wait := databaseLook
		if has {
			err := d.manage(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				d.node.log.Error("the database is not managed", "error", err.Error())
				d.node.faults.raise(event.New(event.PGNotManaged, "node", d.node.self.String(), "reason", err.Error()))
			}
			wait = databaseAgain
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// manage runs one manager until ctx ends or it cannot go on.
func (d *database) manage(ctx context.Context) error {
	db, _, has := d.of()
	if !has {
		return nil
	}
	ways, err := d.newWays(db)
	if err != nil {
		return err
	}
	defer ways.keeper.Close()
	cfg, err := d.config(db, ways)
	if err != nil {
		return err
	}
	m, err := postgres.New(cfg)
	if err != nil {
		return err
	}
	d.node.faults.clear(event.PGNotManaged)
	d.mu.Lock()
	d.manager, d.ways = m, ways
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.manager, d.ways = nil, nil
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said sync.WaitGroup
	defer said.Wait()
	defer cancel()
	said.Go(func() { d.say(ctx, m, ways) })
	return m.Run(ctx)
}

func (d *database) wake() {
	if m := d.running(); m != nil {
		m.Wake()
	}
}

func (d *database) running() *postgres.Manager {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.manager
}

// config of a manager: where things are on this node, and what the site wants.
func (d *database) config(db site.Database, ways *databaseWays) (postgres.Config, error) {
	n, home := d.node, d.node.boot.Database
	u, err := user.Lookup(home.User)
	if err != nil {
		return postgres.Config{}, fmt.Errorf("user of the server: %w", err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if err := errors.Join(errU, errG); err != nil {
		return postgres.Config{}, fmt.Errorf("user of the server: %w", err)
	}
	export := filepath.Join(n.boot.DataDir, "database-tails")
	for _, dir := range []string{home.DataDir, home.RunDir, export} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return postgres.Config{}, fmt.Errorf("folder: %w", err)
		}
	}
	if err := os.Chown(home.DataDir, uid, gid); err != nil {
		return postgres.Config{}, fmt.Errorf("folder: %w", err)
	}
	slot, keep, err := logLimits(home.DataDir)
	if err != nil {
		return postgres.Config{}, err
	}
	link := n.databaseLink()
	cfg := postgres.Config{
		Self: n.self, Programs: home.Programs, Root: home.DataDir, Run: home.RunDir, Export: export, UID: uid, GID: gid,
		Port: db.ListenPort(), Listen: "*", PeerHost: link.Peer, PeerPort: db.ListenPort(), Networks: []string{networkOf(link.Peer)},
		Settings: strings.Join(db.Settings, "\n"), Secret: db.Password, SlotMiB: slot, KeepMiB: keep,
		Decide: decide.Defaults(), Authority: databaseAuthority{d}, Other: databaseOther{d}, Gates: gateWay{ways}, Addresses: addressWay{ways},
		Enabled: d.enabled, Durability: d.durability, Report: d.report, Reset: n.reset, Log: n.log.With("subsystem", "database"),
	}
	for _, r := range db.Rules {
		cfg.Rules = append(cfg.Rules, postgres.Rule{Networks: r.Networks, Users: r.Users, Databases: r.Databases, Method: r.Method})
	}
	return cfg, nil
}

// logLimits: what the log of a peer that is away may take, and what is kept for one that comes back soon. A volume of its
// own for the log would be split in half; here it is the data's.
func logLimits(dir string) (slotMiB, keepMiB int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("data volume: %w", err)
	}
	total := int64(st.Blocks) * st.Bsize >> 20 //nolint:gosec // sizes of a file system
	slotMiB = min(max(total/4, 64), 12*1024)
	return slotMiB, min(slotMiB/4, 1024), nil
}

// databaseLink is the way of replication: the first path for data.
func (n *Node) databaseLink() site.Path {
	for _, p := range n.boot.Paths {
		if p.Data {
			return p
		}
	}
	return site.Path{} // refused by Bootstrap.Validate
}

// networkOf the peer, for the rules of access: link-local addresses have one network.
func networkOf(peer string) string {
	a, err := netip.ParseAddr(peer)
	switch {
	case err != nil:
		return "127.0.0.1/32"
	case a.IsLinkLocalUnicast():
		return "fe80::/10"
	}
	return netip.PrefixFrom(a, a.BitLen()).String()
}

// enabled: nothing runs before setup is complete, for the live fence tests switch nodes off.
func (d *database) enabled() bool {
	_, _, has := d.of()
	return has && d.node.store.Runtime().SetupComplete
}

func (d *database) durability() decide.Durability {
	if db, _, _ := d.of(); db.Durability == decide.Strict.String() {
		return decide.Strict
	}
	return decide.Available
}

func (d *database) report(f *event.Fault, on bool) {
	if on {
		d.node.faults.raise(f)
		d.node.driver.Note("database-fault", string(f.Code))
	} else {
		d.node.faults.clear(f.Code)
	}
}

// The core's side: one more workload.

// start: the core permits to run the database under this epoch.
func (d *database) start(epoch membership.Epoch) {
	d.mu.Lock()
	d.started = epoch
	m := d.manager
	d.mu.Unlock()
	d.node.driver.Note("database-permitted", fmt.Sprintf("epoch %d", epoch))
	if m != nil {
		m.Wake()
	}
}

// stop ends a primary, with or without a manager. A standby goes on: it follows whoever owns the database.
func (d *database) stop(ctx context.Context) error {
	d.mu.Lock()
	d.started = 0
	d.mu.Unlock()
	within := time.Second
	if end, ok := ctx.Deadline(); ok {
		within = time.Until(end)
	}
	return postgres.EndPrimary(d.root(), within)
}

func (d *database) idle() bool { return !postgres.PrimaryRuns(d.root()) }

// wanted: what this node owns it wants to be permitted under each epoch; what the peer owns when the manager asks for it.
func (d *database) wanted() bool {
	_, slot, has := d.of()
	if !has || !d.enabled() {
		return false
	}
	st := d.node.driver.View().State
	d.mu.Lock()
	defer d.mu.Unlock()
	if st.Owns(slot) {
		return d.started != st.Rec.Ep && d.manager != nil
	}
	now := membership.Boottime(boottime.Now())
	return d.wantedAt != 0 && now-d.wantedAt < membership.Boottime(wantFor)
}

// databaseWays are the gates and service addresses of this node, which end together.
type databaseWays struct {
	gates   *gate.Gates
	keeper  *addresses.Keeper
	address [2]addresses.Address // by decide.Gate

	mu    sync.Mutex
	open  [2]bool
	until [2]membership.Boottime // of the open gate; 0: no end
	end   [2]membership.Boottime // that the address has in the kernel; 0: none
	limit membership.Boottime    // of the grant; 0: a node that is alone has none
}

// addressSpare is how long an address outlives its gate: the kernel counts whole seconds.
const addressSpare = time.Second

func (d *database) newWays(db site.Database) (*databaseWays, error) {
	w := &databaseWays{}
	var own []netip.Addr
	for _, p := range d.node.boot.Paths { // clients that know a node's own address reach its server by it
		if a, err := netip.ParseAddr(p.Local); err == nil && !a.IsLinkLocalUnicast() {
			own = append(own, a)
		}
	}
	var service [2]netip.Addr
	for g, text := range [2]string{decide.Write: db.Write, decide.Read: db.Read} {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("service address: %w", err)
		}
		service[g], w.address[g] = a, addresses.Address{IP: a, Interface: db.Interface}
	}
	link := d.node.databaseLink()
	var exempt []string
	if a, err := netip.ParseAddr(link.Local); err == nil && a.Zone() != "" {
		exempt = append(exempt, a.Zone())
	}
	var err error
	w.gates, err = gate.New(gate.Config{
		Port: uint16(db.ListenPort()), Exempt: exempt, //nolint:gosec // bounded by site.Check
		Write: append([]netip.Addr{service[decide.Write]}, own...), Read: append([]netip.Addr{service[decide.Read]}, own...),
	})
	if err != nil {
		return nil, err
	}
	w.keeper, err = addresses.New(addresses.Config{
		Known: w.address[:], Memory: d.node.runDirFile("addresses"), Conflict: d.conflict, Log: d.node.log.With("subsystem", "addresses"),
	})
	return w, err
}

// conflict: somebody else answers for a service address.
func (d *database) conflict(a addresses.Address, mac string, on bool) {
	about := "address " + a.IP.String()
	if on {
		d.node.faults.raiseAbout(about, event.New(event.AddressTaken, "address", a.IP.String(), "interface", a.Interface, "mac", mac, "node", d.node.self.String()))
	} else {
		d.node.faults.clearAbout(about)
	}
}

// gateWay and addressWay are what the manager sees of it.
type (
	gateWay    struct{ *databaseWays }
	addressWay struct{ *databaseWays }
)

// permit follows the grant before its manager has looked: a gate of the time alone has no end, and if this daemon dies or stands still
// before the next look, nobody would close it when the other node takes over.
func (d *database) permit(until membership.Boottime) {
	d.mu.Lock()
	w := d.ways
	d.mu.Unlock()
	if w == nil {
		return
	}
	w.mu.Lock()
	w.limit = until
	endless := [2]bool{w.open[0] && w.until[0] == 0, w.open[1] && w.until[1] == 0}
	w.mu.Unlock()
	for g := range endless {
		if until == 0 || !endless[g] {
			continue
		}
		if err := (gateWay{w}).Set(decide.Gate(g), true, until); err != nil {
			d.node.log.Error("gate of the database", "error", err.Error())
		}
	}
}

// Set moves the end of the address along. A grant that has an end gives it to what was decided under one that had none.
func (w gateWay) Set(g decide.Gate, open bool, until membership.Boottime) error {
	w.mu.Lock()
	if open && until == 0 {
		until = w.limit
	}
	w.mu.Unlock()
	if err := w.gates.Set(g, open, until); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[g], w.until[g] = open, until
	if !open || w.keeper.Phase(w.address[g]) == addresses.Absent {
		return nil
	}
	return w.hold(g, until)
}

// Open asks the kernel.
func (w gateWay) Open(g decide.Gate) bool { return w.gates.Open(g) }

// Set takes an address for as long as its gate is open, or drops it. One whose gate opens next is taken for a moment.
func (w addressWay) Set(g decide.Gate, add bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !add:
		w.end[g] = 0
		return w.keeper.Drop(w.address[g])
	case w.open[g]:
		return w.hold(g, w.until[g])
	}
	return w.hold(g, membership.Boottime(boottime.Now())+membership.Boottime(wantFor))
}

// Held also says so of an address that is being asked for, or that somebody else has: nothing more can be done for it.
func (w addressWay) Held(g decide.Gate) bool { return w.keeper.Phase(w.address[g]) != addresses.Absent }

// hold gives the address its end, in whole seconds, so that the kernel is not asked with every look. The caller has mu.
func (w *databaseWays) hold(g decide.Gate, until membership.Boottime) error {
	if until == 0 {
		w.end[g] = 0
		return w.keeper.Take(w.address[g], 0)
	}
	second := membership.Boottime(time.Second)
	end := (until+second-1)/second*second + membership.Boottime(addressSpare)
	if end == w.end[g] && w.keeper.Phase(w.address[g]) != addresses.Absent {
		return nil
	}
	w.end[g] = end
	return w.keeper.Take(w.address[g], time.Duration(end)-time.Duration(boottime.Now()))
}
