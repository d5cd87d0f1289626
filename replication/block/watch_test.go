package block_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"duet/replication/block"
	"duet/replication/block/crashdev"
	"duet/replication/block/internal/devicetest"
)

func TestWatchConforms(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		devicetest.Run(t, func(*testing.T) block.Device { return block.NewWatch(crashdev.New(devicetest.SizeBytes)) })
	})
	t.Run("file", func(t *testing.T) {
		devicetest.Run(t, func(t *testing.T) block.Device { return block.NewWatch(openFile(t)) })
	})
}

// hanging is a watched device whose requests of some kinds hang until they are let go.
func hanging(kinds crashdev.Kind) (w *block.Watch, dev *crashdev.Device, entered chan crashdev.Kind, letGo func()) {
	dev = crashdev.New(devicetest.SizeBytes)
	stop := make(chan struct{})
	entered = make(chan crashdev.Kind, 16)
	dev.Hook(func(op crashdev.Op) error {
		if op.Kind&kinds != 0 {
			entered <- op.Kind
			<-stop
		}
		return nil
	})
	return block.NewWatch(dev), dev, entered, sync.OnceFunc(func() { close(stop) })
}

var errSlow = errors.New("too slow")

// Each kind of request is given up, the device is dead at once, and Close waits for the kernel.
func TestAbandon(t *testing.T) {
	for kind, request := range map[crashdev.Kind]func(block.Device) error{
		crashdev.Read:  func(d block.Device) error { return d.ReadAt(block.Alloc(block.Unit), 0) },
		crashdev.Write: func(d block.Device) error { return d.WriteAt(block.Alloc(block.Unit), 0, block.Cached) },
		crashdev.Zero:  func(d block.Device) error { return d.Zero(0, block.Unit, block.Durable) },
		crashdev.Sync:  block.Device.Sync,
	} {
		w, _, entered, letGo := hanging(kind)
		answer := make(chan error, 1)
		go func() { answer <- request(w) }()
		<-entered
		w.Abandon(errSlow)
		w.Abandon(errors.New("later"))
		if err := <-answer; !errors.Is(err, block.ErrDead) || !errors.Is(err, errSlow) {
			t.Errorf("%s that was given up: %v", kind, err)
		}
		if err := request(w); !errors.Is(err, errSlow) {
			t.Errorf("%s after it: %v", kind, err)
		}
		closed := make(chan error, 1)
		go func() { closed <- w.Close() }()
		select {
		case err := <-closed:
			t.Errorf("closed (%v) while a %s is under way", err, kind)
		case <-time.After(10 * time.Millisecond): // cannot be waited for: nothing happens
		}
		letGo()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
}

// What a read brings that was given up goes nowhere: not into the caller's memory, and not into a buffer that somebody has.
func TestAGivenUpReadBringsNothing(t *testing.T) {
	w, dev, entered, letGo := hanging(crashdev.Read)
	want := bytes.Repeat([]byte{0x5a}, block.Unit)
	full := block.Alloc(block.Unit)
	copy(full, want)
	if err := dev.WriteAt(full, 0, block.Durable); err != nil {
		t.Fatal(err)
	}
	p := block.Alloc(block.Unit)
	answer := make(chan error, 1)
	go func() { answer <- w.ReadAt(p, 0) }()
	<-entered
	w.Abandon(errSlow)
	if err := <-answer; err == nil {
		t.Fatal("read")
	}
	var others [][]byte
	for range 8 {
		b := block.Get(block.Unit)
		clear(b)
		others = append(others, b)
	}
	letGo()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, b := range append(others, p) {
		if !bytes.Equal(b, make([]byte, block.Unit)) {
			t.Error("it came into memory of somebody else")
		}
	}
	for _, b := range others {
		block.Put(b)
	}
}

// A tick sees how long the oldest request is under way, in ticks, and how quick those were that ended.
func TestTick(t *testing.T) {
	w, _, entered, letGo := hanging(crashdev.Sync)
	if oldest, p50 := w.Tick(); oldest != 0 || p50 != 0 {
		t.Errorf("idle: %d, %v", oldest, p50)
	}
	for range 99 {
		if err := w.ReadAt(block.Alloc(block.Unit), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, p50 := w.Tick(); p50 != 0 {
		t.Errorf("reads count: %v", p50)
	}
	for range 9 {
		if err := w.WriteAt(block.Alloc(block.Unit), 0, block.Cached); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	go func() { answer <- w.Sync() }()
	<-entered
	for n := 1; n <= 25; n++ {
		oldest, p50 := w.Tick()
		if oldest != n {
			t.Fatalf("tick %d: oldest %d", n, oldest)
		}
		// The writes are forgotten when 20 ticks have gone.
		if n < 15 && p50 == 0 || n > 20 && p50 != 0 {
			t.Errorf("tick %d: p50 %v", n, p50)
		}
	}
	letGo()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if oldest, _ := w.Tick(); oldest != 0 {
		t.Errorf("oldest %d when all have ended", oldest)
	}
}

// slowWriter is a device that takes what it writes when it is told to.
type slowWriter struct {
	block.Device
	entered, letGo chan struct{}
	took           []byte
}

func (d *slowWriter) WriteAt(p []byte, _ int64, _ block.Durability) error {
	close(d.entered)
	<-d.letGo
	d.took = bytes.Clone(p)
	return nil
}

// Proves: replication.md 9.5. A durable write that was given up takes what it was given, whatever its caller's memory is used for since.
func TestAGivenUpDurableWriteTakesItsOwn(t *testing.T) {
	dev := &slowWriter{crashdev.New(devicetest.SizeBytes), make(chan struct{}), make(chan struct{}), nil}
	w := block.NewWatch(dev)
	p := block.Get(block.Unit)
	copy(p, bytes.Repeat([]byte{0x5a}, block.Unit))
	answer := make(chan error, 1)
	go func() { answer <- w.WriteAt(p, 0, block.Durable) }()
	<-dev.entered
	w.Abandon(errSlow)
	if err := <-answer; !errors.Is(err, errSlow) {
		t.Fatal(err)
	}
	block.Put(p)
	var others [][]byte
	for range 8 {
		b := block.Get(block.Unit)
		clear(b)
		others = append(others, b)
	}
	close(dev.letGo)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dev.took, bytes.Repeat([]byte{0x5a}, block.Unit)) {
		t.Errorf("it took %x", dev.took[:16])
	}
	for _, b := range others {
		block.Put(b)
	}
}
