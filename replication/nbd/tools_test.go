package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests let programs that nobody here wrote judge the server: libnbd, QEMU, fio. They need the Debian
// packages libnbd-bin, python3-libnbd, qemu-utils and fio, and fail when one is missing.

const diskBytes = 64 << 20

// tool runs a program with a deadline and returns what it said.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed (make deps): %v", name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func toolServer(t *testing.T) (*running, *ram) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs foreign programs; not with -short")
	}
	s := start(t, newMemory(t, map[string]int64{"disk": diskBytes, "other": 1 << 20}))
	return s, s.backend.volumes["disk"]
}

func (s *running) uri(export string) string { return "nbd+unix:///" + export + "?socket=" + s.path }

func noise(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed)})
	p := make([]byte, n)
	_, _ = r.Read(p)
	return p
}

func TestNbdinfo(t *testing.T) {
	s, _ := toolServer(t)
	var info struct {
		Protocol string
		Exports  []struct {
			Name        string `json:"export-name"`
			Description string
			Size        int64 `json:"export-size"`
			Minimum     int64 `json:"block_size_minimum"`
			Preferred   int64 `json:"block_size_preferred"`
			Maximum     int64 `json:"block_size_maximum"`
			ReadOnly    bool  `json:"is_read_only"`
			MultiConn   bool  `json:"can_multi_conn"`
			Flush       bool  `json:"can_flush"`
			FUA         bool  `json:"can_fua"`
			Trim        bool  `json:"can_trim"`
			Zero        bool  `json:"can_zero"`
			FastZero    bool  `json:"can_fast_zero"`
			Cache       bool  `json:"can_cache"`
			DF          bool  `json:"can_df"`
		}
	}
	out := tool(t, "nbdinfo", "--json", s.uri("disk"))
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e := info.Exports[0]
	if info.Protocol != "newstyle-fixed" || e.Name != "disk" || e.Description != "the test disk" || e.Size != diskBytes ||
		e.Minimum != 4096 || e.Preferred != 4096 || e.Maximum != 1<<20 || e.ReadOnly || !e.MultiConn || !e.Flush ||
		!e.FUA || !e.Trim || !e.Zero || !e.FastZero || !e.Cache || !e.DF {
		t.Fatalf("%s", out)
	}
	for _, can := range []string{
		"cache", "connect", "df", "fast-zero", "flush", "fua", "multi-conn", "read", "structured-reply", "trim", "write", "zero",
	} {
		tool(t, "nbdinfo", "--can", can, s.uri("disk")) // exits 2 if not
	}
	for _, is := range []string{"read-only", "rotational", "tls"} {
		tool(t, "sh", "-c", `nbdinfo --is "$0" "$1"; test $? = 2`, is, s.uri("disk"))
	}
	out = tool(t, "nbdinfo", "--list", "--json", "nbd+unix:///?socket="+s.path)
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(info.Exports) != 2 || info.Exports[1].Name != "other" || info.Exports[1].Size != 1<<20 {
		t.Fatalf("%s", out)
	}
}

// area is a line of a map: of nbdinfo, and of qemu-img, which calls two things otherwise.
type area struct {
	Offset, Start, Length int64
	Type                  int
	Data                  bool
}

func areas(t *testing.T, out string) (list []area) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return list
}

// Both contexts by both judges. QEMU knows dirty bitmaps of its own under a name that can be given: there a dirty run
// is one without "data".
func TestMaps(t *testing.T) {
	s, disk := toolServer(t)
	disk.mark(256, 16)
	disk.mark(diskBytes/4096-1, 1)
	if got, want := areas(t, tool(t, "nbdinfo", "--map", "--json", s.uri("disk"))), []area{{Length: diskBytes}}; !slices.Equal(got, want) {
		t.Errorf("base:allocation: %+v, want %+v", got, want)
	}
	want := []area{
		{Offset: 0, Length: 1 << 20, Type: 0},
		{Offset: 1 << 20, Length: 65536, Type: 1},
		{Offset: 1<<20 + 65536, Length: diskBytes - 1<<20 - 65536 - 4096, Type: 0},
		{Offset: diskBytes - 4096, Length: 4096, Type: 1},
	}
	if got := areas(t, tool(t, "nbdinfo", "--map=x-duet:dirty", "--json", s.uri("disk"))); !slices.Equal(got, want) {
		t.Errorf("x-duet:dirty: %+v, want %+v", got, want)
	}
	for i := range want {
		want[i] = area{Start: want[i].Offset, Length: want[i].Length, Data: want[i].Type == 0}
	}
	got := areas(t, tool(t, "qemu-img", "map", "--output=json", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+s.path+",export=disk,x-dirty-bitmap=x-duet:dirty"))
	for i := range got {
		got[i].Offset = 0 // where it lies in the file
	}
	if !slices.Equal(got, want) {
		t.Errorf("x-duet:dirty by QEMU: %+v, want %+v", got, want)
	}
	got = areas(t, tool(t, "qemu-img", "map", "--output=json", "-f", "raw", s.uri("disk")))
	if len(got) != 1 || got[0].Length != diskBytes || !got[0].Data {
		t.Errorf("base:allocation by QEMU: %+v", got)
	}
}

