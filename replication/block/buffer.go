package block

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffers come in nine classes, 4 KiB to 1 MiB. Each class owns a reserved range of anonymous memory, outside
// the Go heap: a fresh heap buffer costs more than the write it carries (replication.md section 13), and its zeroing and
// collection grow with the traffic. The range is touched, and so costs memory, only as far as it was ever used
// at once.
const (
	// BufferMax is the largest buffer of the pool and the largest single I/O of the data path.
	BufferMax = 1 << 20
	// classBytesMax bounds what one class keeps; a buffer beyond it comes from the heap and is not kept. It is
	// twice the 32 MiB that a client connection may have in flight.
	classBytesMax = 64 << 20
	classes       = 9
)

// class is the free list of one buffer size.
type class struct {
	mu    sync.Mutex
	arena []byte
	fresh int    // buffers of the arena never handed out
	free  []int  // indices of buffers given back, the warmest last
	out   []bool // handed out now
}

var pool [classes]class

// Alloc makes an aligned, zeroed buffer of n bytes on the heap, for what lives long or is larger than BufferMax.
func Alloc(n int) []byte {
	if n < 0 {
		panic(fmt.Sprintf("block.Alloc(%d)", n))
	}
	raw := make([]byte, n+Unit)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (Unit - 1))
	return raw[skip : skip+n : skip+n]
}

// Get takes an aligned buffer of n bytes, 0 < n ≤ BufferMax, from the pool. Its content is undefined.
func Get(n int) []byte {
	if n <= 0 || n > BufferMax {
		panic(fmt.Sprintf("block.Get(%d): a pool buffer has 1..%d bytes", n, BufferMax))
	}
	k := classOf(n)
	if p := pool[k].take(Unit << k); p != nil {
		return p[:n]
	}
	return Alloc(Unit << k)[:n]
}

// Put gives a buffer of Get back; it must not be used again. Giving one back twice panics: two owners of one
// buffer are two writes with one content.
func Put(p []byte) {
	size := cap(p)
	k := classOf(size)
	if size == 0 || Unit<<k != size {
		panic(fmt.Sprintf("block.Put: capacity %d is no buffer of Get", size))
	}
	pool[k].give(unsafe.Pointer(unsafe.SliceData(p)), size)
}

func classOf(n int) int {
	k := 0
	for k < classes-1 && Unit<<k < n {
		k++
	}
	return k
}

// take returns nil when the class is used up.
func (c *class) take(size int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.fresh
	switch {
	case len(c.free) > 0:
		i = c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
	case c.arena == nil && !c.reserve(size), c.fresh == len(c.out):
		return nil
	default:
		c.fresh++
	}
	c.out[i] = true
	return c.arena[i*size : (i+1)*size : (i+1)*size]
}

// reserve maps the range of the class on its first use. Without it the class lives from the heap.
func (c *class) reserve(size int) bool {
	arena, err := unix.Mmap(-1, 0, classBytesMax, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	c.arena, c.out = arena, make([]bool, classBytesMax/size)
	return true
}

func (c *class) give(p unsafe.Pointer, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := uintptr(unsafe.Pointer(unsafe.SliceData(c.arena)))
	at := uintptr(p)
	if c.arena == nil || at < base || at >= base+uintptr(len(c.arena)) {
		return // from the heap; the collector has it
	}
	i := int(at-base) / size
	if !c.out[i] || (at-base)%uintptr(size) != 0 {
		panic("block.Put: buffer is not handed out")
	}
	c.out[i] = false
	c.free = append(c.free, i)
}

func aligned(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&(Unit-1) == 0
}
