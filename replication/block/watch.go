package block

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"duet/replication/internal/batch"
)

// Watch is a Device whose requests can be measured, and given up when the one below does not answer: a call into the kernel
// cannot be taken back, so only the waiting for it ends.
//
// What a given-up read brings later goes into memory that nobody else has, and a given-up Durable write takes what it was given. A Cached one
// may take the caller's memory as it is then: after Abandon the device is dead, and whoever uses what is below it again waits for Close
// first.
//
// BeginRead and BeginWrite do not wait at all. Over a File they go through its queue; other devices, and other kinds of request, get a
// goroutine each.
type Watch struct {
	below Device

	mu      sync.Mutex
	running map[*watched]struct{}
	ended   *sync.Cond // none is running
	dead    error

	window [windows]latencies // by quarter of the time that is looked back on
	now    atomic.Uint32
	ticks  int
}

// watched is one request.
type watched struct {
	tell    func(b *batch.Batch, err error, ended bool) // called once; not ended: it was given up, and goes on
	late    func()                                      // called when it ends after that; nil: nobody cares
	began   time.Time
	counts  bool // among the latencies: a write or a sync
	ticks   int  // seen by Tick
	givenUp bool // this and ticks: under the watch's mu
}

const (
	windows     = 5
	windowTicks = 4 // so that 20 ticks are looked back on
)

// latencies counts writes and syncs by the logarithm of their microseconds.
type latencies [40]atomic.Uint32

// NewWatch watches a device, which belongs to it from here on.
func NewWatch(below Device) *Watch {
	w := &Watch{below: below, running: map[*watched]struct{}{}}
	w.ended = sync.NewCond(&w.mu)
	return w
}

// queued is a Device with requests that end by themselves.
type queued interface {
	beginRead(b *batch.Batch, p []byte, off int64, end func(*batch.Batch, error)) bool
	beginWrite(b *batch.Batch, p []byte, off int64, end func(*batch.Batch, error)) bool
	beginSync(b *batch.Batch, end func(*batch.Batch, error)) bool
}

// BeginRead reads n bytes, at most BufferMax, into a buffer of the pool, which belongs to done when there is no error. It does not
// wait: the request goes out when b ends. done is called once, perhaps before BeginRead returns, and must not wait either.
func (w *Watch) BeginRead(b *batch.Batch, off int64, n int, done func(*batch.Batch, []byte, error)) {
	if err := CheckRange(off, int64(n), w.below.Size()); err != nil {
		done(b, nil, err)
		return
	}
	own := Get(n) // when the request is given up, the kernel may still write there
	r := w.begin(b, func(b *batch.Batch, err error, ended bool) {
		if err != nil {
			if ended {
				Put(own)
			}
			done(b, nil, err)
			return
		}
		done(b, own, nil)
	}, func() { Put(own) }, false)
	if r == nil {
		return
	}
	end := func(b *batch.Batch, err error) { w.end(b, r, err) }
	if below, ok := w.below.(queued); ok && below.beginRead(b, own, off, end) {
		return
	}
	w.spawn(r, func() error { return w.below.ReadAt(own, off) })
}

// BeginWrite is WriteAt that does not wait: the request goes out when b ends. done is called once, perhaps before BeginWrite returns,
// and must not wait. p is not to be changed until then.
func (w *Watch) BeginWrite(b *batch.Batch, p []byte, off int64, d Durability, done func(*batch.Batch, error)) {
	if d == Durable && len(p) > 0 && len(p) <= BufferMax {
		w.beginDurable(b, p, off, done)
		return
	}
	r := w.begin(b, func(b *batch.Batch, err error, _ bool) { done(b, err) }, nil, true)
	if r == nil {
		return
	}
	end := func(b *batch.Batch, err error) { w.end(b, r, err) }
	if below, ok := w.below.(queued); ok && d == Cached && below.beginWrite(b, p, off, end) {
		return
	}
	w.spawn(r, func() error { return w.below.WriteAt(p, off, d) })
}

// beginDurable writes from memory of its own: what records the state of a leg is written so, and must not become whatever its caller's
// memory holds when the kernel gets to it.
func (w *Watch) beginDurable(b *batch.Batch, p []byte, off int64, done func(*batch.Batch, error)) {
	if err := CheckBuffer(p, off, w.below.Size()); err != nil {
		done(b, err)
		return
	}
	own := Get(len(p))
	copy(own, p)
	r := w.begin(b, func(b *batch.Batch, err error, ended bool) {
		if ended {
			Put(own)
		}
		done(b, err)
	}, func() { Put(own) }, true)
	if r != nil {
		w.spawn(r, func() error { return w.below.WriteAt(own, off, Durable) })
	}
}

// BeginSync is Sync that does not wait; it goes out when b ends. done is called once, perhaps before BeginSync returns, and must not
// wait.
func (w *Watch) BeginSync(b *batch.Batch, done func(*batch.Batch, error)) {
	r := w.begin(b, func(b *batch.Batch, err error, _ bool) { done(b, err) }, nil, true)
	if r == nil {
		return
	}
	end := func(b *batch.Batch, err error) { w.end(b, r, err) }
	if below, ok := w.below.(queued); ok && below.beginSync(b, end) {
		return
	}
	w.spawn(r, w.below.Sync)
}