func TestNbdcopy(t *testing.T) {
	s, disk := toolServer(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	want := noise(diskBytes, 1)
	clear(want[5<<20 : 9<<20]) // a hole becomes zero requests
	if err := os.WriteFile(in, want, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", in, s.uri("disk"))
	if !bytes.Equal(disk.contents(), want) {
		t.Fatal("the volume differs from what was copied in")
	}
	tool(t, "nbdcopy", "--connections=4", "--requests=64", s.uri("disk"), out)
	tool(t, "cmp", in, out)
}

func TestQemuIO(t *testing.T) {
	s, disk := toolServer(t)
	disk.watch()
	out := tool(t, "qemu-io", "-f", "raw",
		"-c", "write -P 0x11 0 1M", "-c", "write -f -P 0x22 4096 8192", "-c", "write -P 0x33 1000 100",
		"-c", "read -P 0x11 0 1000", "-c", "read -P 0x33 1000 100", "-c", "read -P 0x22 4096 8192",
		"-c", "write -z 8192 4096", "-c", "read -P 0 8192 4096",
		"-c", "write -z -u 16384 65536", "-c", "read -P 0 16384 65536",
		"-c", "discard 1M 8M", "-c", "flush", "-c", "aio_write -P 0x44 2M 1M", "-c", "aio_flush",
		"-c", "read -P 0x44 2M 1M", s.uri("disk"))
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Fatal(out)
	}
	calls := disk.called()
	for _, want := range []string{"write fua", "zero", "trim", "flush"} {
		if !strings.Contains(calls, want) {
			t.Errorf("the volume saw no %s: %s", want, calls)
		}
	}
}

// What libnbd and QEMU make of error chunks: the error of the volume, and a connection that goes on.
func TestJudgesOfErrors(t *testing.T) {
	s, disk := toolServer(t)
	disk.hook(func(_ context.Context, call string, off, _ int64) error {
		if off == 2<<20 && (call == "read" || strings.HasPrefix(call, "write")) {
			return syscall.EIO
		}
		return nil
	})
	out := tool(t, "sh", "-c", `qemu-io -f raw -c "read 1M 4M" -c "write 2M 64k" -c "read 2M 4k" -c "read 0 1M" -c "write -P 5 0 1M" \
		-c "read -P 5 0 1M" "$0" 2>&1; test $? = 1`, s.uri("disk"))
	if n := strings.Count(out, "Input/output error"); n != 3 || strings.Count(out, "1 MiB,") != 3 || strings.Contains(out, "isconnect") {
		t.Fatal(out)
	}
	out = tool(t, "sh", "-c", `nbdcopy "$0" null: 2>&1; test $? = 1`, s.uri("disk"))
	if !strings.Contains(out, "Input/output error") {
		t.Fatal(out)
	}
}

func TestQemuImg(t *testing.T) {
	s, disk := toolServer(t)
	in := filepath.Join(t.TempDir(), "in")
	want := noise(diskBytes, 2)
	clear(want[16<<20:])
	if err := os.WriteFile(in, want, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16", in, s.uri("disk"))
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, s.uri("disk"))
	if !bytes.Equal(disk.contents(), want) {
		t.Fatal("the volume differs")
	}
}

func TestFio(t *testing.T) {
	s, disk := toolServer(t)
	disk.watch()
	out := tool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+s.uri("disk"), "--rw=randrw", "--bsrange=4k-256k",
		"--size=8M", "--numjobs=4", "--offset_increment=16M", "--iodepth=32", "--verify=crc32c", "--fsync=1",
		"--minimal", "--thread")
	if !strings.Contains(out, ";v;") || strings.Contains(out, "verify:") {
		t.Fatal(out)
	}
	if !strings.Contains(disk.called(), "flush") {
		t.Fatal("no flush arrived")
	}
}

// TestNbdsh runs testdata/cases.py against the server: what a client may not do, by a client that does it.
func TestNbdsh(t *testing.T) {
	s, disk := toolServer(t)
	disk.watch()
	disk.mark(256, 16)
	disk.mark(diskBytes/4096-1, 1)
	script, err := filepath.Abs("testdata/cases.py")
	if err != nil {
		t.Fatal(err)
	}
	out := tool(t, "/usr/bin/python3", script, s.path)
	if !strings.Contains(out, "all cases passed") {
		t.Fatal(out)
	}
	t.Log(out)
}
