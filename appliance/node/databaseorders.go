package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/internal/boottime"
	"duet/appliance/membership"
	"duet/appliance/outlook"
	"duet/appliance/postgres"
	"duet/appliance/postgres/decide"
	"duet/appliance/site"
)

// What people see of the database, and order of it.

// databaseWord is what one node's manager says to the other one: what decides, and what people are shown.
type databaseWord struct {
	Peer  decide.Peer
	Shown api.DatabaseNode
}

// databaseStale: an older observation is not shown as a present one.
const databaseStale = 1500 * time.Millisecond

// shown is this node's server.
func (d *database) shown(m *postgres.Manager, w *databaseWays) api.DatabaseNode {
	v, facts := m.View(), m.Facts()
	n := api.DatabaseNode{
		Node: d.node.self.String(), PGStatus: v.Status, DataStatus: v.Data, Role: v.Role, Activity: v.Activity, Promotable: v.Promotable, Why: v.Why,
		Timeline: v.Timeline, ReceiveLSN: v.Receive.String(), ReplayLSN: v.Replay.String(), Failures: int(v.Fails), Progress: v.Progress,
		WriteOpen: facts.WriteOpen, ReadOpen: facts.ReadOpen,
		Write: w.keeper.Phase(w.address[decide.Write]).String(), Read: w.keeper.Phase(w.address[decide.Read]).String(),
	}
	if v.At != 0 {
		n.AgeMS = ageMS(v.At)
	}
	return n
}

func ageMS(at membership.Boottime) int64 {
	return int64(membership.Boottime(boottime.Now())-at) / int64(time.Millisecond)
}

// unseen is a server of which nothing fresh is known.
func unseen(node membership.Node, age int64) api.DatabaseNode {
	return api.DatabaseNode{
		Node: node.String(), PGStatus: "UNKNOWN", DataStatus: "DISCONNECT", Role: "none", Activity: "none", Why: "stale",
		ReceiveLSN: decide.LSN(0).String(), ReplayLSN: decide.LSN(0).String(), Write: "absent", Read: "absent", AgeMS: age,
	}
}

// databaseNodes are both, a first.
func (d *database) nodes() []api.DatabaseNode {
	d.mu.Lock()
	m, w, peer, at := d.manager, d.ways, d.peerShown, d.peer.At
	d.mu.Unlock()
	self := unseen(d.node.self, -1)
	if m != nil {
		if self = d.shown(m, w); self.AgeMS > databaseStale.Milliseconds() {
			self = unseen(d.node.self, self.AgeMS)
		}
	}
	switch {
	case at == 0:
		peer = unseen(d.node.peer(), -1)
	case ageMS(at) > databaseStale.Milliseconds():
		peer = unseen(d.node.peer(), ageMS(at))
	default:
		peer.AgeMS += ageMS(at)
	}
	if d.node.self == membership.B {
		return []api.DatabaseNode{peer, self}
	}
	return []api.DatabaseNode{self, peer}
}

// Database is the pair as this node sees it.
func (n *Node) Database(context.Context) (api.Database, error) {
	db, slot, has := n.db.of()
	if !has {
		return api.Database{}, n.noDatabase()
	}
	_, docs := databaseAuthority{n.db}.Now()
	r := docs.Newest()
	out := api.Database{
		Owner: n.driver.View().State.Rec.Owners[slot].Node.String(), WriteAddress: db.Write, ReadAddress: db.Read, Port: db.ListenPort(),
		Durability: n.db.durability().String(), Nodes: n.db.nodes(),
		Record: api.DatabaseRecord{
			Epoch: uint64(r.Epoch), Version: r.Version, SystemID: fmt.Sprint(r.SystemID), Copies: members(r.Copies), Timeline: r.Timeline,
			PromoteLSN: r.PromoteLSN.String(), Durability: r.Durability.String(), SinceUnix: r.Since,
		},
	}
	for _, p := range r.History {
		out.Record.History = append(out.Record.History, api.Promotion{
			Epoch: uint64(p.Epoch), Version: p.Version, From: p.From.String(), To: p.To.String(), FromTimeline: p.FromTimeline, Timeline: p.Timeline,
			ForkLSN: p.Fork.String(), CopiesBefore: members(p.CopiesBefore), Reason: p.Reason.String(), Forced: p.Forced,
		})
	}
	return out, nil
}

// outlook is what can be lost of it. What is not fresh does not serve.
func (d *database) outlook() outlook.Database {
	_, _, has := d.of()
	if !has {
		return outlook.Database{}
	}
	_, docs := databaseAuthority{d}.Now()
	r := docs.Newest()
	o := outlook.Database{There: true, Recorded: r.Version != 0, OnA: r.Copies.Has(membership.A), OnB: r.Copies.Has(membership.B)}
	for _, n := range d.nodes() {
		o.Serves = o.Serves || n.PGStatus == "PRI" && n.WriteOpen
	}
	return o
}

func (n *Node) noDatabase() error {
	if _, founded := n.document(); !founded {
		return event.New(event.NotFounded, "node", n.self.String())
	}
	return event.New(event.PGNone)
}

const switchoverWhat = "the switchover of the database"

// Switchover moves the primary to the other node (P1 to P4), and returns when it serves there.
func (n *Node) Switchover(ctx context.Context, by, reason string) error {
	_, slot, has := n.db.of()
	if !has {
		return n.noDatabase()
	}
	refuse := func(reason string) error {
		return event.New(event.OrderRefused, "what", switchoverWhat, "reason", reason, "next", "Look at the database: duet db status")
	}
	st := n.driver.View().State
	m := n.db.running()
	switch {
	case st.Committed() && !st.Owns(slot):
		return &api.OtherNodeError{Object: "the database", Node: st.Rec.Owners[slot].Node.String()}
	case n.testsPeer():
		return event.New(event.OrderRefused, "what", switchoverWhat, "reason", testingReason, "next", testingNext)
	case m == nil:
		return refuse("this node does not manage its server")
	}
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	if why := m.Switchover(ctx); why != decide.Granted {
		return refuse(why.String())
	}
	n.driver.Note("database-switchover", "by "+by+": "+reason)
	begun, ordered := false, time.Now()
	err := await(ctx, func() (bool, error) {
		under := m.View().Order != decide.OrderNone
		begun = begun || under
		owns := n.driver.View().State.Owns(slot)
		if owns && !under && (begun || time.Since(ordered) > 2*time.Second) {
			return false, refuse("it was given up before the move, and the primary serves here again") // P5
		}
		peer := n.db.nodes()[n.peer()]
		return !owns && peer.PGStatus == "PRI" && peer.WriteOpen, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return event.New(event.DeadlinePassed, "what", switchoverWhat, "seconds", fmt.Sprint(int(orderWait.Seconds())))
	}
	if err == nil {
		n.driver.Note("database-switched", n.peer().String())
	}
	return err
}

// handOverLimit is how long a leave waits for what a switchover has to wait for, such as the checkpoint after the last one.
const handOverLimit = 5 * time.Second

// leaveDatabase hands the database over before this node leaves, if it runs here: else it would be killed, and come back over there as
// after the loss of a node. waiting: if that cannot be, it is stopped, and waits for this node.
func (n *Node) leaveDatabase(ctx context.Context, waiting bool, by, reason string) error {
	_, slot, has := n.db.of()
	if !has || !n.driver.View().State.Owns(slot) {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	var refused error
	_ = await(limited, func() (bool, error) { //nolint:errcheck // refused says it better
		refused = n.Switchover(ctx, by, reason)
		fault, is := errors.AsType[*event.Fault](refused)
		return !is || fault.Args["reason"] != decide.RefusedBusy.String(), nil
	})
	switch {
	case refused == nil:
		return nil
	case waiting:
		n.driver.Note("database-waits", refused.Error())
		return nil
	}
	fault, is := errors.AsType[*event.Fault](refused)
	if !is || event.CodeOf(refused) != event.OrderRefused {
		return refused
	}
	return event.New(event.OrderRefused, "what", "leaving the pair", "reason", "the database cannot be handed over: "+fmt.Sprint(fault.Args["reason"]),
		"next", "Look at it: duet db status. Or accept that it waits for this node: --waiting")
}

// SetDatabase changes the site document; the owner of the database carries it out (L5).
func (n *Node) SetDatabase(ctx context.Context, o api.DatabaseSettings, by string) error {
	if _, _, has := n.db.of(); !has {
		return n.noDatabase()
	}
	if o.Durability == "" || o.Durability == n.db.durability().String() {
		return nil
	}
	err := n.changeDocument(ctx, func(doc *site.Document) {
		db := *doc.Database
		db.Durability = o.Durability
		doc.Database = &db
	})
	if err == nil {
		n.driver.Note("database-set", "durability "+o.Durability+", by "+by+": "+o.Reason)
	}
	return err
}

// checkDatabase refuses answers that no server would start with, before anything is founded.
func checkDatabase(doc site.Document) error {
	if doc.Database == nil {
		return nil
	}
	var wrong site.FieldErrors
	// How large the data volume is, is not known yet; the server's start asks again.
	_, refused := postgres.Settings(strings.Join(doc.Database.Settings, "\n"), maxLogBytes)
	for _, r := range refused {
		wrong = append(wrong, site.FieldError{
			Field: fmt.Sprintf("database.settings[%d]", r.Line-1), What: r.Name + " is refused", Why: r.Reason, Next: "remove or correct the line",
		})
	}
	for i, r := range doc.Database.Rules {
		if err := (postgres.Rule{Networks: r.Networks, Users: r.Users, Databases: r.Databases, Method: r.Method}).Check(); err != nil {
			wrong = append(wrong, site.FieldError{
				Field: fmt.Sprintf("database.rules[%d]", i), What: "is refused", Why: err.Error(), Next: "correct the rule",
			})
		}
	}
	return wrong.Err()
}

// maxLogBytes is more than any log volume has.
const maxLogBytes = 1 << 50
