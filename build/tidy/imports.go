package tidy

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// direction is one row of the table in docs/architecture.md.
type direction struct {
	prefix string
	may    []string
}

// The markers of the table.
const (
	architecture = "docs/architecture.md"
	tableBegin   = "<!-- tidy:imports -->"
	tableEnd     = "<!-- /tidy:imports -->"
)

// directions reads the table: rows | `prefix` | `a`, `b` |.
func directions(t *Tree) []direction {
	data, _ := t.Data(architecture)
	_, rest, found := strings.Cut(string(data), tableBegin)
	body, _, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		return nil
	}
	var rows []direction
	for line := range strings.SplitSeq(body, "\n") {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 2 || !strings.Contains(cells[0], "`") {
			continue
		}
		row := direction{prefix: strings.Trim(strings.TrimSpace(cells[0]), "`")}
		for cell := range strings.SplitSeq(cells[1], ",") {
			row.may = append(row.may, strings.Trim(strings.TrimSpace(cell), "`"))
		}
		rows = append(rows, row)
	}
	return rows
}

// ImportDirections: every import inside the module is allowed by the row with the longest matching prefix.
func ImportDirections(t *Tree) []Finding {
	rows := directions(t)
	if len(rows) == 0 {
		return []Finding{{architecture, 0, "lacks the table between " + tableBegin + " and " + tableEnd}}
	}
	var found []Finding
	t.Go(func(p string, f *ast.File) {
		var row direction
		for _, r := range rows {
			if under(p, r.prefix) && len(r.prefix) > len(row.prefix) {
				row = r
			}
		}
		if row.prefix == "" {
			found = append(found, Finding{p, 0, "no row of the table in " + architecture + " covers it"})
			return
		}
		for _, i := range imports(f) {
			target, inside := strings.CutPrefix(i, module+"/")
			if inside && !slices.ContainsFunc(row.may, func(m string) bool { return under(target, m) }) {
				found = append(found, Finding{p, 0, row.prefix + " may not import " + i})
			}
		}
	})
	return found
}

// pureStandard is what code that decides may import from the standard library: no clock, network, file, goroutine or
// random source. (hash/crc32 is for codecs of records.)
var pureStandard = []string{"cmp", "errors", "fmt", "slices", "strconv", "encoding/binary", "hash/crc32"}

// purePackages decide; the folders below them do not belong to them.
var purePackages = []string{"appliance/membership", "appliance/outlook", "appliance/postgres/decide", "replication/handshake", "replication/volume/slow", "witness/register"}

// isPureFile: the switch of a mutant build (mutant_*.go) never ships and reads its name from the environment.
func isPureFile(p string) bool {
	if strings.HasPrefix(path.Base(p), "mutant_") {
		return false
	}
	return slices.Contains(purePackages, path.Dir(p)) || path.Base(p) == "decide.go"
}

// Purity: code that decides imports only what cannot act, starts no goroutine, and decide.go uses nothing that is
// declared beside it in a file with other imports.
func Purity(t *Tree) []Finding {
	var found []Finding
	t.Go(func(p string, f *ast.File) {
		if !isPureFile(p) || isTest(p) {
			return
		}
		for _, i := range impure(f) {
			found = append(found, Finding{p, 0, "it decides, so it may not import " + i})
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.GoStmt); ok {
				found = append(found, Finding{p, t.Line(s.Pos()), "it decides, so it may not start a goroutine"})
			}
			return true
		})
		if path.Base(p) == "decide.go" {
			found = append(found, neighbours(t, p, f)...)
		}
	})
	return found
}

func impure(f *ast.File) []string {
	return slices.DeleteFunc(imports(f), func(i string) bool {
		target, inside := strings.CutPrefix(i, module+"/")
		return slices.Contains(pureStandard, i) || inside && slices.Contains(purePackages, target)
	})
}

// neighbours finds uses of names that another file of the package declares, if that file has impure imports. Methods are
// not seen: they need a value of an impure type, whose name is.
func neighbours(t *Tree, p string, f *ast.File) []Finding {
	declared := map[string]string{}
	t.Go(func(q string, g *ast.File) {
		if q != p && path.Dir(q) == path.Dir(p) && !isTest(q) && len(impure(g)) > 0 {
			for _, name := range topLevel(g) {
				declared[name] = q
			}
		}
	})
	keys := map[*ast.Ident]bool{} // keys of literals are fields
	ast.Inspect(f, func(n ast.Node) bool {
		if kv, ok := n.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok {
				keys[key] = true
			}
		}
		return true
	})
	var found []Finding
	for _, name := range f.Unresolved { // names that the file uses and does not declare
		if from, ok := declared[name.Name]; ok && !keys[name] {
			found = append(found, Finding{p, t.Line(name.Pos()), name.Name + " is declared in " + from + ", which does not decide"})
		}
	}
	return found
}

// topLevel lists the names that a file declares for its package; methods belong to their types.
func topLevel(f *ast.File) []string {
	var names []string
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "_" })
}
