package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// load is what fio says of one cell, all its jobs together.
type load struct {
	ops       uint64
	perSecond float64
	latency   histogram // of reads or writes, submission included
	flush     histogram // of the fsync after each, if the job has them
	cpu       time.Duration
}

// fioOutput is the part of --output-format=json+ that counts. The load is one-way: the other direction is empty.
type fioOutput struct {
	Jobs []struct {
		Error   int     `json:"error"`
		Runtime float64 `json:"job_runtime"` // ms
		User    float64 `json:"usr_cpu"`     // per cent of it
		System  float64 `json:"sys_cpu"`
		Read    fioSide `json:"read"`
		Write   fioSide `json:"write"`
		Sync    fioSide `json:"sync"`
	} `json:"jobs"`
}

type fioSide struct {
	Total   uint64  `json:"total_ios"`
	IOPS    float64 `json:"iops"`
	Latency struct {
		Max  float64           `json:"max"`
		Bins map[string]uint64 `json:"bins"`
	} `json:"lat_ns"`
}

var errNothingDone = errors.New("fio did nothing")

// parseFio reads fio's report; its NBD engine greets on stdout before it.
func parseFio(out []byte) (load, error) {
	var l load
	start := bytes.IndexByte(out, '{')
	if start < 0 {
		return l, fmt.Errorf("no report of fio: %.200q", out)
	}
	var o fioOutput
	if err := json.Unmarshal(out[start:], &o); err != nil {
		return l, fmt.Errorf("report of fio: %w", err)
	}
	for _, j := range o.Jobs {
		if j.Error != 0 {
			return l, fmt.Errorf("fio: %w", syscall.Errno(j.Error))
		}
		for _, side := range []fioSide{j.Read, j.Write} {
			l.ops += side.Total
			l.perSecond += side.IOPS
			if err := side.into(&l.latency); err != nil {
				return l, err
			}
		}
		if err := j.Sync.into(&l.flush); err != nil {
			return l, err
		}
		l.cpu += time.Duration((j.User + j.System) / 100 * j.Runtime * float64(time.Millisecond))
	}
	if l.ops == 0 {
		return l, errNothingDone
	}
	return l, nil
}

func (s fioSide) into(h *histogram) error {
	bins := map[time.Duration]uint64{}
	for text, n := range s.Latency.Bins {
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("bin of fio: %w", err)
		}
		bins[time.Duration(ns)] = n
	}
	h.add(histogram{bins: bins, max: time.Duration(s.Latency.Max)})
	return nil
}

// fioArgs are the options of one cell: a load on each place.
func fioArgs(j job, places []place, mib int, length time.Duration, seed uint64) []string {
	args := []string{
		"--output-format=json+", "--thread", "--lat_percentiles=1", "--clat_percentiles=0",
		"--time_based", fmt.Sprintf("--runtime=%dms", length.Milliseconds()),
		"--rw=" + j.RW, fmt.Sprintf("--bs=%dk", j.KiB), fmt.Sprintf("--iodepth=%d", j.Depth), fmt.Sprintf("--size=%dm", mib),
		"--norandommap", "--randrepeat=0", fmt.Sprintf("--randseed=%d", seed),
	}
	if j.Fsync {
		args = append(args, "--fsync=1")
	}
	return append(args, placeArgs(places)...)
}

// fillArgs write every byte once, with random data.
func fillArgs(places []place, mib int) []string {
	args := []string{"--output-format=json+", "--thread", "--rw=write", "--bs=1m", "--iodepth=4", fmt.Sprintf("--size=%dm", mib), "--refill_buffers", "--end_fsync=1"}
	return append(args, placeArgs(places)...)
}

// place is where a load goes: a raw file or an export.
type place struct{ file, uri string }

func placeArgs(places []place) []string {
	var args []string
	for i, p := range places {
		args = append(args, fmt.Sprintf("--name=load%d", i))
		if p.uri != "" {
			args = append(args, "--ioengine=nbd", "--uri="+p.uri)
		} else {
			args = append(args, "--ioengine=io_uring", "--direct=1", "--filename="+p.file)
		}
	}
	return args
}

// fio runs to its end; it is killed with this process, and when it takes far longer than it should.
func fio(ctx context.Context, limit time.Duration, args []string) (load, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("fio did not end within %v", limit))
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "fio", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return load{}, context.Cause(ctx)
		}
		return load{}, fmt.Errorf("fio: %w: %.500s", err, errs.Bytes())
	}
	return parseFio(out.Bytes())
}
