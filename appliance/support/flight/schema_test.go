package flight

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"duet/appliance/membership"
)

// The lists of schema.go are those of the source of package membership: what is forgotten here cannot be recorded.
func TestTheListsAreWhole(t *testing.T) {
	files, err := filepath.Glob("../../membership/*.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	found := map[string][]string{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || strings.HasSuffix(file, "_test.go") {
				continue
			}
			if receiver, ok := fn.Recv.List[0].Type.(*ast.Ident); ok {
				found[fn.Name.Name] = append(found[fn.Name.Name], receiver.Name)
			}
		}
	}
	for mark, list := range map[string]*registry{"event": events, "message": messages, "effect": effects} {
		want := found[mark]
		slices.Sort(want)
		var have []string
		for _, typ := range list.types {
			have = append(have, typ.Name())
		}
		for _, name := range want {
			if !slices.Contains(have, name) {
				t.Errorf("schema.go: add membership.%s{} to %ss: it cannot be recorded", name, mark)
			}
		}
		for _, name := range have {
			if !slices.Contains(want, name) {
				t.Errorf("schema.go: membership.%s is no %s", name, mark)
			}
		}
		if len(have) > 200 {
			t.Errorf("%d %ss: a number no longer fits one byte", len(have), mark)
		}
	}
}

// Every type in the lists can be encoded: only kinds that codec.go knows, no field that reflection cannot set, nothing
// behind a pointer, and not more fields than the bits of a delta.
func TestEveryTypeCanBeRecorded(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		switch typ.Kind() {
		case reflect.Bool, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Int64:
		case reflect.Interface:
			if registries[typ] == nil {
				t.Errorf("%s: interface %v has no list", path, typ)
			}
		case reflect.Array:
			walk(path+"[]", typ.Elem())
		case reflect.Struct:
			if typ.NumField() > 63 {
				t.Errorf("%s: %d fields", path, typ.NumField())
			}
			for f := range typ.Fields() {
				if !f.IsExported() {
					t.Errorf("%s.%s is not exported", path, f.Name)
				}
				walk(path+"."+f.Name, f.Type)
			}
		default:
			t.Errorf("%s: codec.go knows no %v", path, typ.Kind())
		}
	}
	walk("State", reflect.TypeFor[membership.State]())
	for _, list := range registries {
		for _, typ := range list.types {
			walk(typ.Name(), typ)
		}
	}
}

// Two types that read differently have different fingerprints; the canary of the fingerprint.
func TestTheFingerprintSeesFieldsAndWords(t *testing.T) {
	type one struct{ A uint8 }
	type renamed struct{ B uint8 }
	type wider struct{ A uint16 }
	describe := func(v any) string {
		d := describer{seen: map[reflect.Type]bool{}}
		d.describe(reflect.TypeOf(v))
		_, body, _ := strings.Cut(d.out.String(), " ")
		return body
	}
	texts := []string{describe(one{}), describe(renamed{}), describe(wider{}), describe(membership.Init), describe(membership.ReportNone)}
	for i, a := range texts {
		for _, b := range texts[i+1:] {
			if a == b {
				t.Errorf("%q twice", a)
			}
		}
	}
	if !strings.Contains(describe(membership.Init), "resolving frozen paired solo") {
		t.Error("the words of the modes are not in it")
	}
	if ThisSchema != fingerprint() {
		t.Error("the fingerprint changes by itself")
	}
}

// fill makes every field something: the value differs with the seed.
func fill(v reflect.Value, seed *uint64, depth int) {
	next := func() uint64 {
		*seed = *seed*6364136223846793005 + 1442695040888963407
		return *seed >> 20
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(next()%2 == 0)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := next()
		if next()%3 == 0 {
			n = 0
		}
		v.SetUint(n & (1<<(8*v.Type().Size()) - 1))
	case reflect.Int64:
		v.SetInt(int64(next()) - 1<<40) //nolint:gosec // 44 bits
	case reflect.Array:
		for i := range v.Len() {
			if next()%2 == 0 {
				fill(v.Index(i), seed, depth+1)
			}
		}
	case reflect.Struct:
		for _, f := range v.Fields() {
			fill(f, seed, depth+1)
		}
	case reflect.Interface:
		list := registries[v.Type()]
		inner := reflect.New(list.types[next()%uint64(len(list.types))]).Elem()
		fill(inner, seed, depth+1)
		v.Set(inner)
	default:
		panic(fmt.Sprint(v.Kind()))
	}
}

// Every event, with any content, and any state come back as they were; and what an input was recorded as is exactly one
// encoding: the bytes are used up, and encoding again gives the same.
func TestRoundTrip(t *testing.T) {
	seed := uint64(1)
	write, read := newRun(0), newRun(0)
	for round := range 40 {
		for _, typ := range events.types {
			event := reflect.New(typ).Elem()
			fill(event, &seed, 0)
			e := Entry{
				Input:   membership.Input{Now: write.now + membership.Boottime(seed%1e9), Fresh: membership.Nonce(seed), Event: event.Interface().(membership.Event)},
				Changed: seed&1 != 0, Acted: seed&2 != 0, Died: seed&4 != 0,
			}
			if e.Changed {
				e.State = Digest{1, 2, 3, byte(round)}
			}
			if e.Acted {
				e.Effects = Digest{4, 5, 6, 7}
			}
			if isBeat(e.Input.Event) {
				e.State, e.Effects = Digest{}, Digest{}
				if e.Changed || e.Acted {
					e.State = Digest{1, byte(round)}
				}
			}
			b, err := write.appendInput(nil, &e, true)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseEntries(&read, 0, 1, b)
			if err != nil || len(got) != 1 || got[0] != e {
				t.Fatalf("%v\n got %+v\nwant %+v", err, got, e)
			}
		}
		var s membership.State
		fill(reflect.ValueOf(&s).Elem(), &seed, 0)
		b, err := stateBytes(&s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseState(b); err != nil || got != s {
			t.Fatalf("state: %v, %s", err, differences(got, s))
		}
		if _, err := parseState(b[:len(b)-1]); err == nil {
			t.Fatal("a short state")
		}
	}
}

// FuzzEntries: bytes with a right checksum and wrong content never panic, and a state has one form.
func FuzzEntries(f *testing.F) {
	s := membership.State{Mode: membership.Solo}
	snap, err := appendSnapshot(nil, &Snapshot{BootID: "x", Now: 5, State: s})
	if err != nil {
		f.Fatal(err)
	}
	u := newRun(5)
	e := Entry{Input: membership.Input{Now: 6, Fresh: 7, Event: membership.Received{Session: 9, Message: membership.BeatMsg{Nonce: 8}}}}
	b, err := u.appendInput(snap, &e, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(2), b)
	f.Add(uint64(1), []byte{kindInput | flagsAll, 1, 2, 3})
	f.Fuzz(func(t *testing.T, count uint64, b []byte) {
		var u *run
		entries, err := parseEntries(&u, 1, count, b)
		p := &player{}
		for _, e := range entries {
			p.entry(e)
			if e.Snapshot == nil && e.Input.Event == nil {
				t.Fatal("an input without an event")
			}
		}
		if err == nil && count != uint64(len(entries)) {
			t.Fatal("entries are missing without an error")
		}
		if s, err := parseState(b); err == nil {
			if again, err := stateBytes(&s); err != nil || string(again) != string(b) {
				t.Fatal("two forms of one state")
			}
		}
	})
}
