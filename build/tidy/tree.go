package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// module is the name in go.mod.
const module = "duet"

// Finding is one broken rule at one place.
type Finding struct {
	Path string
	Line int // 0: the whole file
	Text string
}

// String is what a person reads.
func (f Finding) String() string {
	if f.Line == 0 {
		return f.Path + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text)
}

// File is one file of the tree.
type File struct {
	Path string
	Data []byte
}

// Tree is the repository, or a canary.
type Tree struct {
	Files []File
	fset  *token.FileSet
	goes  map[string]*ast.File
}

// ignored are the folders that git ignores, and git itself.
var ignored = []string{".git", "out", ".cache", "bin", "node_modules"}

// Read loads a tree.
func Read(root fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet(), goes: map[string]*ast.File{}}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		if d.IsDir() {
			if p != "." && slices.Contains(ignored, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		data, err := fs.ReadFile(root, p)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		t.Files = append(t.Files, File{p, data})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range t.Files {
		if path.Ext(f.Path) != ".go" || inTestdata(f.Path) {
			continue
		}
		syntax, err := parser.ParseFile(t.fset, f.Path, f.Data, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("syntax: %w", err)
		}
		t.goes[f.Path] = syntax
	}
	return t, nil
}

// Data of a file; false: there is none.
func (t *Tree) Data(p string) ([]byte, bool) {
	i := slices.IndexFunc(t.Files, func(f File) bool { return f.Path == p })
	if i < 0 {
		return nil, false
	}
	return t.Files[i].Data, true
}

// Has says whether a file or folder exists.
func (t *Tree) Has(p string) bool {
	return slices.ContainsFunc(t.Files, func(f File) bool { return f.Path == p || strings.HasPrefix(f.Path, p+"/") })
}

// Go calls f for every Go file outside testdata, in order of the paths.
func (t *Tree) Go(f func(p string, syntax *ast.File)) {
	for _, file := range t.Files {
		if syntax, ok := t.goes[file.Path]; ok {
			f(file.Path, syntax)
		}
	}
}

// Line of a position.
func (t *Tree) Line(p token.Pos) int { return t.fset.Position(p).Line }

// imports of a file, without quotes.
func imports(f *ast.File) []string {
	var all []string
	for _, i := range f.Imports {
		all = append(all, strings.Trim(i.Path.Value, `"`))
	}
	return all
}

func isTest(p string) bool { return strings.HasSuffix(p, "_test.go") }

func inTestdata(p string) bool { return slices.Contains(strings.Split(p, "/"), "testdata") }

// text says whether the data is text: no NUL byte.
func text(data []byte) bool { return bytes.IndexByte(data, 0) < 0 }

// under says whether a path or package lies in a folder.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }
