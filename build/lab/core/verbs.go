package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"duet/build/lab/cable"
	"duet/build/lab/drive"
	"duet/build/lab/ns"
	"duet/build/lab/power"
)

// verbTable is all that a person or a test can do to the lab: hardware events, and looks from outside.
func verbTable() map[string]verb {
	return map[string]verb{
		"cut":     {"cut a|b", 1, 1, false, act((*core).cut)},
		"on":      {"on a|b", 1, 1, false, act((*core).on)},
		"cycle":   {"cycle a|b", 1, 1, false, act((*core).cycle)},
		"reset":   {"reset a|b", 1, 1, false, act((*core).pressReset)},
		"crash":   {"crash a|b", 1, 1, false, act((*core).crash)},
		"panic":   {"panic a|b", 1, 1, false, act((*core).panicked)},
		"clock":   {"clock a|b DURATION", 2, 2, false, act((*core).clock)},
		"hang":    {"hang a|b", 1, 1, false, act((*core).hang)},
		"resume":  {"resume a|b", 1, 1, false, act((*core).resume)},
		"psu":     {"psu a.1|a.2|b.1|b.2 off|on", 2, 2, false, act((*core).psu)},
		"link":    {"link mirror0|lan|all|lan M|wan M|bmc M cut|restore", 2, 3, false, act((*core).link)},
		"bmc":     {"bmc a|b ok|mute|badpass|refuse|slow DURATION", 2, 3, false, act((*core).setBMC)},
		"pdu":     {"pdu mute|ok|late DURATION", 1, 2, false, act((*core).setPDU)},
		"disk":    {"disk a.1 ok|eio|hang [read|write|flush] [skip=N] [once]", 2, 5, false, act((*core).disk)},
		"witness": {"witness stop|start|pause|resume|slow DELAY LOSS%|fast", 1, 3, false, act((*core).witness)},
		"kill":    {"kill MACHINE UNIT", 2, 2, false, act((*core).kill)},
		"stop":    {"stop MACHINE UNIT", 2, 2, false, act((*core).stop)},
		"start":   {"start MACHINE UNIT", 2, 2, false, act((*core).start)},
		"exec":    {"exec MACHINE COMMAND ...", 2, -1, true, (*core).exec},
		"status":  {"status", 0, 0, true, ask((*core).status)},
		"truth":   {"truth", 0, 0, true, ask((*core).truth)},
		"legs":    {"legs", 0, 0, true, ask((*core).legs)},
	}
}

type verbFunc = func(c *core, ctx context.Context, in incoming) (value any, exit int, err error)

// verb is one hardware event or look.
type verb struct {
	usage    string
	min, max int  // words; max -1: any
	quiet    bool // only looks: not an event
	do       verbFunc
}

// act makes a verb's function of one that can only fail, ask of one that answers.
func act(f func(c *core, ctx context.Context, args []string) error) verbFunc {
	return func(c *core, ctx context.Context, in incoming) (any, int, error) {
		return nil, 0, f(c, ctx, in.request.Args)
	}
}

func ask(f func(c *core, ctx context.Context) (any, error)) verbFunc {
	return func(c *core, ctx context.Context, _ incoming) (any, int, error) {
		v, err := f(c, ctx)
		return v, 0, err
	}
}

// node finds a node by name.
func (c *core) node(name string) (*machine, error) {
	if !isNode(name) {
		return nil, fmt.Errorf("%q is not a node: must be a or b", name)
	}
	return c.machines[name], nil
}

// living finds the body of a machine that runs.
func (c *core) living(name string) (*machine, *ns.Body, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[name]
	if m == nil {
		return nil, nil, fmt.Errorf("no machine %q: must be one of %v", name, names)
	}
	if m.body == nil || !m.energised {
		return nil, nil, fmt.Errorf("machine %s does not run (power it on with: lab on %s)", name, name)
	}
	return m, m.body, nil
}

func (c *core) cut(ctx context.Context, args []string) error {
	if _, err := c.node(args[0]); err != nil {
		return err
	}
	return c.change(ctx, args[0], "cut by verb", func(p power.Chassis) power.Chassis { return p.Cords(false) })
}

func (c *core) on(ctx context.Context, args []string) error {
	m, err := c.node(args[0])
	if err != nil {
		return err
	}
	c.mu.Lock()
	crashed := m.crashed && m.energised
	c.mu.Unlock()
	if crashed { // the button on a dead machine: held until it is off, then pressed again
		return c.pressReset(ctx, args)
	}
	return c.change(ctx, args[0], "on by verb", func(p power.Chassis) power.Chassis { return p.Cords(true).Press() })
}

func (c *core) cycle(ctx context.Context, args []string) error {
	return errors.Join(c.cut(ctx, args), c.on(ctx, args))
}

func (c *core) pressReset(ctx context.Context, args []string) error {
	m, err := c.node(args[0])
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if !c.powered(args[0]) {
		return fmt.Errorf("node %s has no power", args[0])
	}
	return c.reset(ctx, m, "reset by verb")
}

