package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"duet/build/lab"
	"duet/build/pgwriter"
)

// writersLog is on the machine of the clients, which nothing cuts off.
const writersLog = "/var/log/bench-pg.log"

// The load: enough to see a gap to a hundredth of a second, and far from what two busy cores can do.
const (
	writersCount = 4
	writersEvery = 10 * time.Millisecond
)

// statementMost is longer than a writer waits for one answer: lines of the log are in the order of their ends.
const statementMost = time.Minute

// writers are clients of a pair.
type writers struct {
	p      pair
	file   string
	cancel context.CancelFunc
	done   chan struct{}
	read   int64 // of the file
	told   []pgwriter.Op
}

func write(p pair) *writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{
		p: p, file: filepath.Join(p.site().State(), lab.Client, "upper", writersLog), cancel: cancel, done: make(chan struct{}),
	}
	go func() {
		defer close(w.done)
		// It ends by ctx; its log is what counts.
		_, _ = p.site().Exec(ctx, lab.Client, "scenario", "pgwriter", "-url", p.url(), "-log", writersLog,
			"-writers", fmt.Sprint(writersCount), "-every", writersEvery.String())
	}()
	return w
}

func (w *writers) stop() {
	w.cancel()
	<-w.done
}

// ops are all lines so far. Only what is new is read: a look during an outage must not cost the pairs their processor.
func (w *writers) ops() ([]pgwriter.Op, error) {
	f, err := os.Open(w.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, w.read, math.MaxInt64-w.read))
	if err != nil {
		return nil, err
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1] // the last line may be half there
	fresh, err := pgwriter.Read(bytes.NewReader(whole))
	w.read += int64(len(whole))
	w.told = append(w.told, fresh...)
	return w.told, err
}

// more waits for rows that are written and acknowledged from now on.
func (w *writers) more(ctx context.Context, count int) error {
	from := time.Now().UnixMicro()
	return until(ctx, syncLimit, "acknowledged rows", func(context.Context) error {
		ops, err := w.ops()
		if err != nil {
			return err
		}
		seen, last := 0, ""
		for _, o := range slices.Backward(ops) {
			if o.Start < from-statementMost.Microseconds() {
				break
			}
			if o.State == pgwriter.Acked && o.Start > from {
				seen++
			}
		}
		if len(ops) > 0 {
			last = ops[len(ops)-1].Detail
		}
		if seen < count {
			return fmt.Errorf("%d of %d, the last one said %q", seen, count, last)
		}
		return nil
	})
}

// judge compares what the writers were told so far with what the primary has now.
func (w *writers) judge(ctx context.Context, primary string) (pgwriter.Verdict, []pgwriter.Op, error) {
	ops, err := w.ops() // before the table is read: what is acknowledged here must be there
	if err != nil {
		return pgwriter.Verdict{}, nil, err
	}
	out, err := w.p.sql(ctx, primary, databaseName, "SELECT writer || ' ' || n FROM rows")
	if err != nil {
		return pgwriter.Verdict{}, nil, err
	}
	var rows []pgwriter.Row
	for line := range strings.Lines(string(out)) {
		var r pgwriter.Row
		if _, err := fmt.Sscan(line, &r.Writer, &r.N); err != nil {
			return pgwriter.Verdict{}, nil, fmt.Errorf("row %q: %w", line, err)
		}
		rows = append(rows, r)
	}
	return pgwriter.Judge(ops, rows), ops, nil
}
