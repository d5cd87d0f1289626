package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"path"
	"slices"
	"strings"
)

// minCommentLines: what it is, promises, refuses, how it fails does not fit into fewer.
const minCommentLines = 3

// PackageComments: every package says what it is, and more than its name.
func PackageComments(t *Tree) []Finding {
	docs := map[string]string{}
	var order []string
	t.Go(func(p string, f *ast.File) {
		if isTest(p) {
			return
		}
		dir := path.Dir(p)
		if _, seen := docs[dir]; !seen {
			order = append(order, dir)
			docs[dir] = ""
		}
		if f.Doc != nil {
			docs[dir] += f.Doc.Text()
		}
	})
	var found []Finding
	for _, dir := range order {
		lines := strings.Count(strings.TrimSpace(docs[dir]), "\n") + 1
		switch {
		case docs[dir] == "":
			found = append(found, Finding{dir, 0, "has no package comment"})
		case lines < minCommentLines:
			found = append(found, Finding{dir, 0, fmt.Sprintf("has a package comment of %d lines: say what it promises, refuses, and how it fails", lines)})
		}
	}
	return found
}

// emptyNames say nothing about what is inside.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "pkg"}

// PackageNames: a package is a noun.
func PackageNames(t *Tree) []Finding {
	var found []Finding
	seen := map[string]bool{}
	t.Go(func(p string, f *ast.File) {
		dir := path.Dir(p)
		for _, name := range append(strings.Split(dir, "/"), f.Name.Name) {
			if slices.Contains(emptyNames, name) && !seen[dir] {
				seen[dir] = true
				found = append(found, Finding{dir, 0, name + " says nothing: name the package after what is in it"})
			}
		}
	})
	return found
}

// Format: gofmt.
func Format(t *Tree) []Finding {
	var found []Finding
	t.Go(func(p string, _ *ast.File) {
		data, _ := t.Data(p)
		if formatted, err := format.Source(data); err != nil || !bytes.Equal(formatted, data) {
			found = append(found, Finding{p, 0, "is not formatted: gofmt -w"})
		}
	})
	return found
}

// product are the folders whose programs run on an appliance.
var product = []string{"appliance", "replication", "witness", "ipmi"}

func ships(p string) bool {
	return !isTest(p) && slices.ContainsFunc(product, func(f string) bool { return under(p, f) })
}

// Calls: what code must not call. A sleep waits for a clock instead of a condition; daemons log by slog and write to
// injected writers; nothing happens at import.
func Calls(t *Tree) []Finding {
	var found []Finding
	t.Go(func(p string, f *ast.File) {
		if ships(p) && slices.Contains(imports(f), "log") {
			found = append(found, Finding{p, 0, "imports log: use log/slog"})
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" && ships(p) {
					found = append(found, Finding{p, t.Line(n.Pos()), "has an init function"})
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				name := x.Name + "." + n.Sel.Name
				switch {
				case name == "time.Sleep":
					found = append(found, Finding{p, t.Line(n.Pos()), "sleeps: wait for a condition with a deadline"})
				case ships(p) && (name == "fmt.Print" || name == "fmt.Printf" || name == "fmt.Println"):
					found = append(found, Finding{p, t.Line(n.Pos()), "prints: log by slog, or write to an injected io.Writer"})
				}
			}
			return true
		})
	})
	return found
}
