package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"duet/replication/block"
	"duet/replication/meta"
)

// checkReport is the JSON of check; its names are for ever. Blocks = checked + unknown + unreadable + missing + listed, when complete.
type checkReport struct {
	Dir      string `json:"dir"`
	Volume   string `json:"volume,omitempty"`
	Leg      string `json:"leg,omitempty"`
	State    string `json:"state,omitempty"`
	Complete bool   `json:"complete"`
	Direct   bool   `json:"direct"` // data came from the medium, not from the page cache

	Blocks      int64 `json:"blocks"`
	Checked     int64 `json:"checked"` // read, and compared with a sum
	Unknown     int64 `json:"unknown"` // read, and there is no sum
	Contradicts int64 `json:"contradicting"`
	Unreadable  int64 `json:"unreadable"`
	Missing     int64 `json:"missing"` // beyond the end of data
	Listed      int64 `json:"listed"`  // read, there is no sum, and the leg has listed it as damaged
	Bad         int64 `json:"bad"`     // contradicting + unreadable + missing + listed

	BadBlocks []badBlock `json:"bad_blocks"` // at most --limit; without those that are missing
	NotListed int64      `json:"bad_blocks_not_listed"`

	InvalidMapPages int       `json:"invalid_map_pages"`
	LogLost         bool      `json:"log_lost"`
	SumPages        *sumPages `json:"sum_pages,omitempty"`
	Problems        []problem `json:"problems"`
	Error           *problem  `json:"error,omitempty"`

	limit int
}

// badBlock is a block of the volume that this leg does not have.
type badBlock struct {
	Block  int64  `json:"block"`
	Byte   int64  `json:"byte"`
	Why    string `json:"why"` // unreadable, contradicts-sum, listed-as-damaged
	Detail string `json:"detail"`
}

const (
	whyUnreadable  = "unreadable"
	whyContradicts = "contradicts-sum"
	whyListed      = "listed-as-damaged"
	pieceBytes     = block.BufferMax
)

func (r *checkReport) failure() *problem   { return r.Error }
func (r *checkReport) problems() []problem { return r.Problems }

// check reads all of a leg.
func check(ctx context.Context, l *leg, failure *problem, limit int, tell *progress) *checkReport {
	r := &checkReport{Dir: l.dir, Direct: l.direct, Problems: []problem{}, BadBlocks: []badBlock{}, Error: failure, limit: limit}
	if failure != nil {
		return r
	}
	i, err := meta.Inspect(l.meta)
	if err != nil {
		r.Error = l.refused(err)
		return r
	}
	s := i.Super
	r.Volume, r.Leg, r.State = s.Volume.String(), s.Leg.String(), s.State.String()
	r.InvalidMapPages, r.LogLost, r.SumPages = len(i.BadPages), i.LogLost != "", &sumPages{Lost: []int64{}}
	r.Blocks = int64(s.VolumeBytes / meta.BlockBytes)
	r.Complete = r.readAll(ctx, l, i, tell)
	if !r.Complete {
		r.Error = cancelled()
	}
	r.Bad = r.Contradicts + r.Unreadable + r.Missing + r.Listed
	r.Problems = append(append(r.Problems, l.findings(i)...), r.SumPages.lostSums()...)
	if n := r.Contradicts + r.Unreadable + r.Listed; n > 0 {
		r.Problems = append(r.Problems, problem{
			"bad-blocks", fmt.Sprintf("blocks bad: %d of %d", n, r.Blocks),
			fmt.Sprintf("%d contradict their sum, %d are unreadable, %d are listed as damaged", r.Contradicts, r.Unreadable, r.Listed),
			"With the other leg in sync duet-mirrord repairs them when they are read: duet volume scrub NAME. Look at the drive",
		})
	}
	return r
}