// crash is a dying kernel: the links are up while the processes end, so farewells go out.
func (c *core) crash(ctx context.Context, args []string) error {
	m, err := c.node(args[0])
	if err != nil {
		return err
	}
	m.op.Lock()
	defer m.op.Unlock()
	m, body, err := c.living(args[0])
	if err != nil {
		return err
	}
	if err := body.Kill(); err != nil {
		return err
	}
	for _, f := range m.fronts { // a dead kernel sends nothing to its drives, and hears nothing
		f.Abandon()
	}
	select {
	case <-m.reaped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *core) hang(_ context.Context, args []string) error {
	if _, err := c.node(args[0]); err != nil {
		return err
	}
	return c.freeze(args[0], true)
}

func (c *core) resume(_ context.Context, args []string) error {
	if _, err := c.node(args[0]); err != nil {
		return err
	}
	return c.freeze(args[0], false)
}

func (c *core) freeze(name string, on bool) error {
	m := c.machines[name]
	if m == nil {
		return fmt.Errorf("no machine %q: must be one of %v", name, names)
	}
	m.op.Lock()
	defer m.op.Unlock()
	_, body, err := c.living(name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	m.hung = on
	c.mu.Unlock()
	return body.Freeze(on)
}

func (c *core) psu(ctx context.Context, args []string) error {
	var node string
	supply := -1
	for _, n := range []string{"a", "b"} {
		for i := range power.SuppliesPerNode {
			if args[0] == fmt.Sprintf("%s.%d", n, i+1) {
				node, supply = n, i
			}
		}
	}
	in, ok := map[string]bool{"on": true, "off": false}[args[1]]
	if supply < 0 || !ok {
		return fmt.Errorf("psu %v: must be a.1, a.2, b.1 or b.2, and on or off", args)
	}
	return c.change(ctx, node, "psu "+args[0]+" "+args[1], func(p power.Chassis) power.Chassis { return p.Cord(supply, in) })
}

// link cuts or restores cables. "lan" is the switch between the nodes: both keep their carrier and their clients.
func (c *core) link(_ context.Context, args []string) error {
	word := args[len(args)-1]
	cut, ok := map[string]bool{"cut": true, "restore": false}[word]
	if !ok {
		return fmt.Errorf("link: %q must be cut or restore", word)
	}
	keys, err := resolve(args[:len(args)-1])
	if err != nil {
		return err
	}
	c.wiring.Lock()
	defer c.wiring.Unlock()
	for _, k := range keys {
		c.wires[k] = cut
	}
	return c.rewire()
}

// rewire makes every living port what wires says. The caller holds wiring.
func (c *core) rewire() error {
	var failed error
	for _, name := range names {
		if !c.powered(name) {
			continue
		}
		for _, p := range hardware[name] {
			var err error
			if c.rough == nil || name != witnessMachine { // a port at the end of a rough way is in no switch
				err = cable.SetIsolated(p.outer(name), c.wires.isolated(name, p))
			}
			err = errors.Join(err, cable.SetCarrier(p.outer(name), c.wires.carrier(name, p, c.powered)))
			if err != nil && cable.Exists(p.outer(name)) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// disk sets a fault of a drive.
func (c *core) disk(_ context.Context, args []string) error {
	d := c.drives[args[0]]
	if d == nil {
		return fmt.Errorf("no drive %q: must be a.0, a.1, b.0 or b.1", args[0])
	}
	ops := []drive.Op{drive.OpRead, drive.OpWrite, drive.OpFlush}
	var f drive.Fault
	for _, w := range args[2:] {
		skip, isSkip := cutNumber(w, "skip=")
		op, err := drive.ParseOp(w)
		switch {
		case w == "once":
			f.Once = true
		case isSkip:
			f.Skip = skip
		case err == nil:
			ops = []drive.Op{op}
		default:
			return fmt.Errorf("disk: %q must be read, write, flush, skip=N or once", w)
		}
	}
	if !slices.Contains([]string{"ok", "eio", "hang"}, args[1]) {
		return fmt.Errorf("disk: %q must be ok, eio or hang", args[1])
	}
	f.Hang = args[1] == "hang"
	for _, op := range ops {
		if args[1] == "ok" {
			d.SetFault(op, nil)
		} else {
			d.SetFault(op, &f)
		}
	}
	return nil
}

func cutNumber(word, prefix string) (int, bool) {
	if len(word) <= len(prefix) || word[:len(prefix)] != prefix {
		return 0, false
	}
	n, err := strconv.Atoi(word[len(prefix):])
	return n, err == nil && n >= 0
}

func (c *core) kill(ctx context.Context, args []string) error {
	_, body, err := c.living(args[0])
	if err != nil {
		return err
	}
	return body.KillUnit(ctx, args[1])
}

func (c *core) stop(ctx context.Context, args []string) error {
	_, body, err := c.living(args[0])
	if err != nil {
		return err
	}
	return body.StopUnit(ctx, args[1])
}

func (c *core) start(ctx context.Context, args []string) error {
	_, body, err := c.living(args[0])
	if err != nil {
		return err
	}
	return body.StartUnit(ctx, args[1])
}

// exec runs a command in a machine on the client's own stdin, stdout and stderr.
func (c *core) exec(ctx context.Context, in incoming) (any, int, error) {
	if len(in.files) != 3 {
		return nil, 0, errors.New("exec needs stdin, stdout and stderr")
	}
	_, body, err := c.living(in.request.Args[0])
	if err != nil {
		return nil, 0, err
	}
	exit, err := body.Exec(ctx, in.request.Args[1:], [3]*os.File(in.files))
	return nil, exit, err
}
