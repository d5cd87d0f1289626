package tidy

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// rule is a check with its canary: a tree in which it must find exactly the planted faults.
type rule struct {
	name   string
	check  func(*Tree) []Finding
	canary map[string]string
	want   []string // a part of each finding, in order
}

const table = "# Architecture\n" + tableBegin + "\n| package prefix | may import |\n| --- | --- |\n" +
	"| `replication` | `replication` |\n| `appliance` | `appliance`, `replication/control` |\n| `build` | `build`, `appliance` |\n" + tableEnd + "\n"

var rules = []rule{
	{
		"package comments", PackageComments,
		map[string]string{
			"a/a.go":          "// Package a is here.\n// It promises.\n// It refuses.\npackage a\n",
			"b/b.go":          "package b\n",
			"c/c.go":          "// Package c does c.\npackage c\n",
			"c/d.go":          "package c\n",
			"d/d_test.go":     "package d\n",
			"e/testdata/x.go": "package x\n",
		},
		[]string{"b: has no", "c: has a package comment of 1 lines"},
	},
	{
		"import directions", ImportDirections,
		map[string]string{
			architecture:            table,
			"replication/a/a.go":    "package a\nimport \"duet/replication/b\"\n",
			"replication/b/b.go":    "package b\nimport \"duet/appliance/site\"\n",
			"appliance/x/x.go":      "package x\nimport (\n\"fmt\"\n\"duet/replication/control\"\n)\nvar _ = fmt.Sprint\n",
			"appliance/y/y.go":      "package y\nimport \"duet/replication/controller\"\n",
			"appliance/z/z_test.go": "package z\nimport \"duet/build/lab\"\n",
			"other/o.go":            "package o\n",
		},
		[]string{"y.go: appliance may not import duet/replication/controller", "z_test.go: appliance may not import duet/build/lab", "other/o.go: no row", "b.go: replication may not import duet/appliance/site"},
	},
	{
		"a lost table of directions", ImportDirections,
		map[string]string{architecture: "# Architecture\n", "a/a.go": "package a\n"},
		[]string{"lacks the table"},
	},
	{
		"purity", Purity,
		map[string]string{
			"appliance/membership/step.go":      "package membership\nimport (\n\"slices\"\n\"time\"\n)\n",
			"appliance/membership/step_test.go": "package membership\nimport \"time\"\n",
			"appliance/membership/explore/e.go": "package explore\nimport \"time\"\n",
			"appliance/outlook/o.go":            "package outlook\nimport \"duet/appliance/site\"\n",
			"witness/register/r.go":             "package register\nfunc f() { go f() }\n",
			"appliance/vms/decide.go":           "package vms\nimport \"slices\"\ntype good struct{ bad int }\nfunc one(x good, args int) int { return helper() + x.bad + pure() + args + len([]good{{bad: 1}}) }\n",
			"appliance/vms/act.go":              "package vms\nimport \"os\"\nfunc helper() int { return 1 }\nvar bad, args = os.Args, 1\n",
			"appliance/vms/state.go":            "package vms\nfunc pure() int { return 2 }\n",
		},
		[]string{"step.go: it decides, so it may not import time", "o.go: it decides", "decide.go:4: helper is declared in appliance/vms/act.go", "r.go:2: it decides, so it may not start a goroutine"},
	},
	{
		"linked", Linked,
		map[string]string{
			"witness/cmd/duet-witness/main.go": "package main\nimport (\n\"net\"\n\"duet/witness/server\"\n)\n",
			"witness/server/s.go":              "package server\nimport \"duet/witness/store\"\n",
			"witness/server/s_test.go":         "package server\nimport \"net/http\"\n",
			"witness/store/s.go":               "package store\nimport (\n\"net/http\"\n\"duet/witness/server\"\n\"github.com/danielgtaylor/huma/v2\"\n)\n",
			"witness/cmd/other/main.go":        "package main\nimport \"net/http\"\n",
		},
		[]string{"links net/http by duet-witness → witness/server → witness/store", "links github.com/danielgtaylor/huma/v2"},
	},
	{
		"package names", PackageNames,
		map[string]string{"a/util/x.go": "package util\n", "b/y.go": "package types\n", "c/z.go": "package noun\n"},
		[]string{"a/util: util", "b: types"},
	},
	{
		"format", Format,
		map[string]string{"a/a.go": "package a\nvar  x = 1\n", "b/b.go": "package b\n\nvar x = 1\n"},
		[]string{"a/a.go: is not formatted"},
	},
	{
		"calls", Calls,
		map[string]string{
			"appliance/a.go":      "package a\nimport (\n\"fmt\"\n\"log\"\n\"time\"\n)\nfunc init() {\nfmt.Println()\nlog.Print()\ntime.Sleep(1)\n}\n",
			"appliance/a_test.go": "package a\nimport (\n\"fmt\"\n\"time\"\n)\nfunc f() {\nfmt.Println()\ntime.Sleep(1)\n}\n",
			"build/b.go":          "package b\nimport \"fmt\"\nfunc f() { fmt.Println() }\n",
		},
		[]string{"a.go: imports log", "a.go:7: has an init", "a.go:8: prints", "a.go:10: sleeps", "a_test.go:8: sleeps"},
	},
	{
		"words", Words,
		map[string]string{
			"a.go":                "package a // TO" + "DO later\n",
			"b.md":                "the Mas" + "ter node\npostmaster is a word\n",
			"c.md":                "cd /wo" + "rk/tree\nhttps://example.org/wo" + "rk/x\n",
			"d.go":                "package d // not imple" + "mented\n",
			"e/testdata/fuzz/F/x": "TO" + "DO",
		},
		[]string{"a.go:1:", "b.md:1:", "c.md:1:", "d.go:1:"},
	},
	{
		"sizes", Sizes,
		map[string]string{"big.txt": strings.Repeat("x", maxFileBytes+1), "tool": "\x7fELF\x00", "a/testdata/golden": "a\x00b", "bin/ignored": "\x00"},
		[]string{"big.txt: has", "tool: is binary"},
	},
	{
		"links", Links,
		map[string]string{
			"docs/a.md":   "# A\n\n[ok](b.md) [ok](b.md#two-words) [ok](#part) [web](https://example.org/x) `[code](no.md)`\n[bad](c.md)\n[bad](b.md#three)\n```\n[fenced](no.md)\n```\n## Part\n",
			"docs/b.md":   "# B\n\n## Two words\n",
			"docs/c/d.md": "no title [up](../b.md) [dir](../c)\n",
		},
		[]string{"a.md:4: c.md: leads nowhere", "a.md:5: b.md#three: there is no such heading", "d.md: has not exactly one title"},
	},
	{
		"names in documents", DocNames,
		map[string]string{
			"Makefile":            "x: ## y\n\ttrue\nlong-name: x\n",
			"appliance/pair/p.go": "package pair\n\ntype One int\n\nfunc (One) Two() {}\n\nvar Three int\n",
			"docs/a.md":           "# A\n`appliance/pair` `go test ./appliance/...` `make x N=1` `appliance/NAME/y` `/etc/x` `other/y` `appliance/pair/`\n`appliance/pear` `make z`\n`pair.One` `pair.Two` `pair.Three{x}` `other.Nine` `pair.Nine(x)`\n`appliance/pair/p.go` `make long-name` appliance/none\n",
		},
		[]string{"a.md:3: appliance/pear: is not in the repository", "a.md:3: make z: there is no such target", "a.md:4: pair.Nine(x): the package has no such name"},
	},
	{
		"fault pages", FaultPages,
		map[string]string{
			"appliance/event/codes.go": "package event\nconst (\n\tOne Code = \"SITE-1001\"\n\tTwo Code = \"SITE-1002\"\n)\n",
			"docs/faults/SITE-1001.md": "# x\n", "docs/faults/SITE-1009.md": "# x\n", "docs/faults/README.md": "# x\n",
		},
		[]string{"SITE-1002 has no page", "SITE-1009.md: is the page of no code"},
	},
	{
		"fault codes", FaultCodes,
		map[string]string{
			faultCodes:           "package event\nconst (\n\tOne Code = \"SITE-1001\"\n\tTwo Code = \"REPL-2002\"\n\tThree Code = \"VM-6003\"\n)\n",
			"appliance/x.go":     "package x\n\nvar _ = event.One\n\n// See SITE-1009.\nvar _ = 1\n",
			"ipmi/y.go":          "package y\n\nvar _, _ = \"REPL-2002\", \"text FENCE-5099: more\"\n",
			"ipmi/y_test.go":     "package y\n\nvar _ = \"VM-6003 FENCE-5098\"\n",
			"a/testdata/NET.txt": "NET-7099",
			"docs/z.md":          "# Z\n\n`DISK-3099` VM-60033 XVM-6001\n",
		},
		[]string{"appliance/x.go:5: SITE-1009 is not in", "docs/z.md:3: DISK-3099 is not in", "ipmi/y.go:3: FENCE-5099 is not in", "VM-6003 is raised by nothing"},
	},
	{
		"fault arguments", FaultArguments,
		map[string]string{
			faultEntries + ".go": "package event\nvar catalogue = []Entry{\n{Code: One, What: \"{a} of {b_c}\", Why: \"{a}\"},\n{Code: Two, What: \"x\"},\n}\n",
			"appliance/x.go":     "package x\nfunc f() {\nevent.New(event.One, \"a\", v)\nevent.New(event.One, \"b_c\", v, \"a\", v)\nevent.New(event.Two)\nother.New(event.One)\nevent.New(event.One, all...)\n}\n",
		},
		[]string{"x.go:3: One needs a value for b_c"},
	},
}

// TestCanaries: every rule finds exactly what was planted.
func TestCanaries(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for p, data := range r.canary {
				files[p] = &fstest.MapFile{Data: []byte(data)}
			}
			tree, err := Read(files)
			if err != nil {
				t.Fatal(err)
			}
			found := r.check(tree)
			for i, f := range found {
				if i >= len(r.want) || !strings.Contains(f.String(), r.want[i]) {
					t.Errorf("found %s", f)
				}
			}
			for _, w := range r.want[min(len(found), len(r.want)):] {
				t.Errorf("did not find %s", w)
			}
		})
	}
}

// TestRepository: the rules hold.
func TestRepository(t *testing.T) {
	tree, err := Read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tree.Data("go.mod"); !ok {
		t.Fatal("this is not the repository")
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tree) {
				t.Error(f)
			}
		})
	}
}
