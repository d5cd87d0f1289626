package block

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Watch is a Device whose requests can be measured, and given up when the one below does not answer: a call into the kernel
// cannot be taken back, so each runs in a ring or in a goroutine of its own, and only the waiting for it ends.
//
// What a given-up read brings later goes into memory that nobody else has. A given-up write may take the caller's memory as it is
// then: after Abandon the device is dead, and whoever uses what is below it again waits for Close first.
type Watch struct {
	below Device

	mu      sync.Mutex
	running map[*watched]struct{}
	ended   *sync.Cond    // none is running
	dead    error         // set before gone is closed
	gone    chan struct{} // closed by Abandon

	window [windows]latencies // by quarter of the time that is looked back on
	now    atomic.Uint32
	ticks  int
}

// watched is one request.
type watched struct {
	done  chan error
	began time.Time
	ticks int // seen by Tick; under the watch's mu
}

const (
	windows     = 5
	windowTicks = 4 // so that 20 ticks are looked back on
)

// latencies counts requests by the logarithm of their microseconds.
type latencies [40]atomic.Uint32

var requests = sync.Pool{New: func() any { return &watched{done: make(chan error, 1)} }}

// NewWatch watches a device, which belongs to it from here on.
func NewWatch(below Device) *Watch {
	w := &Watch{below: below, running: map[*watched]struct{}{}, gone: make(chan struct{})}
	w.ended = sync.NewCond(&w.mu)
	return w
}

// ReadAt is Device.ReadAt.
func (w *Watch) ReadAt(p []byte, off int64) error {
	if err := CheckBuffer(p, off, w.below.Size()); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), BufferMax)
		if err := w.read(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// read has a buffer of its own: when it is given up, the kernel may still write there.
func (w *Watch) read(p []byte, off int64) error {
	own := Get(len(p))
	free := func() { Put(own) }
	finished, err, begun := w.follow(func(r interruptible) *underWay { return r.beginRead(own, off) }, free)
	if !begun {
		finished, err = w.do(func() error { return w.below.ReadAt(own, off) }, free)
	}
	if finished {
		copy(p, own)
		Put(own)
	}
	return err
}

// WriteAt is Device.WriteAt.
func (w *Watch) WriteAt(p []byte, off int64, d Durability) error {
	if d == Cached {
		if _, err, begun := w.follow(func(r interruptible) *underWay { return r.beginWrite(p, off) }, nil); begun {
			return err
		}
	}
	_, err := w.do(func() error { return w.below.WriteAt(p, off, d) }, nil)
	return err
}

// Zero is Device.Zero.
func (w *Watch) Zero(off, n int64, d Durability) error {
	_, err := w.do(func() error { return w.below.Zero(off, n, d) }, nil)
	return err
}

// Sync is Device.Sync.
func (w *Watch) Sync() error {
	_, err := w.do(w.below.Sync, nil)
	return err
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
	defer w.mu.Unlock()
	if w.dead == nil {
		w.dead = fmt.Errorf("%w: %w", ErrDead, cause)
		close(w.gone)
	}
}

// interruptible is a Device with requests whose waiting can end without a goroutine for each.
type interruptible interface {
	beginRead(p []byte, off int64) *underWay
	beginWrite(p []byte, off int64) *underWay
}

// waitSlice is how often a request that takes long looks whether it was given up.
const waitSlice = 50 * time.Millisecond

// follow is do for a request that the device below can begin; begun is false when it cannot.
func (w *Watch) follow(begin func(interruptible) *underWay, late func()) (finished bool, err error, begun bool) {
	below, can := w.below.(interruptible)
	if !can {
		return false, nil, false
	}
	w.mu.Lock()
	dead := w.dead
	w.mu.Unlock()
	if dead != nil {
		return false, nil, false // do says so
	}
	u := begin(below)
	if u == nil {
		return false, nil, false
	}
	r := requests.Get().(*watched)
	r.began, r.ticks = time.Now(), 0
	w.mu.Lock()
	w.running[r] = struct{}{}
	w.mu.Unlock()
	for {
		done, err := u.wait(waitSlice)
		if done {
			w.end(r)
			requests.Put(r)
			return true, err, true
		}
		select {
		case <-w.gone:
			go func() {
				for done := false; !done; {
					done, _ = u.wait(0) //nolint:errcheck // nobody wants to know any more
				}
				w.end(r)
				requests.Put(r)
				if late != nil {
					late()
				}
			}()
			return false, w.dead, true
		default:
		}
	}
}

// do runs a request and says whether it ended. After one that did not, late is called when it does.
func (w *Watch) do(request func() error, late func()) (finished bool, err error) {
	r := requests.Get().(*watched)
	r.began, r.ticks = time.Now(), 0
	w.mu.Lock()
	if w.dead != nil {
		w.mu.Unlock()
		requests.Put(r)
		if late != nil {
			late()
		}
		return false, w.dead
	}
	w.running[r] = struct{}{}
	w.mu.Unlock()
	go func() {
		err := request()
		w.end(r)
		r.done <- err
	}()
	select {
	case err = <-r.done:
		requests.Put(r)
		return true, err
	case <-w.gone:
		go func() {
			<-r.done
			requests.Put(r)
			if late != nil {
				late()
			}
		}()
		return false, w.dead
	}
}

func (w *Watch) end(r *watched) {
	us := uint64(time.Since(r.began).Microseconds())
	w.window[w.now.Load()][min(bits.Len64(us), len(latencies{})-1)].Add(1)
	w.mu.Lock()
	if delete(w.running, r); len(w.running) == 0 {
		w.ended.Broadcast()
	}
	w.mu.Unlock()
}

// Tick is to be called at a steady pace. oldest is in how many ticks the oldest request that is under way was seen; p50 what half of
// those took at most that ended within the last 20 ticks, within a factor of two, and 0 if none did.
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
			return time.Duration(1<<k) * time.Microsecond
		}
	}
	return 0
}
