package tidy

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// neverLinks: what a program must not contain, directly or by a package that it uses. The witness serves thousands of
// sites and the data plane is on the path of every write: neither carries what it does not need.
var neverLinks = map[string][]string{
	"witness/cmd/duet-witness":     {"duet/appliance", "duet/replication", "duet/ipmi", "github.com/digitalocean/go-libvirt", "github.com/danielgtaylor/huma", "net/http", "html/template", "net/http/pprof"},
	"replication/cmd/duet-mirrord": {"duet/appliance", "duet/ipmi", "github.com/digitalocean/go-libvirt", "github.com/danielgtaylor/huma", "net/http", "html/template", "net/http/pprof"},
	"appliance/cmd/duet":           {"duet/replication", "duet/ipmi", "github.com/digitalocean/go-libvirt", "github.com/goburrow/modbus", "net/http/pprof"},
	"appliance/cmd/duetd":          {"net/http/pprof", "html/template"},
}

// Linked: programs contain only what they need. It follows imports inside the module; of other modules it sees what our
// code names.
func Linked(t *Tree) []Finding {
	uses := map[string][]string{}
	t.Go(func(p string, f *ast.File) {
		if !isTest(p) {
			dir := path.Dir(p)
			uses[dir] = append(uses[dir], imports(f)...)
		}
	})
	var found []Finding
	var programs []string
	for program := range neverLinks {
		programs = append(programs, program)
	}
	slices.Sort(programs)
	for _, program := range programs {
		seen := map[string]bool{}
		var visit func(dir, way string)
		visit = func(dir, way string) {
			for _, i := range uses[dir] {
				if seen[i] {
					continue
				}
				seen[i] = true
				if slices.ContainsFunc(neverLinks[program], func(bad string) bool { return under(i, bad) }) {
					found = append(found, Finding{program, 0, "links " + i + " by " + way})
				}
				if target, inside := strings.CutPrefix(i, module+"/"); inside {
					visit(target, way+" → "+target)
				}
			}
		}
		visit(program, path.Base(program))
	}
	return found
}
