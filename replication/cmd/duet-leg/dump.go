package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"duet/replication/meta"
)

var slotNames = [2]string{"A", "B"}

// dumpReport is the JSON of dump; its names are for ever.
type dumpReport struct {
	Dir        string       `json:"dir"`
	DataBytes  *int64       `json:"data_bytes,omitempty"`
	MetaBytes  *int64       `json:"meta_bytes,omitempty"`
	Slots      []slotReport `json:"slots,omitempty"`
	Superblock *superReport `json:"superblock,omitempty"`
	Log        *logReport   `json:"log,omitempty"`
	Dirty      *dirtyReport `json:"dirty,omitempty"`
	MapPages   *mapPages    `json:"map_pages,omitempty"`
	SumPages   *sumPages    `json:"sum_pages,omitempty"`
	Problems   []problem    `json:"problems"`
	Error      *problem     `json:"error,omitempty"`
}

type slotReport struct {
	Slot                string `json:"slot"`
	State               string `json:"state"` // counts, older, empty, damaged
	Why                 string `json:"why,omitempty"`
	Format              string `json:"format,omitempty"`
	Sequence            uint64 `json:"sequence,omitempty"`
	IncompatibleBits    uint32 `json:"incompatible_features,omitempty"`
	ReadOnlyCompatibles uint32 `json:"read_only_compatible_features,omitempty"`
}

type superReport struct {
	Format             string   `json:"format"`
	Sequence           uint64   `json:"sequence"`
	Incompatible       uint32   `json:"incompatible_features"`
	ReadOnlyCompatible uint32   `json:"read_only_compatible_features"`
	Site               string   `json:"site"`
	Volume             string   `json:"volume"`
	Leg                string   `json:"leg"`
	OtherLeg           string   `json:"other_leg"`
	Node               string   `json:"node"`
	State              string   `json:"state"`
	ReasonCode         uint32   `json:"reason_code"`
	Reason             string   `json:"reason"`
	Flags              []string `json:"flags"`
	VolumeBytes        uint64   `json:"volume_bytes"`
	MetaForBytes       uint64   `json:"meta_for_bytes"`
	DataBytesAtOpen    uint64   `json:"data_bytes_at_last_open"`
	Groups             uint64   `json:"groups"`
	LogBlocks          uint32   `json:"log_blocks"`
	LogSlots           uint32   `json:"log_slots"`
	LogFirst           uint64   `json:"log_first_sequence"`
	GrantEpoch         uint64   `json:"grant_epoch"`
	Legs               []string `json:"legs"`
	LegsVersion        uint64   `json:"legs_version"`
	Owner              string   `json:"owner"`
	Current            string   `json:"generation_current"`
	Base               string   `json:"generation_base"`
	SyncSource         string   `json:"generation_sync_source"`
	History            []string `json:"generation_history"`
	ResyncID           uint32   `json:"resync_id"`
	ResyncCursor       uint64   `json:"resync_cursor_block"`
	ResyncFlags        []string `json:"resync_flags"`
	ProofRoot          string   `json:"proof_root"`
	ProofEpoch         uint64   `json:"proof_epoch"`
	ProofTime          string   `json:"proof_time"`
	UncleanOpens       uint32   `json:"unclean_opens"`
	Boot               string   `json:"boot"`
	Software           string   `json:"software"`
	ReadErrors         uint32   `json:"read_errors"`
	SumErrors          uint32   `json:"sum_errors"`
	WriteErrors        uint32   `json:"write_errors"`
	SyncErrors         uint32   `json:"sync_errors"`

	Damaged []damagedBlock `json:"damaged_blocks"`
}

// damagedBlock is one that the leg has listed as not what was written.
type damagedBlock struct {
	Block int64  `json:"block"`
	Byte  int64  `json:"byte"`
	Sum   string `json:"sum"` // that it should have; empty: not known
}

type logReport struct {
	Valid      int     `json:"valid_blocks"`
	Empty      int     `json:"empty_blocks"`
	Invalid    int     `json:"invalid_blocks"`
	Unreadable int     `json:"unreadable_blocks"`
	First      uint64  `json:"first_sequence"`
	Last       uint64  `json:"last_sequence"`
	Counting   uint64  `json:"counting_blocks"`
	Lost       bool    `json:"lost"`
	LostWhy    string  `json:"lost_why,omitempty"`
	Hot        []int64 `json:"hot_extents"`
}

type dirtyReport struct {
	Blocks int64 `json:"blocks"`
	Stored int64 `json:"stored_blocks"`
	Total  int64 `json:"total_blocks"`
}

