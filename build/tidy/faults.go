package tidy

import (
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	faultForm       = regexp.MustCompile(`(\w+)\s+Code = "([A-Z]+-\d{4})"`)
	mentionForm     = regexp.MustCompile(`\b(SITE|REPL|DISK|PG|FENCE|VM|NET|CHAS|SYS)-\d{4}\b`)
	placeholderForm = regexp.MustCompile(`\{([a-z_]+)\}`)
)

// The catalogue's files.
const (
	faultCodes   = "appliance/event/codes.go"
	faultEntries = "appliance/event/entries"
	faultPages   = "docs/faults/"
)

// FaultPages: every code of the catalogue has its page, and every page its code.
func FaultPages(t *Tree) []Finding {
	data, ok := t.Data(faultCodes)
	if !ok {
		return []Finding{{faultCodes, 0, "is missing"}}
	}
	var found []Finding
	known := map[string]bool{}
	for _, m := range faultForm.FindAllStringSubmatch(string(data), -1) {
		known[m[2]] = true
		if !t.Has(faultPages + m[2] + ".md") {
			found = append(found, Finding{faultCodes, 0, m[2] + " has no page in " + faultPages})
		}
	}
	for _, f := range t.Files {
		name, isPage := strings.CutPrefix(f.Path, faultPages)
		if isPage && name != "README.md" && !known[strings.TrimSuffix(name, ".md")] {
			found = append(found, Finding{f.Path, 0, "is the page of no code"})
		}
	}
	return found
}

// FaultCodes: every code that is written in code that ships, or in a document, is in the catalogue, whoever raises it; and
// the catalogue holds no code that nothing raises. Comments count too: a reader looks the code up.
func FaultCodes(t *Tree) []Finding {
	data, ok := t.Data(faultCodes)
	if !ok {
		return []Finding{{faultCodes, 0, "is missing"}}
	}
	names := map[string]string{}
	for _, m := range faultForm.FindAllStringSubmatch(string(data), -1) {
		names[m[2]] = m[1]
	}
	raised := map[string]bool{}
	t.Go(func(p string, f *ast.File) {
		if isTest(p) || under(p, "build") || under(p, "appliance/event") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					raised[strings.Trim(n.Value, "`\"")] = true
				}
			case *ast.SelectorExpr:
				if isName(n.X, "event") {
					raised[n.Sel.Name] = true
				}
			}
			return true
		})
	})
	var found []Finding
	for _, f := range t.Files {
		if isTest(f.Path) || inTestdata(f.Path) || f.Path == faultCodes || path.Ext(f.Path) != ".go" && path.Ext(f.Path) != ".md" {
			continue
		}
		for n, line := range strings.Split(string(f.Data), "\n") {
			for _, code := range mentionForm.FindAllString(line, -1) {
				if names[code] == "" {
					found = append(found, Finding{f.Path, n + 1, code + " is not in " + faultCodes})
				}
			}
		}
	}
	for _, code := range slices.Sorted(maps.Keys(names)) {
		if !raised[code] && !raised[names[code]] {
			found = append(found, Finding{faultCodes, 0, code + " is raised by nothing"})
		}
	}
	return found
}

// FaultArguments: every event.New gives a value to every name in the texts of its code; a person would read "{node}".
func FaultArguments(t *Tree) []Finding {
	texts := placeholders(t)
	if len(texts) == 0 {
		return []Finding{{faultEntries, 0, "has no texts"}}
	}
	var found []Finding
	t.Go(func(p string, f *ast.File) {
		if isTest(p) || under(p, "appliance/event") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isSelector(call.Fun, "event", "New") || len(call.Args) == 0 || call.Ellipsis != token.NoPos {
				return true
			}
			code, ok := call.Args[0].(*ast.SelectorExpr)
			if !ok {
				return true
			}
			var given []string
			for i := 1; i < len(call.Args); i += 2 {
				if name, ok := call.Args[i].(*ast.BasicLit); ok {
					given = append(given, strings.Trim(name.Value, `"`))
				}
			}
			for _, name := range texts[code.Sel.Name] {
				if !slices.Contains(given, name) {
					found = append(found, Finding{p, t.Line(call.Pos()), code.Sel.Name + " needs a value for " + name})
				}
			}
			return true
		})
	})
	return found
}

// placeholders by the name of the constant.
func placeholders(t *Tree) map[string][]string {
	texts := map[string][]string{}
	t.Go(func(p string, f *ast.File) {
		if strings.HasPrefix(p, faultEntries) {
			ast.Inspect(f, func(n ast.Node) bool { return placeholdersOf(n, texts) })
		}
	})
	return texts
}

// placeholdersOf notes one entry.
func placeholdersOf(n ast.Node, texts map[string][]string) bool {
	lit, ok := n.(*ast.CompositeLit)
	if !ok {
		return true
	}
	name, names := "", []string{}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch v := kv.Value.(type) {
		case *ast.Ident:
			if isName(kv.Key, "Code") {
				name = v.Name
			}
		case *ast.BasicLit:
			text, err := strconv.Unquote(v.Value)
			if err != nil {
				continue
			}
			for _, m := range placeholderForm.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(names, m[1]) {
					names = append(names, m[1])
				}
			}
		}
	}
	if name != "" {
		texts[name] = names
	}
	return true
}

func isSelector(e ast.Expr, x, sel string) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == sel && isName(s.X, x)
}

func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}
