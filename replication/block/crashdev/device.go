// Package crashdev is a block.Device in memory that loses power on demand and fails on demand. It runs wherever
// the real one does and passes the same conformance suite, so that the engine, the metadata and the whole
// system can be crashed at every step of every write, thousands of times a second.
//
// It keeps two things apart: what is durable (a Durable write that returned, or anything that returned before a
// Sync that returned) and what is pending. Cut makes the device that a power cut at this very moment leaves:
// all that is durable, and of the pending writes whatever the caller's choice or seed lets arrive, sector by
// sector (512 bytes), so that writes are lost, kept, reordered and torn. The device that was cut goes on
// untouched, so one run can be cut at many points and in many ways.
//
// A Hook sees each call while it is in flight, after its bytes may have reached the medium and before they
// must have: a cut taken there is a cut in the middle of the call. A hook that returns an error makes the call
// fail; one that blocks is a disk that hangs. After a failed write or sync the device is dead, as block
// demands; what the failed call wrote stays pending, because a real disk may have done it or not.
//
// It refuses nothing that block.File accepts and accepts nothing that it refuses. It is for tests and
// simulation; memory is what was ever written.
package crashdev

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"

	"duet/replication/block"
)

// SectorBytes is the largest piece that a cut never tears.
const SectorBytes = 512

const sectorsPerUnit = block.Unit / SectorBytes

// Device is one disk object in memory.
type Device struct {
	size int64

	mu      sync.Mutex
	seq     uint64                      // numbers writes; a sector keeps the newest
	now     map[int64]*[block.Unit]byte // what a read sees; blocks are replaced, never changed
	durable map[int64]*unit             // likewise
	pending []*write
	hooks   []func(Op) error
	dead    error
	closed  bool
}

// unit is a durable block: bytes, and which write each sector is from.
type unit struct {
	bytes [block.Unit]byte
	from  [sectorsPerUnit]uint64
}

// write is one that may still be lost.
type write struct {
	seq      uint64
	off      int64
	data     []byte
	returned bool // before that, no Sync covers it
}

// New makes a device full of zeroes. The size must be a multiple of block.Unit.
func New(size int64) *Device {
	if size < 0 || size%block.Unit != 0 {
		panic(fmt.Sprintf("crashdev.New(%d): not a multiple of %d", size, block.Unit))
	}
	return &Device{size: size, now: map[int64]*[block.Unit]byte{}, durable: map[int64]*unit{}}
}

// Size is the capacity in bytes.
func (d *Device) Size() int64 { return d.size }

// ReadAt sees every write that was issued before, durable or not.
func (d *Device) ReadAt(p []byte, off int64) error {
	if err := block.CheckBuffer(p, off, d.size); err != nil {
		return err
	}
	if err := d.alive(); err != nil {
		return err
	}
	if err := d.run(Op{Kind: Read, Off: off, Len: int64(len(p))}); err != nil {
		return fmt.Errorf("read crashdev at %d+%d: %w", off, len(p), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := 0; at < len(p); at += block.Unit {
		if b := d.now[(off+int64(at))/block.Unit]; b != nil {
			copy(p[at:], b[:])
		} else {
			clear(p[at : at+block.Unit])
		}
	}
	return nil
}

// WriteAt writes p at off.
func (d *Device) WriteAt(p []byte, off int64, dur block.Durability) error {
	if err := block.CheckBuffer(p, off, d.size); err != nil {
		return err
	}
	return d.write(Op{Kind: Write, Off: off, Len: int64(len(p)), Durability: dur}, append([]byte(nil), p...))
}

// Zero writes zeroes.
func (d *Device) Zero(off, n int64, dur block.Durability) error {
	if err := block.CheckRange(off, n, d.size); err != nil {
		return err
	}
	return d.write(Op{Kind: Zero, Off: off, Len: n, Durability: dur}, make([]byte, n))
}

// Sync makes durable what had returned before it was called.
func (d *Device) Sync() error {
	if err := d.alive(); err != nil {
		return err
	}
	d.mu.Lock()
	covered := make([]*write, 0, len(d.pending))
	for _, w := range d.pending {
		if w.returned {
			covered = append(covered, w)
		}
	}
	d.mu.Unlock()
	if err := d.run(Op{Kind: Sync}); err != nil {
		return d.kill(fmt.Errorf("sync crashdev: %w", err))
	}
	return d.settle(covered)
}

// Close makes every later call fail with block.ErrClosed. It syncs nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return block.ErrClosed
	}
	d.closed = true
	return nil
}

