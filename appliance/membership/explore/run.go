package explore

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"runtime/debug"
	"sync"
	"time"
)

// Summary is the JSON line at the end of a run.
type Summary struct {
	States      int      `json:"states"`
	Transitions int      `json:"transitions"`
	Depth       int      `json:"depth"`
	Walks       int      `json:"walks"`
	Steps       int      `json:"steps"`
	Seconds     float64  `json:"seconds"`
	Violations  int      `json:"violations"`
	Seeds       int      `json:"seeds"` // replayed
	Mutants     int      `json:"mutants"`
	Survivors   []string `json:"survivors"` // guards whose mutant no search has caught; each is listed with a reason
	Complete    []string `json:"complete"`  // worlds visited whole
	Seed        uint64   `json:"seed"`      // first of the walks
}

func (s *Summary) add(r Result) {
	s.States += r.States
	s.Transitions += r.Transitions
	s.Depth = max(s.Depth, r.Depth*min(r.States, 1))
	s.Walks += r.Walks
	s.Steps += r.Steps
	if r.Complete {
		s.Complete = append(s.Complete, r.World)
	}
	if r.Violation != nil {
		s.Violations++
	}
}

// deepStates ends a search to a depth: about 3 GB.
const deepStates = 6_000_000

// Main is the command: it returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("explore", flag.ContinueOnError)
	flags.SetOutput(stderr)
	budget := flags.Duration("budget", time.Minute, "how long to search; the complete worlds are always finished")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the first walk; the next ones follow")
	only := flags.String("world", "", "search only this world, by walks and to a depth")
	gate := flags.String("gate", "", "program that runs the mutant gate (this one, built with the tag mutants)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	run := run{stderr: stderr, begin: time.Now(), deadline: time.Now().Add(*budget)}
	run.sum.Seed = *seed
	switch p := Worlds[*only]; {
	case *only == "":
		run.all()
		if *gate != "" {
			run.mutants(*gate)
		}
	case p == nil:
		fmt.Fprintf(stderr, "explore: no world %q; worlds:", *only)
		for _, list := range [][]*Params{Complete, Deep, Wide} {
			for _, p := range list {
				fmt.Fprintf(stderr, " %s", p.Name)
			}
		}
		fmt.Fprintln(stderr)
		return 2
	default:
		run.done(p.Walks(*seed, 0, run.begin.Add(*budget/2)))
		run.done(p.BFS(Bounds{States: deepStates, Deadline: run.deadline}))
	}
	run.sum.Seconds = time.Since(run.begin).Round(10 * time.Millisecond).Seconds()
	line, err := json.Marshal(run.sum)
	if err != nil {
		fmt.Fprintf(stderr, "explore: %v\n", err)
		return 2
	}
	fmt.Fprintf(stdout, "%s\n", line)
	return min(run.sum.Violations, 1)
}

// run is one run of the command.
type run struct {
	mu              sync.Mutex
	stderr          io.Writer
	begin, deadline time.Time
	sum             Summary
}

func (r *run) done(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.add(res)
	fmt.Fprintf(r.stderr, "%6.1fs %v\n", time.Since(r.begin).Seconds(), res)
	if v := res.Violation; v != nil {
		fmt.Fprintf(r.stderr, "VIOLATION (walk seed %d) %v\nactions for testdata/seeds:\n%s", v.Seed, v, v.Actions())
	}
}

// mutants runs the gate in a program of its own: no switch exists in the code that is explored here.
func (r *run) mutants(program string) {
	cmd := exec.Command(program)
	cmd.Stderr = r.stderr
	out, err := cmd.Output()
	var sum struct {
		Mutants   int
		Survivors []string
	}
	if bad := json.Unmarshal(out, &sum); err != nil || bad != nil {
		r.sum.Violations++
		fmt.Fprintf(r.stderr, "VIOLATION mutant gate: %v\n", errors.Join(err, bad))
	}
	r.sum.Mutants, r.sum.Survivors = sum.Mutants, sum.Survivors
}

// all: seeds, then on one side the worlds breadth-first, on the other the walks.
func (r *run) all() {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	seeds, err := Replay(seedFiles)
	r.sum.Seeds = seeds
	if err != nil {
		r.sum.Violations++
		fmt.Fprintf(r.stderr, "VIOLATION %v\n", err)
	}
	var wait sync.WaitGroup
	wait.Go(r.breadthFirst)
	wait.Go(r.walks)
	wait.Wait()
}

func (r *run) breadthFirst() {
	for _, p := range Complete {
		r.done(p.BFS(Bounds{}))
	}
	for i, p := range Deep {
		share := time.Until(r.deadline) / time.Duration(len(Deep)-i)
		r.done(p.BFS(Bounds{States: deepStates, Deadline: time.Now().Add(share)}))
	}
}

func (r *run) walks() {
	for i, p := range Wide {
		share := time.Until(r.deadline) / time.Duration(len(Wide)-i)
		r.done(p.Walks(r.sum.Seed, 0, time.Now().Add(share)))
	}
}