// ReadAt is Device.ReadAt.
func (w *Watch) ReadAt(p []byte, off int64) error {
	if err := CheckBuffer(p, off, w.below.Size()); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), BufferMax)
		err := wait(func(b *batch.Batch, done func(error)) {
			w.BeginRead(b, off, n, func(_ *batch.Batch, own []byte, err error) {
				if err == nil {
					copy(p, own)
					Put(own)
				}
				done(err)
			})
		})
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// WriteAt is Device.WriteAt.
func (w *Watch) WriteAt(p []byte, off int64, d Durability) error {
	return wait(func(b *batch.Batch, done func(error)) {
		w.BeginWrite(b, p, off, d, func(_ *batch.Batch, err error) { done(err) })
	})
}

// Zero is Device.Zero.
func (w *Watch) Zero(off, n int64, d Durability) error {
	return wait(func(b *batch.Batch, done func(error)) {
		if r := w.begin(b, func(_ *batch.Batch, err error, _ bool) { done(err) }, nil, true); r != nil {
			w.spawn(r, func() error { return w.below.Zero(off, n, d) })
		}
	})
}

// Sync is Device.Sync.
func (w *Watch) Sync() error {
	return wait(func(b *batch.Batch, done func(error)) {
		w.BeginSync(b, func(_ *batch.Batch, err error) { done(err) })
	})
}

// wait begins a request and waits for its end.
func wait(begin func(b *batch.Batch, done func(error))) error {
	answer := make(chan error, 1)
	var b batch.Batch
	begin(&b, func(err error) { answer <- err })
	b.End()
	return <-answer
}

// Size is Device.Size.
func (w *Watch) Size() int64 { return w.below.Size() }

// Close is Device.Close: it waits for what was given up, too.
func (w *Watch) Close() error {
	w.mu.Lock()
	for len(w.running) > 0 {
		w.ended.Wait()
	}
	w.mu.Unlock()
	return w.below.Close()
}

// Abandon gives up every request that is under way, and the device: it is dead, with this cause. The first call counts.
func (w *Watch) Abandon(cause error) {
	w.mu.Lock()
	if w.dead != nil {
		w.mu.Unlock()
		return
	}
	w.dead = fmt.Errorf("%w: %w", ErrDead, cause)
	var given []*watched
	for r := range w.running {
		r.givenUp = true
		given = append(given, r)
	}
	w.mu.Unlock()
	var b batch.Batch
	for _, r := range given {
		r.tell(&b, w.dead, false)
	}
	b.End()
}

// begin counts a request in, or tells it that the device is dead.
func (w *Watch) begin(b *batch.Batch, tell func(*batch.Batch, error, bool), late func(), counts bool) *watched {
	r := &watched{tell: tell, late: late, began: time.Now(), counts: counts}
	w.mu.Lock()
	dead := w.dead
	if dead == nil {
		w.running[r] = struct{}{}
	}
	w.mu.Unlock()
	if dead != nil {
		tell(b, dead, true)
		return nil
	}
	return r
}

// spawn runs a request in a goroutine of its own.
func (w *Watch) spawn(r *watched, request func() error) {
	go func() {
		var b batch.Batch
		w.end(&b, r, request())
		b.End()
	}()
}

// end counts a request out and tells its end, unless nobody waits for that any more.
func (w *Watch) end(b *batch.Batch, r *watched, err error) {
	if r.counts {
		w.count(time.Since(r.began))
	}
	w.mu.Lock()
	givenUp := r.givenUp
	if delete(w.running, r); len(w.running) == 0 {
		w.ended.Broadcast()
	}
	w.mu.Unlock()
	switch {
	case !givenUp:
		r.tell(b, err, true)
	case r.late != nil:
		r.late()
	}
}

// count notes how long a request took.
func (w *Watch) count(d time.Duration) {
	w.window[w.now.Load()][min(bits.Len64(uint64(d.Microseconds())), len(latencies{})-1)].Add(1)
}

// Tick is to be called at a steady pace. oldest is in how many ticks the oldest request that is under way was seen; p50 what half of the
// writes and syncs took at least that ended within the last 20 ticks, within a factor of two, and 0 if none did. Reads do not count: two
// legs are compared by it, and only what is written goes to both.
func (w *Watch) Tick() (oldest int, p50 time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.running {
		r.ticks++
		oldest = max(oldest, r.ticks)
	}
	if w.ticks++; w.ticks%windowTicks == 0 {
		next := (w.now.Load() + 1) % windows
		for i := range w.window[next] {
			w.window[next][i].Store(0)
		}
		w.now.Store(next)
	}
	return oldest, w.half()
}

func (w *Watch) half() time.Duration {
	var sum latencies
	total := uint32(0)
	for i := range w.window {
		for k := range sum {
			n := w.window[i][k].Load()
			sum[k].Add(n)
			total += n
		}
	}
	below := uint32(0)
	for k := range sum {
		if below += sum[k].Load(); total > 0 && 2*below >= total {
			return max(1<<k/2*time.Microsecond, time.Microsecond)
		}
	}
	return 0
}
