package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// metaOption is SET_META_CONTEXT or LIST_META_CONTEXT as it goes over the wire.
func metaOption(opt uint32, export string, queries ...string) []byte {
	be := binary.BigEndian
	text := func(p []byte, s string) []byte { return append(be.AppendUint32(p, uint32(len(s))), s...) }
	p := be.AppendUint32(text(nil, export), uint32(len(queries)))
	for _, q := range queries {
		p = text(p, q)
	}
	return optionBytes(opt, p)
}

// both selects both contexts.
var both = metaOption(optSetMeta, "disk", "base:allocation", "x-duet:dirty")

// answers are the contexts in the replies of such an option, as "id name".
func answers(replies [][]byte) (out []string) {
	for _, r := range replies {
		out = append(out, fmt.Sprintf("%d %s", binary.BigEndian.Uint32(r), r[4:]))
	}
	return out
}

// Which queries mean what, when they are refused, and when a selection ends.
func TestSelectingContexts(t *testing.T) {
	s, _ := one(t)
	all := []string{"0 base:allocation", "0 x-duet:dirty"}
	c := dial(t, s)
	c.put(both)
	if kind := c.optionReply(); kind != repErrInvalid {
		t.Fatalf("before structured replies: %#x", kind)
	}
	c.put(structured)
	c.acknowledged()
	for _, q := range []struct {
		opt     uint32
		queries []string
		want    []string
	}{
		{optListMeta, nil, all},
		{optListMeta, []string{"base:"}, all[:1]},
		{optListMeta, []string{"x-duet:", "base:", "base:allocation"}, all},
		{optListMeta, []string{"x-duet:dirty"}, all[1:]},
		{optListMeta, []string{"base:alloc", "qemu:", "", ":", "x-duet", strings.Repeat("long", 1000)}, nil},
		{optSetMeta, nil, nil},
		{optSetMeta, []string{"base:", "x-duet:"}, nil},
		{optSetMeta, []string{"qemu:dirty-bitmap:b"}, nil},
		{optSetMeta, []string{"x-duet:dirty", "x-duet:dirty"}, []string{"2 x-duet:dirty"}},
		{optSetMeta, []string{"x-duet:dirty", "what", "base:allocation"}, []string{"1 base:allocation", "2 x-duet:dirty"}},
	} {
		c.put(metaOption(q.opt, "disk", q.queries...))
		if got := answers(c.acknowledged()); !slices.Equal(got, q.want) {
			t.Errorf("option %d, queries %.60q: %q, want %q", q.opt, q.queries, got, q.want)
		}
	}
	for name, bad := range map[string][]byte{
		"empty":              nil,
		"no count":           []byte("\x00\x00\x00\x04disk"),
		"name too long":      []byte("\xff\xff\xff\xffdisk\x00\x00\x00\x00"),
		"queries missing":    []byte("\x00\x00\x00\x04disk\x00\x00\x00\x01"),
		"endless queries":    []byte("\x00\x00\x00\x04disk\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"),
		"query too long":     []byte("\x00\x00\x00\x04disk\x00\x00\x00\x01\xff\xff\xff\xffbase:"),
		"more than it says":  []byte("\x00\x00\x00\x04disk\x00\x00\x00\x00x"),
		"fewer than it says": []byte("\x00\x00\x00\x04disk\x00\x00\x00\x02\x00\x00\x00\x01x"),
	} {
		for _, opt := range []uint32{optListMeta, optSetMeta} {
			c.put(optionBytes(opt, bad))
			if kind := c.optionReply(); kind != repErrInvalid {
				t.Errorf("%s: %#x", name, kind)
			}
		}
	}
	c.put(metaOption(optSetMeta, "nope", "base:allocation"))
	if kind := c.optionReply(); kind != repErrUnknown {
		t.Fatalf("unknown export: %#x", kind)
	}
}

// A selection is good for its export only, and a refused SET forgets the one before.
func TestSelectionEnds(t *testing.T) {
	s := start(t, newMemory(t, map[string]int64{"disk": 1 << 20, "other": 1 << 20}))
	for name, o := range map[string]struct {
		options [][]byte
		status  bool
	}{
		"selected":                      {[][]byte{structured, both}, true},
		"selected, and then listed":     {[][]byte{structured, both, metaOption(optListMeta, "other")}, true},
		"never selected":                {[][]byte{structured}, false},
		"nothing selected":              {[][]byte{structured, both, metaOption(optSetMeta, "disk")}, false},
		"selected for another export":   {[][]byte{structured, metaOption(optSetMeta, "other", "base:allocation")}, false},
		"selected, then a refused one":  {[][]byte{structured, both, metaOption(optSetMeta, "nope", "base:allocation")}, false},
		"selected, then a crippled one": {[][]byte{structured, both, optionBytes(optSetMeta, nil)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s)
			for _, p := range o.options {
				c.put(p)
				for kind := uint32(repMeta); kind == repMeta; {
					kind = c.optionReply()
				}
			}
			c.goOption("disk")
			c.acknowledged()
			c.send(cmdBlockStatus, 0, 1, 0, 4096, nil)
			k := c.chunk()
			if k.kind == chunkStatus != o.status {
				t.Fatalf("%+v", k)
			}
			if !o.status {
				if e, why, _ := k.errorChunk(t); e != eINVAL || why == "" {
					t.Fatalf("error %d %q", e, why)
				}
			}
		})
	}
}

