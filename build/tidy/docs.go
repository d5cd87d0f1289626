package tidy

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

var (
	linkForm    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headingForm = regexp.MustCompile(`^(#{1,6}) +(.*)$`)
	codeForm    = regexp.MustCompile("`[^`]*`")
)

// prose calls f for every line of a markdown file that is not inside a code fence.
func prose(data []byte, f func(n int, line string)) {
	fenced := false
	for n, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			f(n+1, line)
		}
	}
}

// headings lists the anchors of a markdown file, as web views make them, and counts its titles.
func headings(data []byte) (anchors []string, titles int) {
	prose(data, func(_ int, line string) {
		m := headingForm.FindStringSubmatch(line)
		if m == nil {
			return
		}
		if m[1] == "#" {
			titles++
		}
		var slug strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(m[2])) {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				slug.WriteRune(r)
			case r == ' ':
				slug.WriteByte('-')
			}
		}
		anchors = append(anchors, slug.String())
	})
	return anchors, titles
}

// Links: every link of a document inside the repository leads somewhere, and every document has one title.
func Links(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if path.Ext(f.Path) != ".md" || inTestdata(f.Path) {
			continue
		}
		if _, titles := headings(f.Data); titles != 1 {
			found = append(found, Finding{f.Path, 0, "has not exactly one title"})
		}
		prose(f.Data, func(n int, line string) {
			for _, m := range linkForm.FindAllStringSubmatch(codeForm.ReplaceAllString(line, ""), -1) {
				if problem := t.follow(f.Path, m[1]); problem != "" {
					found = append(found, Finding{f.Path, n, m[1] + ": " + problem})
				}
			}
		})
	}
	return found
}

var (
	quotedForm = regexp.MustCompile("`([^`]+)`")
	targetForm = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	identForm  = regexp.MustCompile(`^([a-z][a-z0-9]*)\.([A-Z]\w*)`)
)

// declared lists what each package of the module declares, methods too, by the package's name.
func (t *Tree) declared() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	t.Go(func(_ string, f *ast.File) {
		names := all[f.Name.Name]
		if names == nil {
			names = map[string]bool{}
			all[f.Name.Name] = names
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						names[s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = true
						}
					}
				}
			}
		}
	})
	return all
}

// DocNames: what a document quotes as a path of this repository, a target of make, or an exported name of one of its
// packages is there. A word in capitals stands for a name of the reader's, and says nothing.
func DocNames(t *Tree) []Finding {
	makefile, _ := t.Data("Makefile")
	targets := map[string]bool{}
	for _, m := range targetForm.FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	roots := map[string]bool{}
	for _, f := range t.Files {
		if root, _, ok := strings.Cut(f.Path, "/"); ok {
			roots[root] = true
		}
	}
	declared := t.declared()
	var found []Finding
	for _, f := range t.Files {
		if path.Ext(f.Path) != ".md" || inTestdata(f.Path) {
			continue
		}
		prose(f.Data, func(n int, line string) {
			for _, m := range quotedForm.FindAllStringSubmatch(line, -1) {
				words := strings.Fields(m[1])
				if words[0] == "make" && len(words) > 1 && !targets[words[1]] {
					found = append(found, Finding{f.Path, n, m[1] + ": there is no such target"})
				}
				if id := identForm.FindStringSubmatch(m[1]); id != nil && declared[id[1]] != nil && !declared[id[1]][id[2]] {
					found = append(found, Finding{f.Path, n, m[1] + ": the package has no such name"})
				}
				for _, w := range words {
					name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(w, "./"), "/..."), "/")
					root, _, ok := strings.Cut(name, "/")
					if ok && roots[root] && name == strings.ToLower(name) && !strings.ContainsAny(name, "*{<:") && !t.Has(name) {
						found = append(found, Finding{f.Path, n, w + ": is not in the repository"})
					}
				}
			}
		})
	}
	return found
}

// follow a link; empty: it leads somewhere. Links out of the repository are not followed: there may be no network.
func (t *Tree) follow(from, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := from
	if file != "" {
		target = path.Join(path.Dir(from), file)
	}
	if !t.Has(target) {
		return "leads nowhere"
	}
	if anchor == "" {
		return ""
	}
	data, _ := t.Data(target)
	if anchors, _ := headings(data); !slices.Contains(anchors, anchor) {
		return "there is no such heading"
	}
	return ""
}