type mapPages struct {
	Total   int       `json:"total"`
	Invalid []badPage `json:"invalid"`
}

type badPage struct {
	Group       int64  `json:"group"`
	FirstExtent int64  `json:"first_extent"`
	Why         string `json:"why"`
}

type sumPages struct {
	Total         int64   `json:"total"`
	Known         int64   `json:"known"`
	Unknown       int64   `json:"unknown"`
	Suspended     int64   `json:"suspended"`
	Contradicting int64   `json:"contradicting"`
	Unreadable    int64   `json:"unreadable"`
	KnownBlocks   int64   `json:"known_blocks"`
	Lost          []int64 `json:"lost_extents"` // contradicting or unreadable
}

func (s *sumPages) count(extent int64, state meta.SumState) {
	s.Total++
	switch state {
	case meta.SumsKnown:
		s.Known++
	case meta.SumsUnknown:
		s.Unknown++
	case meta.SumsSuspended:
		s.Suspended++
	case meta.SumsContradict:
		s.Contradicting++
		s.Lost = append(s.Lost, extent)
	case meta.SumsUnreadable:
		s.Unreadable++
		s.Lost = append(s.Lost, extent)
	}
}

func (r *dumpReport) failure() *problem   { return r.Error }
func (r *dumpReport) problems() []problem { return r.Problems }

// dump tells what can be told, also of a leg that is not whole.
func dump(ctx context.Context, l *leg, failure *problem) *dumpReport {
	r := &dumpReport{Dir: l.dir, Error: failure, Problems: []problem{}}
	if l.data != nil {
		n := l.data.Size()
		r.DataBytes = &n
	}
	if l.meta == nil || failure != nil && failure.Kind == inUse {
		return r
	}
	n := l.meta.Size()
	r.MetaBytes = &n
	i, err := meta.Inspect(l.meta)
	r.Slots = slotsOf(i)
	if i.Super != nil {
		r.Superblock = superOf(i.Super)
	}
	if err != nil {
		r.Error = l.refused(err)
		return r
	}
	r.Problems = append(r.Problems, l.findings(i)...)
	r.Log = &logReport{
		i.Ring.Valid, i.Ring.Empty, i.Ring.Invalid, i.Ring.Unreadable, i.Ring.First, i.Ring.Last, i.Played,
		i.LogLost != "", i.LogLost, append([]int64{}, i.Hot...),
	}
	r.Dirty = &dirtyReport{i.Dirty.Count(), i.Stored, i.Dirty.Blocks()}
	r.MapPages = &mapPages{Total: int(i.Super.Groups), Invalid: []badPage{}}
	for _, p := range i.BadPages {
		r.MapPages.Invalid = append(r.MapPages.Invalid, badPage{p.Group, p.Group * meta.ExtentsPerGroup, p.Err.Error()})
	}
	r.SumPages = &sumPages{Lost: []int64{}}
	var sums [meta.BlocksPerExtent]uint32
	for e := range meta.Extents(int64(i.Super.VolumeBytes)) {
		if ctx.Err() != nil {
			r.Error = cancelled()
			return r
		}
		state, _ := i.Sums(e, &sums) //nolint:errcheck // counted by its state
		r.SumPages.count(e, state)
		for _, sum := range sums {
			if sum != meta.SumUnknown {
				r.SumPages.KnownBlocks++
			}
		}
	}
	r.Problems = append(r.Problems, r.SumPages.lostSums()...)
	return r
}

func cancelled() *problem {
	return &problem{"cancelled", "stopped before the end", "it was told to stop", "Run it again; nothing was changed"}
}

func slotsOf(i *meta.Inspection) []slotReport {
	var slots []slotReport
	for n, s := range i.Slots {
		r := slotReport{Slot: slotNames[n], State: "older"}
		switch {
		case errors.Is(s.Err, meta.ErrUnformatted):
			r.State = "empty"
		case s.Err != nil:
			r.State, r.Why = "damaged", s.Err.Error()
		case s.Counts:
			r.State = "counts"
		}
		if s.Err == nil {
			r.Format, r.Sequence = format(s.FormatMajor, s.FormatMinor), s.Sequence
			r.IncompatibleBits, r.ReadOnlyCompatibles = s.Incompatible, s.ReadOnlyCompatible
		}
		slots = append(slots, r)
	}
	return slots
}

