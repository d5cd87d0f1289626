package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"duet/appliance/event"
)

// maxTasks is how many ended tasks are remembered: a person asks about the last, a script about its own.
const maxTasks = 16

// taskTable runs one long action at a time and remembers the last ones.
type taskTable struct {
	node string
	now  func() time.Time

	mu   sync.Mutex
	list []*Task
	ends map[string]context.CancelCauseFunc // by id of a task that runs
	live sync.WaitGroup
}

// start runs f in its own goroutine. While another task runs it is refused with that task's id.
func (t *taskTable) start(ctx context.Context, kind string, limit time.Duration, f func(ctx context.Context, report func(Step)) error) (Task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.list, func(o *Task) bool { return o.State == "running" }); i >= 0 {
		p := fromFault(event.New(event.TaskRunning, "task", t.list[i].ID))
		p.Task = t.list[i].ID
		return Task{}, p
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	now := t.now()
	task := &Task{ID: hex.EncodeToString(id[:]), Kind: kind, State: "running", Node: t.node, Started: now, Deadline: now.Add(limit), Steps: []Step{}}
	t.list = append(t.list, task)
	if len(t.list) > maxTasks {
		t.list = slices.Delete(t.list, 0, 1)
	}
	ctx, end := context.WithCancelCause(ctx)
	if t.ends == nil {
		t.ends = map[string]context.CancelCauseFunc{}
	}
	t.ends[task.ID] = end
	t.live.Go(func() {
		defer end(nil)
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := f(limited, func(s Step) { t.step(task, s) })
		if fault, ok := errors.AsType[*event.Fault](context.Cause(ctx)); ok && err != nil {
			err = fault.Because(err)
		}
		t.end(task, err)
	})
	return task.copied(), nil
}

// cancel ends a task that runs; it is over when it has put back what it must.
func (t *taskTable) cancel(id, reason string) (Task, error) {
	task, err := t.find(id)
	if err != nil {
		return Task{}, err
	}
	t.mu.Lock()
	end, runs := t.ends[id]
	t.mu.Unlock()
	if !runs {
		return Task{}, event.New(event.OrderRefused, "what", "the cancelling of task "+id, "reason", "it has ended: "+task.State, "next", "Look at it: duet task show "+id)
	}
	end(event.New(event.TaskCancelled, "task", id, "reason", reason))
	return t.find(id)
}

// step adds a step or replaces the one of its name.
func (t *taskTable) step(task *Task, s Step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(task.Steps, func(o Step) bool { return o.Name == s.Name }); i >= 0 {
		task.Steps[i] = s
		return
	}
	task.Steps = append(task.Steps, s)
}

func (t *taskTable) end(task *Task, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	task.State = "done"
	delete(t.ends, task.ID)
	if err != nil {
		task.State = "failed"
		task.Problem = AsFault(err, nil)
	}
}

func (t *taskTable) find(id string) (Task, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.list, func(o *Task) bool { return o.ID == id }); i >= 0 {
		return t.list[i].copied(), nil
	}
	return Task{}, event.New(event.UnknownTask, "task", id)
}

func (t *Task) copied() Task {
	c := *t
	c.Steps = slices.Clone(t.Steps)
	return c
}
