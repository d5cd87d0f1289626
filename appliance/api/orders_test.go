package api_test

import (
	"context"
	"testing"
	"time"

	"duet/appliance/api"
	"duet/appliance/api/fakenode"
)

// Orders of people want a reason, and what they name must be whole, also without the command that asks for it.
func TestOrdersWantAReason(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: fakenode.New(), Node: "a"})
	ctx := t.Context()
	named := api.WitnessOrder{Address: "203.0.113.14:7443", Key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
	for what, order := range map[string]func() error{
		"add":      func() error { _, err := c.WitnessAdd(ctx, named); return err },
		"replace":  func() error { _, err := c.WitnessReplace(ctx, api.WitnessOrder{}); return err },
		"test":     func() error { _, err := c.FenceTestLive(ctx, "b", api.Cycling{ConfirmSite: "demo"}); return err },
		"cancel":   func() error { _, err := c.CancelTask(ctx, "x", ""); return err },
		"move":     func() error { _, err := c.MoveVM(ctx, "counter", api.Confirmed{ConfirmSite: "demo"}); return err },
		"leave":    func() error { _, err := c.Leave(ctx, "a", api.Leaving{Reason: "  "}); return err },
		"override": func() error { _, err := c.Override(ctx, api.PeerOffOverride, api.Overriding{Confirm: "x"}); return err },
		"add nobody": func() error {
			_, err := c.WitnessAdd(ctx, api.WitnessOrder{Reason: "x"})
			return err
		},
		"half a name": func() error {
			_, err := c.WitnessReplace(ctx, api.WitnessOrder{Reason: "x", Key: named.Key})
			return err
		},
	} {
		if err := order(); code(err) != "SYS-9006" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Override(ctx, "erase", api.Overriding{Reason: "x"}); code(err) != "SYS-9005" {
		t.Errorf("an override that does not exist: %v", err)
	}
	if _, err := c.Leave(ctx, "b", api.Leaving{Reason: "x", ConfirmSite: "demo"}); code(err) != "VM-6003" {
		t.Errorf("the other node: %v", err)
	}
}

// What stops something that runs wants the name of the site, whatever client orders it; nothing is done without.
func TestOrdersWantTheSite(t *testing.T) {
	n := fakenode.New()
	c, _ := serve(t, api.ServerConfig{Backend: n})
	ctx := t.Context()
	for _, site := range []string{"", "Demo", "other"} {
		given := api.Confirmed{Reason: "x", ConfirmSite: site}
		for what, order := range map[string]func() error{
			"leave": func() error {
				_, err := c.Leave(ctx, "a", api.Leaving{Reason: "x", ConfirmSite: site})
				return err
			},
			"move": func() error { _, err := c.MoveVM(ctx, "counter", given); return err },
			"test": func() error {
				_, err := c.FenceTestLive(ctx, "b", api.Cycling{Reason: "x", ConfirmSite: site})
				return err
			},
		} {
			if err := order(); code(err) != "SITE-1036" {
				t.Errorf("%s, confirmed by %q: %v", what, site, err)
			}
		}
	}
	if vm, err := c.VM(ctx, "counter"); err != nil || vm.Owner != "a" {
		t.Errorf("an order that was not confirmed was carried out: %+v, %v", vm, err)
	}
	if a, err := c.MoveVM(ctx, "counter", api.Confirmed{Reason: "x", ConfirmSite: "demo"}); err != nil || a.VM.Owner != "b" {
		t.Errorf("%+v, %v", a, err)
	}
}

// heldTest is a node whose live test stays at its second step until it is ended.
type heldTest struct{ *fakenode.Node }

func (h heldTest) FenceTestLive(ctx context.Context, _ string, _ bool, _, _ string, progress func(string)) error {
	progress("BMC: power down")
	progress("BMC says off, twice")
	<-ctx.Done()
	return ctx.Err()
}

// Every step of a task that runs says for whom it waits, and until when.
func TestStepsSayForWhomTheyWait(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: heldTest{fakenode.New()}})
	task, err := c.FenceTestLive(t.Context(), "b", api.Cycling{Reason: "new cords", ConfirmSite: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); len(task.Steps) < 2; <-tick.C {
		if task, err = c.Task(t.Context(), task.ID); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", task, err)
		}
	}
	for _, s := range task.Steps {
		if running := s.State == "running"; running != (s.WaitingFor == "node b") || s.Deadline.IsZero() {
			t.Errorf("%+v", s)
		}
	}
}

// A task is cancelled with a reason, which is what its followers see; one that has ended is not.
func TestCancelTask(t *testing.T) {
	c, _ := serve(t, api.ServerConfig{Backend: heldTest{fakenode.New()}})
	given := api.Cycling{Reason: "new cords", ConfirmSite: "demo"}
	task, err := c.FenceTestLive(t.Context(), "b", given)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CancelTask(t.Context(), "none", "x"); code(err) != "SYS-9004" {
		t.Errorf("no such task: %v", err)
	}
	if _, err := c.CancelTask(t.Context(), task.ID, "wrong node"); err != nil {
		t.Fatal(err)
	}
	task = awaitTask(t, c, task.ID)
	if task.State != "failed" || task.Problem == nil || task.Problem.Code != "SYS-9011" || task.Problem.Args["reason"] != "root: wrong node" {
		t.Errorf("%+v", task)
	}
	if _, err := c.CancelTask(t.Context(), task.ID, "again"); code(err) != "SITE-1030" {
		t.Errorf("a task that has ended: %v", err)
	}
	if _, err := c.FenceTestLive(t.Context(), "b", given); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