func superOf(s *meta.Superblock) *superReport {
	r := &superReport{
		Format: format(s.FormatMajor, s.FormatMinor), Sequence: s.Sequence, Incompatible: s.Incompatible, ReadOnlyCompatible: s.ReadOnlyCompatible,
		Site: idText(s.Site), Volume: idText(s.Volume), Leg: idText(s.Leg), OtherLeg: idText(s.OtherLeg), Node: node(s.Node),
		State: s.State.String(), ReasonCode: s.ReasonCode, Reason: s.ReasonText,
		Flags:       names(uint32(s.Flags), "open", "zeroed", "log-lost"),
		VolumeBytes: s.VolumeBytes, MetaForBytes: s.MetaBytes, DataBytesAtOpen: s.DataBytes, Groups: s.Groups,
		LogBlocks: s.LogBlocks, LogSlots: s.LogSlots, LogFirst: s.LogFirst,
		GrantEpoch: s.GrantEpoch, Legs: names(uint32(s.Legs), "a", "b"), LegsVersion: s.LegsVersion, Owner: node(s.Owner),
		Current: generation(s.Current), Base: generation(s.Base), SyncSource: generation(s.SyncSource), History: []string{},
		ResyncID: s.ResyncID, ResyncCursor: s.ResyncCursor, ResyncFlags: names(s.ResyncFlags, "by-digest", "unconfirmed"),
		ProofRoot: idText(s.ProofRoot), ProofEpoch: s.ProofEpoch, UncleanOpens: s.UncleanOpens,
		Boot: idText(s.Boot), Software: s.Software,
		ReadErrors: s.ReadErrors, SumErrors: s.SumErrors, WriteErrors: s.WriteErrors, SyncErrors: s.SyncErrors,
	}
	for _, g := range s.History {
		r.History = append(r.History, generation(g))
	}
	r.Damaged = []damagedBlock{}
	for _, d := range s.Damaged {
		one := damagedBlock{Block: int64(d.Block), Byte: int64(d.Block) * meta.BlockBytes}
		if d.Sum != meta.SumUnknown {
			one.Sum = fmt.Sprintf("%08x", d.Sum)
		}
		r.Damaged = append(r.Damaged, one)
	}
	if s.ProofTime != 0 {
		r.ProofTime = time.Unix(int64(s.ProofTime), 0).UTC().Format(time.RFC3339)
	}
	return r
}

func format(major, minor uint16) string { return fmt.Sprintf("%d.%d", major, minor) }