// readAll goes over the extents; false: ctx ended it.
func (r *checkReport) readAll(ctx context.Context, l *leg, i *meta.Inspection, tell *progress) bool {
	var sums [meta.BlocksPerExtent]uint32
	damaged := map[int64]uint32{}
	for _, d := range i.Super.Damaged {
		damaged[int64(d.Block)] = d.Sum
	}
	there := min(r.Blocks, l.data.Size()/meta.BlockBytes)
	total := there * meta.BlockBytes
	tell.at(0, total)
	for e := range meta.Extents(r.Blocks * meta.BlockBytes) {
		state, _ := i.Sums(e, &sums) //nolint:errcheck // counted by its state
		r.SumPages.count(e, state)
		first := e * meta.BlocksPerExtent
		end := min(first+meta.BlocksPerExtent, r.Blocks)
		for _, sum := range sums[:end-first] {
			if sum != meta.SumUnknown {
				r.SumPages.KnownBlocks++
			}
		}
		r.Missing += end - max(first, min(end, there))
		for b := first; b < min(end, there); b += pieceBytes / meta.BlockBytes {
			n := min(pieceBytes/meta.BlockBytes, min(end, there)-b)
			if !r.readPiece(ctx, l.data, b, sums[b-first:][:n], damaged) {
				return false
			}
			tell.at((b+n)*meta.BlockBytes, total)
		}
	}
	tell.end(total)
	return true
}

// readPiece compares blocks from b on with their sums. What cannot be read at once is read block by block.
func (r *checkReport) readPiece(ctx context.Context, data block.Source, b int64, sums []uint32, damaged map[int64]uint32) bool {
	if ctx.Err() != nil {
		return false
	}
	buf := block.Get(len(sums) * meta.BlockBytes)
	defer block.Put(buf)
	whole := data.ReadAt(buf, b*meta.BlockBytes) == nil
	for i, want := range sums {
		p := buf[i*meta.BlockBytes:][:meta.BlockBytes]
		if !whole {
			if ctx.Err() != nil {
				return false
			}
			if err := data.ReadAt(p, (b+int64(i))*meta.BlockBytes); err != nil {
				r.Unreadable++
				r.bad(b+int64(i), whyUnreadable, cause(err))
				continue
			}
		}
		listed := false
		if want == meta.SumUnknown {
			want, listed = damaged[b+int64(i)]
		}
		switch {
		case want != meta.SumUnknown:
		case !listed:
			r.Unknown++
			continue
		default:
			r.Listed++
			r.bad(b+int64(i), whyListed, "the leg found it damaged, and no sum of it is known")
			continue
		}
		r.Checked++
		if got := meta.SumOf(p); got != want {
			r.Contradicts++
			r.bad(b+int64(i), whyContradicts, fmt.Sprintf("sum %08x, the leg has noted %08x", got, want))
		}
	}
	return true
}

func (r *checkReport) bad(b int64, why, detail string) {
	if len(r.BadBlocks) >= r.limit {
		r.NotListed++
		return
	}
	r.BadBlocks = append(r.BadBlocks, badBlock{b, b * meta.BlockBytes, why, detail})
}

// cause leaves out where it was: that is told beside it.
func cause(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

func (r *checkReport) print(w io.Writer) error {
	p := newPage(w)
	for _, b := range r.BadBlocks {
		if _, err := fmt.Fprintf(w, "block %d at byte %d: %s: %s\n", b.Block, b.Byte, b.Why, b.Detail); err != nil {
			return err
		}
	}
	if r.NotListed > 0 {
		fmt.Fprintf(w, "%d more bad blocks are not listed (--limit %d)\n", r.NotListed, r.limit)
	}
	if r.SumPages == nil {
		return p.Flush()
	}
	p.heading("check of " + r.Dir)
	p.line("leg", "%s of volume %s, %s", r.Leg, r.Volume, r.State)
	if !r.Complete {
		p.line("incomplete", "stopped; the counts are of what was read until then")
	}
	if !r.Direct {
		p.line("page cache", "the file system has no O_DIRECT; what was cached says nothing about the medium")
	}
	p.line("blocks checked", "%d of %d", r.Checked, r.Blocks)
	p.line("blocks unknown", "%d, read without a sum to compare", r.Unknown)
	p.line("blocks bad", "%d: %d contradict their sum, %d unreadable, %d listed as damaged, %d beyond the end of data",
		r.Bad, r.Contradicts, r.Unreadable, r.Listed, r.Missing)
	p.line("invalid map pages", "%d", r.InvalidMapPages)
	lost := "no"
	if r.LogLost {
		lost = "yes"
	}
	p.line("activity log lost", "%s", lost)
	r.SumPages.print(p)
	printProblems(p, r.Problems)
	return p.Flush()
}
