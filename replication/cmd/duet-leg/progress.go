package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells how far a check is, once a second: on a terminal in one line, else, if asked for, in lines.
type progress struct {
	w            io.Writer // nil: nothing is told
	terminal     bool
	now          func() time.Time
	start, shown time.Time
}

func newProgress(stderr io.Writer, wanted bool) *progress {
	p := &progress{now: time.Now}
	if f, ok := stderr.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	if wanted || p.terminal {
		p.w = stderr
	}
	return p
}

func (p *progress) at(done, total int64) {
	if p.w == nil {
		return
	}
	now := p.now()
	if p.start.IsZero() {
		p.start, p.shown = now, now
	}
	if now.Sub(p.shown) >= time.Second {
		p.shown = now
		p.show(now, done, total)
	}
}

func (p *progress) end(total int64) {
	if p.w == nil {
		return
	}
	p.show(p.now(), total, total)
	if p.terminal {
		fmt.Fprintln(p.w)
	}
}

func (p *progress) show(now time.Time, done, total int64) {
	begin, end := "", "\n"
	if p.terminal {
		begin, end = "\r", "\x1b[K"
	}
	percent, rate := int64(100), int64(0)
	if total > 0 {
		percent = done * 100 / max(total, 1)
	}
	if t := now.Sub(p.start).Seconds(); t > 0 {
		rate = int64(float64(done) / t / (1 << 20))
	}
	fmt.Fprintf(p.w, "%s%d of %d bytes, %d %%, %d MiB/s%s", begin, done, total, percent, rate, end)
}
