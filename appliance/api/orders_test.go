package api_test

import (
	"testing"

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
	if _, err := c.Leave(ctx, "b", api.Leaving{Reason: "x"}); code(err) != "VM-6003" {
		t.Errorf("the other node: %v", err)
	}
}
