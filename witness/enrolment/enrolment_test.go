package enrolment

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/witness/pinned"
	"duet/witness/register"
)

func key(seed byte) ed25519.PublicKey {
	raw := make([]byte, ed25519.SeedSize)
	raw[0] = seed
	return ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey)
}

func site(name string, a, b byte) Site { return Site{Name: name, KeyA: key(a), KeyB: key(b)} }

func TestFind(t *testing.T) {
	dir := t.TempDir()
	var faults []error
	d := Open(dir, func(err error) { faults = append(faults, err) })
	find := func(seed byte) string {
		s, node, ok := d.Find(key(seed))
		if !ok {
			return "-"
		}
		return s.Name + map[register.Set]string{register.OnlyA: "/a", register.OnlyB: "/b"}[node]
	}
	expect := func(seed byte, want string) {
		t.Helper()
		if got := find(seed); got != want {
			t.Errorf("key %d is %s, want %s", seed, got, want)
		}
	}
	expect(1, "-")
	for _, s := range []Site{site("s1", 1, 2), site("s2", 3, 4)} {
		if err := Write(dir, s); err != nil {
			t.Fatal(err)
		}
	}
	expect(1, "s1/a")
	expect(2, "s1/b")
	expect(4, "s2/b")
	if err := Write(dir, site("s1", 1, 5)); err != nil { // node b was replaced
		t.Fatal(err)
	}
	expect(2, "-")
	expect(5, "s1/b")
	if err := Write(dir, site("s3", 6, 1)); err == nil || !strings.Contains(err.Error(), "s1") {
		t.Errorf("a key of another site: %v", err)
	}
	// Written by hand, past Write: the key is nobody's, and the rest goes on.
	text, err := os.ReadFile(filepath.Join(dir, "s1.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"s4.json": strings.Replace(strings.ReplaceAll(string(text), `"s1"`, `"s4"`), pinned.FormatKey(key(5)), pinned.FormatKey(key(7)), 1),
		"s5.json": "{", "s6.json": string(text), "notes.txt": "", ".enrol-1": "half",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(1, "-")
	expect(5, "s1/b")
	expect(7, "s4/b")
	expect(3, "s2/a")
	if len(faults) < 2 {
		t.Errorf("s5 and s6 cannot be used, reported are %v", faults)
	}
	if err := os.Remove(filepath.Join(dir, "s2.json")); err != nil {
		t.Fatal(err)
	}
	expect(3, "-")
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	expect(5, "-")
	if _, _, ok := d.Find(nil); ok {
		t.Error("no key is somebody's")
	}
}

// A folder of many sites is read at a pace; one that could not be read for a moment enrols everybody again at once.
func TestFaultIsOverAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sites")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, site("s", 1, 2)); err != nil {
		t.Fatal(err)
	}
	d := Open(dir, func(error) {})
	find := func(want bool) {
		t.Helper()
		if _, _, ok := d.Find(key(1)); ok != want {
			t.Errorf("enrolled: %v", ok)
		}
	}
	find(true)
	d.pace = time.Hour // as if there were many
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	find(false)
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	find(true)
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []Site{
		site("", 1, 2), site("../x", 1, 2), site("a/b", 1, 2), site(".hidden", 1, 2), site(strings.Repeat("n", 64), 1, 2),
		site("same", 1, 1),
		{Name: "none"},
	} {
		if err := Write(dir, s); err == nil {
			t.Errorf("%q: accepted", s.Name)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := Write(filepath.Join(dir, "nowhere"), site("s", 1, 2)); err == nil {
		t.Error("a folder that is not there")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"s","key_a":"` + pinned.FormatKey(key(1)) + `","key_b":"` + pinned.FormatKey(key(2)) + `"}`))
	f.Add([]byte(`{"name":"s"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := Parse("s", text); err == nil {
			if s.Check() != nil || s.KeyA.Equal(s.KeyB) {
				t.Errorf("%q is %+v", text, s)
			}
		}
	})
}

// What root enrols, the service can read, which owns the folder.
func TestFilesBelongToTheFoldersOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, Site{Name: "s", KeyA: key(1), KeyB: key(2)}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "s.json"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 12345 || owner.Gid != 12346 || info.Mode().Perm() != 0o600 {
		t.Errorf("%d:%d %v", owner.Uid, owner.Gid, info.Mode())
	}
}
