package tidy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// forbidden are texts that must not be committed. They are put together here, so that this file does not hold them.
var forbidden = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`(?i)\b` + "mas" + `ter\b|(?i)\b` + "sla" + `ves?\b`), "no node is above the other: a, b, owner, member"},
	{regexp.MustCompile(`\b(` + "TO" + `DO|` + "FIX" + `ME|` + "XX" + `X)\b`), "work that is left belongs into an issue"},
	{regexp.MustCompile(`(?i)\bnot (yet )?` + `implemented\b`), "what is not there is not offered"},
	{regexp.MustCompile(`(^|[\s"'=(:` + "`" + `])/(` + "wo" + `rk|` + "ho" + `me|` + "Us" + `ers)/\w`), "is a path of one machine"},
}

// isProse: files that people write, where words are checked.
func isProse(p string) bool {
	switch path.Ext(p) {
	case ".go", ".md", ".yml", ".yaml", ".sh", ".json", ".txt":
		return true
	}
	return path.Base(p) == "Makefile" || path.Base(p) == "run"
}

// Words: nothing forbidden in code or documents.
func Words(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if !isProse(f.Path) || strings.Contains(f.Path, "testdata/fuzz/") {
			continue
		}
		for n, line := range strings.Split(string(f.Data), "\n") {
			for _, w := range forbidden {
				if hit := w.pattern.FindString(line); hit != "" {
					found = append(found, Finding{f.Path, n + 1, fmt.Sprintf("%q: %s", strings.TrimSpace(hit), w.why)})
				}
			}
		}
	}
	return found
}

// The limits of one committed file: sources are small; recorded binary examples belong to testdata and are smaller.
const (
	maxFileBytes   = 256 << 10
	maxBinaryBytes = 64 << 10
)

// Sizes: no large file, no binary outside testdata.
func Sizes(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		switch {
		case len(f.Data) > maxFileBytes:
			found = append(found, Finding{f.Path, 0, fmt.Sprintf("has %d bytes: a build product or a download is not committed", len(f.Data))})
		case !text(f.Data) && (!inTestdata(f.Path) || len(f.Data) > maxBinaryBytes):
			found = append(found, Finding{f.Path, 0, "is binary"})
		}
	}
	return found
}
