package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The program as it ships contains no templates, no traces and no profiles over HTTP: the etcd client could bring them.
// build/tidy judges what our own code names; this is what is linked.
func TestLinks(t *testing.T) {
	linked := func(tags string) []string {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	shipped := linked("grpcnotrace") // Makefile, build/cmd/witness-binaries
	for _, bad := range []string{"html/template", "text/template", "net/http/pprof", "expvar", "golang.org/x/net/trace", "github.com/prometheus/client_golang/prometheus"} {
		if slices.Contains(shipped, bad) {
			t.Errorf("it links %s", bad)
		}
	}
	if !slices.Contains(linked("none"), "html/template") {
		t.Error("without the tag it links no templates either: the tag is not needed any more")
	}
}