// extents are the descriptors of a chunk, as "length:state".
func (k chunk) extents(t *testing.T, want metaContext) (out []string) {
	t.Helper()
	be := binary.BigEndian
	if k.kind != chunkStatus || be.Uint32(k.data) != uint32(want) {
		t.Fatalf("chunk %+v, want the status of %s", k, want)
	}
	for p := k.data[4:]; len(p) > 0; p = p[8:] {
		out = append(out, fmt.Sprintf("%d:%d", be.Uint32(p), be.Uint32(p[4:])))
	}
	return out
}

// One chunk per context, the last one marked; dirty runs are clipped to what was asked for, to the byte.
func TestBlockStatus(t *testing.T) {
	s, disk := one(t)
	disk.mark(1, 2)                 // 4096..12288
	disk.mark(2047, 1)              // the last block
	for i := range extentsMax / 2 { // more runs than one reply tells of
		disk.mark(10+2*i, 1)
	}
	c := enter(t, s, "disk", structured, both)
	for _, q := range []struct {
		off   uint64
		n     uint32
		flags uint16
		want  string
	}{
		{0, 4096, 0, "4096:0"},
		{0, 8192, 0, "4096:0 4096:1"},
		{0, 40960, 0, "4096:0 8192:1 28672:0"},
		{0, 40960, cmdFlagReqOne, "4096:0"},
		{4096, 40960, cmdFlagReqOne, "8192:1"},
		{8192, 4096, cmdFlagFUA, "4096:1"},
		{4095, 2, 0, "1:0 1:1"},
		{5000, 1, 0, "1:1"},
		{12287, 100, 0, "1:1 99:0"},
		{7 << 20, 1 << 20, 0, "1044480:0 4096:1"},
		{8<<20 - 1, 1, 0, "1:1"},
	} {
		c.send(cmdBlockStatus, q.flags, 3, q.off, q.n, nil)
		first, last := c.chunk(), c.chunk()
		if first.flags != 0 || last.flags != chunkDone || first.cookie != 3 || last.cookie != 3 {
			t.Fatalf("%+v %+v", first, last)
		}
		if got := first.extents(t, baseAllocation); len(got) != 1 || got[0] != fmt.Sprintf("%d:0", q.n) {
			t.Errorf("%+v: allocation %q", q, got)
		}
		if got := strings.Join(last.extents(t, duetDirty), " "); got != q.want {
			t.Errorf("%+v: dirty %q", q, got)
		}
	}
	c.send(cmdBlockStatus, 0, 4, 0, 8<<20, nil)
	c.chunk()
	if got := c.chunk().extents(t, duetDirty); len(got) != extentsMax {
		t.Errorf("%d extents, limit %d", len(got), extentsMax)
	}
	for _, bad := range []struct {
		off   uint64
		n     uint32
		flags uint16
	}{{0, 0, 0}, {8 << 20, 1, 0}, {4096, 8 << 20, 0}, {0, 4096, cmdFlagDF}, {0, 4096, 1 << 5}, {1 << 63, 1, 0}} {
		c.send(cmdBlockStatus, bad.flags, 5, bad.off, bad.n, nil)
		if e, why, _ := c.chunk().errorChunk(t); e != eINVAL || why == "" {
			t.Errorf("%+v: error %d %q", bad, e, why)
		}
	}
	disk.hook(func(context.Context, string, int64, int64) error { return syscall.EIO })
	c.send(cmdBlockStatus, 0, 6, 0, 4096, nil)
	if e, _, _ := c.chunk().errorChunk(t); e != eIO {
		t.Errorf("error %d", e)
	}
	simple := enter(t, s, "disk")
	simple.send(cmdBlockStatus, 0, 7, 0, 4096, nil)
	simple.expect(7, eINVAL, 0)
}

// plain is a volume that knows nothing of another leg.
type plain struct{ Volume }

type plainBackend struct{ *memory }

func (b plainBackend) Open(ctx context.Context, name string) (Volume, error) {
	v, err := b.memory.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return plain{v}, nil
}

// A volume without a dirty map offers none.
func TestNoDirtyMapNoContext(t *testing.T) {
	m := newMemory(t, map[string]int64{"disk": 1 << 20})
	s := startOn(t, m, plainBackend{m})
	c := dial(t, s)
	c.put(structured)
	c.acknowledged()
	c.put(metaOption(optListMeta, "disk"))
	if got := answers(c.acknowledged()); !slices.Equal(got, []string{"0 base:allocation"}) {
		t.Fatalf("%q", got)
	}
	c.put(both)
	if got := answers(c.acknowledged()); !slices.Equal(got, []string{"1 base:allocation"}) {
		t.Fatalf("%q", got)
	}
	c.goOption("disk")
	c.acknowledged()
	c.send(cmdBlockStatus, 0, 1, 0, 8192, nil)
	if k := c.chunk(); k.flags != chunkDone || !slices.Equal(k.extents(t, baseAllocation), []string{"8192:0"}) {
		t.Fatalf("%+v", k)
	}
}
