package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
	t.live.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		t.end(task, f(ctx, func(s Step) { t.step(task, s) }))
	})
	return task.copied(), nil
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
