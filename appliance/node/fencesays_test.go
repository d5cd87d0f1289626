package node

import (
	"slices"
	"testing"

	"duet/appliance/api"
)

func TestFenceSays(t *testing.T) {
	bmc := api.FencePath{Node: "b", Kind: "bmc", Target: "192.0.2.12", Fresh: true, ProofAgeMS: 40_000}
	outlets := api.FencePath{Node: "b", Kind: "outlets", Target: "3+4 at 192.0.2.21:502", Fresh: true, ProofAgeMS: 720_000}
	silent := bmc
	silent.Fresh, silent.Fault = false, &api.Fault{Code: "FENCE-5012"}
	never := api.FencePath{Node: "a", Kind: "bmc", ProofAgeMS: -1}
	for want, paths := range map[string][]api.FencePath{
		"b can be fenced: BMC 40 s ago, outlets 3+4 12 min ago":                              {bmc, outlets},
		"b can be fenced: outlets 3+4 12 min ago; not by BMC (FENCE-5012)":                   {silent, outlets},
		"b cannot be fenced for certain: BMC (FENCE-5012)":                                   {silent},
		"a cannot be fenced for certain: BMC (not proven yet)|b can be fenced: BMC 40 s ago": {bmc, never},
		"": {},
	} {
		got := fenceSays(paths)
		var text string
		for i, s := range got {
			if i > 0 {
				text += "|"
			}
			text += s
		}
		if text != want || slices.Contains(got, "") {
			t.Errorf("%q, want %q", text, want)
		}
	}
}
