//go:build mutants

package membership

import "strings"

// Mutant is the guard that is switched off. Only test binaries built with the tag mutants have it.
var Mutant string

func mutant(id string) bool { return id == Mutant }

// mutateOrder is N14: the Persist of one rule comes after the Send or the Grant that follows it.
func mutateOrder(out []Effect) []Effect {
	what, found := strings.CutPrefix(Mutant, "N14 ")
	if !found || !strings.Contains(orderOf(out), what) {
		return out
	}
	for i := range len(out) - 1 {
		if _, is := out[i].(Persist); !is {
			continue
		}
		for j := i + 1; j < len(out); j++ {
			out[j-1], out[j] = out[j], out[j-1]
			if w := word(out[j-1]); w != "" && strings.HasSuffix(what, w) {
				return out
			}
		}
	}
	return out
}

// orderOf is the list in words: "persist grant prepared".
func orderOf(out []Effect) string {
	words := ""
	for _, e := range out {
		if w := word(e); w != "" {
			words += w + " "
		}
	}
	return words
}

func word(e Effect) string {
	switch e := e.(type) {
	case Persist:
		return "persist"
	case Grant:
		return "grant"
	case Start:
		return "start"
	case Send:
		switch e.Message.(type) {
		case Join:
			return "join"
		case PreparedMsg:
			return "prepared"
		case Commit:
			return "commit"
		case Yield:
			return "yield"
		case Give:
			return "give"
		case Taken:
			return "taken"
		case WDropped:
			return "wdropped"
		case WSet:
			return "wset"
		case DocPrepare:
			return "docprepare"
		case DocPrepared:
			return "docprepared"
		case DocCommit:
			return "doccommit"
		case LegOut:
			return "legout"
		case LegOutOK:
			return "legoutok"
		case LegPrepared:
			return "legprepared"
		case LegCommit:
			return "legcommit"
		}
	}
	return ""
}
