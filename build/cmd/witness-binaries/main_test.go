package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The judge can fail: a program of this machine that needs libraries, and a static one of another machine.
func TestCheck(t *testing.T) {
	here := targets[0]
	for _, dynamic := range []string{"/bin/true", "/bin/sh"} {
		if here.check(dynamic) == nil {
			t.Errorf("%s passes as static", dynamic)
		}
	}
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := source + ".bin"
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := here.check(program); err != nil {
		t.Error(err)
	}
	wrong := target{machine: elf.EM_ARM, class: elf.ELFCLASS32}
	if wrong.check(program) == nil {
		t.Error("amd64 passes as ARM")
	}
}