// idText and generation are empty where there is none.
func idText(id meta.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func generation(g meta.Generation) string {
	if g.IsZero() {
		return ""
	}
	return g.String()
}

func node(n uint8) string {
	if n > 1 {
		return strconv.Itoa(int(n))
	}
	return string("ab"[n])
}

// names lists the bits that are set, by name where they have one.
func names(bits uint32, known ...string) []string {
	set := []string{}
	for i := range 32 {
		switch {
		case bits>>i&1 == 0:
		case i < len(known):
			set = append(set, known[i])
		default:
			set = append(set, fmt.Sprintf("bit-%d", i))
		}
	}
	return set
}

// page is text in two columns under headings.
type page struct{ *tabwriter.Writer }

func newPage(w io.Writer) page { return page{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (p page) heading(text string) {
	fmt.Fprintf(p, "%s\n", text)
}

// line leaves out control characters: texts come from a disk that anybody may have written.
func (p page) line(name, text string, args ...any) {
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if text == "" {
		text = "none"
	}
	fmt.Fprintf(p, "  %s\t%s\n", name, text)
}

func (r *dumpReport) print(w io.Writer) error {
	p := newPage(w)
	p.heading("files")
	p.line("folder", r.Dir)
	for _, f := range []struct {
		name  string
		bytes *int64
	}{{dataName, r.DataBytes}, {metaName, r.MetaBytes}} {
		if f.bytes == nil {
			p.line(f.name, "not read")
		} else {
			p.line(f.name, "%d bytes", *f.bytes)
		}
	}
	if r.Slots != nil {
		p.heading("superblock slots")
	}
	for _, s := range r.Slots {
		text := s.State
		if s.Why != "" {
			text += ": " + s.Why
		}
		if s.Format != "" {
			text += fmt.Sprintf(", sequence %d, format %s, features %#x incompatible, %#x read-only-compatible", s.Sequence, s.Format, s.IncompatibleBits, s.ReadOnlyCompatibles)
		}
		p.line(s.Slot, "%s", text)
	}
	if r.Superblock != nil {
		r.Superblock.print(p)
	}
	r.printTables(p)
	printProblems(p, r.Problems)
	return p.Flush()
}

func (s *superReport) print(p page) {
	p.heading("superblock")
	p.line("site", s.Site)
	p.line("volume", s.Volume)
	p.line("leg", "%s of node %s", s.Leg, s.Node)
	p.line("other leg", s.OtherLeg)
	p.line("state", s.State)
	reason := s.Reason
	if s.ReasonCode != 0 {
		reason = fmt.Sprintf("fault %d: %s", s.ReasonCode, s.Reason)
	}
	p.line("reason", "%s", reason)
	p.line("flags", strings.Join(s.Flags, " "))
	p.line("volume size", "%d bytes", s.VolumeBytes)
	p.line("meta is for", "%d bytes, %d groups", s.MetaForBytes, s.Groups)
	p.line("data at last open", "%d bytes", s.DataBytesAtOpen)
	p.line("grant", "epoch %d, legs %s, version %d, owner %s", s.GrantEpoch, strings.Join(s.Legs, ""), s.LegsVersion, s.Owner)
	p.line("current generation", s.Current)
	p.line("base generation", s.Base)
	p.line("sync source", s.SyncSource)
	p.line("history", strings.Join(s.History, " "))
	p.line("resync", "id %d, at block %d, flags %s", s.ResyncID, s.ResyncCursor, orNone(strings.Join(s.ResyncFlags, " ")))
	p.line("last proof", "epoch %d, time %s, root %s", s.ProofEpoch, orNone(s.ProofTime), orNone(s.ProofRoot))
	p.line("unclean opens", "%d", s.UncleanOpens)
	p.line("last boot", s.Boot)
	p.line("software", "%s", s.Software)
	p.line("errors", "%d read, %d sum, %d write, %d sync", s.ReadErrors, s.SumErrors, s.WriteErrors, s.SyncErrors)
	damaged := make([]int64, 0, len(s.Damaged))
	for _, d := range s.Damaged {
		damaged = append(damaged, d.Block)
	}
	p.line("damaged blocks", "%d%s", len(damaged), listed(damaged))
	p.line("log", "%d blocks, %d slots, sequences from %d count", s.LogBlocks, s.LogSlots, s.LogFirst)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (r *dumpReport) printTables(p page) {
	if l := r.Log; l != nil {
		p.heading("activity log")
		text := fmt.Sprintf("%d valid, %d empty, %d invalid, %d unreadable", l.Valid, l.Empty, l.Invalid, l.Unreadable)
		if l.Valid > 0 {
			text += fmt.Sprintf("; sequences %d to %d, of which %d blocks count", l.First, l.Last, l.Counting)
		}
		p.line("blocks", "%s", text)
		if l.Lost {
			p.line("lost", "yes: %s", l.LostWhy)
			p.line("hot extents", "all")
		} else {
			p.line("lost", "no")
			p.line("hot extents", "%d%s", len(l.Hot), listed(l.Hot))
		}
	}
	if d := r.Dirty; d != nil {
		p.heading("dirty map")
		p.line("dirty", "%d of %d blocks when the leg is opened; %d stored", d.Blocks, d.Total, d.Stored)
	}
	if m := r.MapPages; m != nil {
		p.line("map pages", "%d, of which %d are invalid", m.Total, len(m.Invalid))
		for _, b := range m.Invalid[:min(len(m.Invalid), limitDefault)] {
			p.line("", "group %d, from extent %d: %s", b.Group, b.FirstExtent, b.Why)
		}
	}
	if r.SumPages != nil {
		p.heading("sums")
		r.SumPages.print(p)
		p.line("blocks with a sum", "%d", r.SumPages.KnownBlocks)
	}
}

func (s *sumPages) print(p page) {
	p.line("sum pages", "%d: %d known, %d unknown, %d suspended by the log, %d contradict their CRC, %d unreadable",
		s.Total, s.Known, s.Unknown, s.Suspended, s.Contradicting, s.Unreadable)
	if len(s.Lost) > 0 {
		p.line("lost for extents", "%d%s", len(s.Lost), listed(s.Lost))
	}
}

// listed is the beginning of a list, for people.
func listed(extents []int64) string {
	const most = 64
	if len(extents) == 0 {
		return ""
	}
	text := strings.Trim(fmt.Sprint(extents[:min(len(extents), most)]), "[]")
	if len(extents) > most {
		text += " …"
	}
	return ": " + text
}

func printProblems(p page, list []problem) {
	p.heading(fmt.Sprintf("wrong: %d", len(list)))
	for _, f := range list {
		p.line(f.Kind, "%s", f.What)
		p.line("", "why: %s", f.Why)
		p.line("", "next: %s", f.Next)
	}
}
