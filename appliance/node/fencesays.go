package node

import (
	"fmt"
	"strings"

	"duet/appliance/api"
	"duet/ipmi/fence"
)

// fenceSays is the proof in one line for each node: "b can be fenced: BMC 40 s ago, outlets 3+4 12 s ago", or why not.
func fenceSays(paths []api.FencePath) []string {
	out := []string{}
	for _, node := range []string{"a", "b"} {
		var can, cannot []string
		for _, p := range paths {
			switch {
			case p.Node != node:
			case p.Fresh:
				can = append(can, pathWords(p)+" "+agoWords(p.ProofAgeMS))
			default:
				cannot = append(cannot, pathWords(p)+" "+whyNot(p))
			}
		}
		switch {
		case len(can) > 0 && len(cannot) > 0:
			out = append(out, fmt.Sprintf("%s can be fenced: %s; not by %s", node, strings.Join(can, ", "), strings.Join(cannot, ", ")))
		case len(can) > 0:
			out = append(out, fmt.Sprintf("%s can be fenced: %s", node, strings.Join(can, ", ")))
		case len(cannot) > 0:
			out = append(out, fmt.Sprintf("%s cannot be fenced for certain: %s", node, strings.Join(cannot, ", ")))
		}
	}
	return out
}

func pathWords(p api.FencePath) string {
	if p.Kind == string(fence.PathBMC) {
		return "BMC"
	}
	outlets, _, _ := strings.Cut(p.Target, " at ")
	return "outlets " + outlets
}

func whyNot(p api.FencePath) string {
	switch {
	case p.Fault != nil:
		return "(" + p.Fault.Code + ")"
	case p.ProofAgeMS < 0:
		return "(not proven yet)"
	default:
		return "(proven " + agoWords(p.ProofAgeMS) + ")"
	}
}

func agoWords(ms int64) string {
	if ms < 120_000 {
		return fmt.Sprintf("%d s ago", ms/1000)
	}
	return fmt.Sprintf("%d min ago", ms/60_000)
}