func (d *Device) write(op Op, data []byte) error {
	if err := block.CheckDurability(op.Durability); err != nil {
		return err
	}
	if err := d.alive(); err != nil {
		return err
	}
	w := d.begin(op.Off, data)
	if err := d.run(op); err != nil {
		return d.kill(fmt.Errorf("%s crashdev at %d+%d: %w", op.Kind, op.Off, op.Len, err))
	}
	if op.Durability == block.Durable {
		return d.settle([]*write{w})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w.returned = true
	return d.dead
}

// begin puts a write in flight: reads see it, a cut may lose it.
func (d *Device) begin(off int64, data []byte) *write {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	w := &write{seq: d.seq, off: off, data: data}
	d.pending = append(d.pending, w)
	for at := 0; at < len(data); at += block.Unit {
		d.now[(off+int64(at))/block.Unit] = (*[block.Unit]byte)(data[at:])
	}
	return w
}

// settle makes writes durable and forgets them as pending.
func (d *Device) settle(done []*write) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead != nil {
		return d.dead
	}
	settled := make(map[*write]bool, len(done))
	for _, w := range done {
		settled[w] = true
		for n := range len(w.data) / block.Unit {
			d.keep(w, n, allSectors)
		}
	}
	left := d.pending[:0:0]
	for _, w := range d.pending {
		if !settled[w] {
			left = append(left, w)
		}
	}
	d.pending = left
	return nil
}

// allSectors is the mask of a whole unit.
const allSectors = 1<<sectorsPerUnit - 1

// keep lets sectors of the n-th unit of a write reach the medium, except where a newer one is there.
func (d *Device) keep(w *write, n int, sectors uint8) {
	if sectors == 0 {
		return
	}
	at := w.off/block.Unit + int64(n)
	u := new(unit) // a copy: devices that were cut share their blocks
	if old := d.durable[at]; old != nil {
		*u = *old
	}
	for s := range sectorsPerUnit {
		if sectors>>s&1 == 1 && u.from[s] <= w.seq {
			u.from[s] = w.seq
			copy(u.bytes[s*SectorBytes:(s+1)*SectorBytes], w.data[n*block.Unit+s*SectorBytes:])
		}
	}
	d.durable[at] = u
}

func (d *Device) alive() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return block.ErrClosed
	}
	return d.dead
}

func (d *Device) kill(cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead == nil {
		d.dead = block.Dead(cause)
	}
	return d.dead
}

// Cut is the device that a power cut now would leave, chosen by seed: nothing pending arrives, all of it, whole
// writes at random, or sectors at random.
func (d *Device) Cut(seed uint64) *Device {
	r := rand.New(rand.NewPCG(seed, 0x63757421))
	style := r.IntN(4)
	last, whole := -1, false
	return d.CutPick(func(p Pending) bool {
		if p.Write != last {
			last, whole = p.Write, r.IntN(2) == 0
		}
		switch style {
		case 0:
			return false
		case 1:
			return true
		case 2:
			return whole
		default:
			return r.IntN(2) == 0
		}
	})
}

// Pending names one sector that a cut may lose.
type Pending struct {
	Write  int   // index among the pending writes, oldest first
	Sector int   // within the write
	Off    int64 // on the device, in bytes
}

// CutPick is Cut with the caller's choice: pick says which pending sectors arrive.
func (d *Device) CutPick(pick func(Pending) bool) *Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := New(d.size)
	after.seq = d.seq
	maps.Copy(after.durable, d.durable)
	for i, w := range d.pending {
		for n := range len(w.data) / block.Unit {
			var kept uint8
			for s := n * sectorsPerUnit; s < (n+1)*sectorsPerUnit; s++ {
				if pick(Pending{Write: i, Sector: s, Off: w.off + int64(s)*SectorBytes}) {
					kept |= 1 << (s % sectorsPerUnit)
				}
			}
			after.keep(w, n, kept)
		}
	}
	for n, u := range after.durable {
		after.now[n] = &u.bytes
	}
	return after
}

// PendingWrites is the number of sectors of each pending write, oldest first.
func (d *Device) PendingWrites() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := make([]int, len(d.pending))
	for i, w := range d.pending {
		n[i] = len(w.data) / SectorBytes
	}
	return n
}

// Contents is a copy of what a read of everything would see.
func (d *Device) Contents() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]byte, d.size)
	for n, b := range d.now {
		copy(all[n*block.Unit:], b[:])
	}
	return all
}
