package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"duet/build/probe"
)

// probeLoad runs the block client in the node that owns the probe volume, and keeps its history over all nodes.
type probeLoad struct {
	site    *Site
	node    string
	runs    int
	history probe.History
	cancel  context.CancelFunc
	done    chan struct{} // closed when the writer's command has ended
	log     string
}

// start begins writing on node; what was acknowledged before stays known.
func (p *probeLoad) start(node string) error {
	p.runs++
	p.node = node
	name := fmt.Sprintf("/var/log/duet/probe-%d.log", p.runs)
	p.log = p.site.nodeFile(node, name)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.cancel, p.done = cancel, done
	go func() {
		defer close(done)
		// It ends by ctx, or with its node; what it was told is in its log.
		_, _ = p.site.Lab.Exec(ctx, node, "scenario", "probe",
			"-export", ProbeVolume, "-log", name, "-blocks", strconv.Itoa(p.site.sizes.ProbeBlocks),
			"-first", strconv.FormatUint(p.history.Last+1, 10))
	}()
	return nil
}

// apart is more numbers than one writer uses: those of two writers at the same time never meet.
const apart = 1 << 32

// beside starts one more writer, on another node, while this one may go on.
func (p *probeLoad) beside(node string) (*probeLoad, error) {
	w := &probeLoad{site: p.site, runs: p.runs, history: probe.History{Last: p.history.Last + apart}}
	err := w.start(node)
	p.runs = w.runs
	return w, err
}

// stop ends the writer, if one runs.
func (p *probeLoad) stop() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	<-p.done
	p.cancel = nil
}

// collect ends the writer and takes what it noted into the history. A writer that still lived while its log is read
// would issue writes that nobody knows of: it is waited for, and a node without power has none.
func (p *probeLoad) collect(ctx context.Context) error {
	if p.cancel == nil {
		return nil
	}
	p.stop()
	if err := p.site.wait(ctx, "the end of the probe on "+p.node, takeoverLimit, func() (bool, string) {
		st, err := p.site.Lab.Status(ctx)
		if err != nil {
			return false, err.Error()
		}
		switch st.Machines[p.node].Power {
		case "on":
		case "hung": // its writer may wake and issue what nobody knows of
			return false, p.node + " hangs"
		default:
			return true, ""
		}
		_, err = p.site.Lab.Exec(ctx, p.node, "sh", "-c", "! pgrep -x scenario")
		return err == nil, fmt.Sprint(err)
	}); err != nil {
		return err
	}
	losses, err := p.site.losses()
	if err != nil {
		return err
	}
	p.history.Losses = losses
	return p.read(&p.history)
}

// lives says whether the writer still runs. Its command ends with its node.
func (p *probeLoad) lives() bool {
	select {
	case <-p.done:
		return false
	default:
		return p.cancel != nil
	}
}

// peek is the history as of now, while the writer goes on.
func (p *probeLoad) peek() (probe.History, error) {
	var h probe.History
	err := p.read(&h)
	return h, err
}

func (p *probeLoad) read(h *probe.History) error {
	f, err := os.Open(p.log)
	if err != nil {
		return fmt.Errorf("probe log: %w", err)
	}
	defer func() { _ = f.Close() }()
	return h.Load(f)
}

// lost reads the export back on its owner and compares it with all that was acknowledged.
func (p *probeLoad) lost(ctx context.Context, node string) ([]string, error) {
	losses, err := p.site.losses()
	if err != nil {
		return nil, err
	}
	p.history.Losses = losses
	text, err := p.site.Lab.Exec(ctx, node, "scenario", "readback", "-export", ProbeVolume, "-blocks", strconv.Itoa(p.site.sizes.ProbeBlocks))
	if err != nil {
		return nil, fmt.Errorf("reading the probe volume back on %s: %w", node, err)
	}
	var contents []probe.Content
	if err := json.Unmarshal(text, &contents); err != nil {
		return nil, fmt.Errorf("readback on %s: %w", node, err)
	}
	return p.history.Lost(contents), nil
}
