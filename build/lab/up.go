package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"duet/build/lab/core"
	"duet/build/lab/drive"
)

// Defaults of Options.
const (
	nameDefault    = "demo"
	poolMiBDefault = 1024
	dataMiBDefault = 128
)

// needs maps each program that the lab runs itself to its Debian package.
var needs = []struct {
	program, pkg string
	bare         bool // also needed by a lab without services
}{
	{"mkfs.ext4", "e2fsprogs", true},
	{"bash", "bash", true},
	{"libvirtd", "libvirt-daemon-system", false},
	{"virsh", "libvirt-clients", false},
	{"qemu-system-x86_64", "qemu-system-x86", false},
}

// programs of the product that a lab with services runs.
var programs = []string{"duetd", "duet-mirrord", "duet-witness", "duet"}

// Up starts a lab and returns when all its machines run; their services are started, not necessarily ready.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if !reexecReady {
		return nil, errors.New("lab.Up: the program must call lab.Reexec() first thing in main or TestMain")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root (namespaces, overlay and loop mounts, ports below 1024); run it with sudo")
	}
	if err := o.fill(); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	lock, err := lockState(o.State, o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the core holds it too: it lasts as long as the lab
	if !o.Keep {
		if err := sweep(o.State, false); err != nil {
			return nil, fmt.Errorf("lab %s: what a former run left: %w", o.Name, err)
		}
	}
	c, err := launch(ctx, o.config(), o.Keep, lock, o.Progress)
	if err != nil {
		return nil, err
	}
	return &Lab{state: o.State, child: c}, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// fill gives every option its value.
func (o *Options) fill() error {
	if o.Name == "" {
		o.Name = nameDefault
	}
	if !nameForm.MatchString(o.Name) {
		return fmt.Errorf("lab name %q: must be 1 to 32 of a-z, 0-9 and hyphen", o.Name)
	}
	if o.State == "" {
		o.State = defaultState(o.Name)
	}
	if o.Bin == "" && !o.Bare {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("own executable: %w", err)
		}
		o.Bin = filepath.Dir(exe)
	}
	for _, path := range []*string{&o.State, &o.Bin} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("folder: %w", err)
		}
		*path = abs
	}
	if strings.ContainsAny(o.State, ",:\\") {
		return fmt.Errorf("state folder %s: an overlay takes no path with comma, colon or backslash", o.State)
	}
	if _, err := drive.ParseSurvival(o.Cache); err != nil {
		return err
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.PoolMiB == 0 {
		o.PoolMiB = poolMiBDefault
	}
	if o.DataMiB == 0 {
		o.DataMiB = dataMiBDefault
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return nil
}

// check names everything that is missing, at once.
func (o *Options) check() error {
	var packages []string
	for _, n := range needs {
		if o.Bare && !n.bare {
			continue
		}
		if _, err := lookSystem(n.program); err != nil && !slices.Contains(packages, n.pkg) {
			packages = append(packages, n.pkg)
		}
	}
	if len(packages) > 0 {
		return fmt.Errorf("the lab needs programs that are not here: apt-get install %s", strings.Join(packages, " "))
	}
	if o.Bare {
		return nil
	}
	var absent []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(o.Bin, p)); err != nil {
			absent = append(absent, p)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("%s not found in %s: build them (make binaries), or name their folder with --bin, or start without services with --bare",
			strings.Join(absent, ", "), o.Bin)
	}
	return nil
}

// lookSystem finds a program where root's programs are, whatever PATH says.
func lookSystem(name string) (string, error) {
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fs.ErrNotExist
}

// lockState makes the state folder and takes its lock, or says who has it. The lock is a flock: it ends with its holder,
// however that ends.
func lockState(state, name string) (*os.File, error) {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer f.Close()
		var pid int
		_, _ = fmt.Fscan(f, &pid) // a lock file without a number still is a lock
		return nil, fmt.Errorf("a lab named %q already runs (process %d, state %s): end it with: lab down --name %s, or choose another --name",
			name, pid, state, name)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("state folder: %w", err)
	}
	return f, nil
}

// config is what the core is told.
func (o *Options) config() core.Config {
	c := core.Config{
		Name: o.Name, State: o.State, Seed: o.Seed, Cache: o.Cache, Bin: o.Bin, DataMiB: o.DataMiB, PoolMiB: o.PoolMiB,
		Off: o.Off, BMCUser: bmcUser, BMCPass: bmcPassword, PDU: pduProduct,
	}
	for _, name := range []string{Witness, Client, A, B} {
		m := productMachine(name)
		if o.Bare {
			m.Units = nil
		}
		if units, ok := o.Units[name]; ok {
			m.Units = units
		}
		m.Files = append(m.Files, o.Files[name]...)
		c.Machines = append(c.Machines, m)
	}
	return c
}
