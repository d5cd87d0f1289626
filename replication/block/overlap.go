package block

import "sync"

// overlap lets one caller wait for the operations that began before it asked, without stopping new ones. It
// counts them in two generations; one waiter at a time turns the generation and waits for the older to drain.
type overlap struct {
	mu      sync.Mutex
	drained *sync.Cond
	current int
	running [2]int
}

// enter counts an operation in and returns its generation.
func (o *overlap) enter() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running[o.current]++
	return o.current
}

// leave counts it out.
func (o *overlap) leave(generation int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running[generation]--
	if o.running[generation] == 0 && o.drained != nil {
		o.drained.Broadcast()
	}
}

// none says that no operation is under way.
func (o *overlap) none() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running[0]+o.running[1] == 0
}

// awaitOlder returns when every operation that entered before has left. Callers are serialised.
func (o *overlap) awaitOlder() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.drained == nil {
		o.drained = sync.NewCond(&o.mu)
	}
	older := o.current
	o.current = 1 - older
	for o.running[older] > 0 {
		o.drained.Wait()
	}
}
