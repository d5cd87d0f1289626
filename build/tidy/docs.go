package tidy

import (
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
