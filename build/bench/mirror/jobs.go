package main

import (
	"fmt"
	"slices"
	"strings"
)

// job is a row of the table of targets. Zero is "no target".
type job struct {
	Name, Text string
	RW         string // --rw of fio
	KiB, Depth int
	Fsync      bool
	Volumes    int // at once, a load on each

	Floor, Goal float64 // of R1, the raw file
	CPUMicros   float64 // of both daemons together, an operation
	TailTimes   float64 // p99 in p50
	UnixTimes   float64 // against QEMU quorum over a unix socket
	TCPTimes    float64 // and over TCP
	TLSTimes    float64 // with the data lane encrypted, of without
	TLSMicros   float64 // p50 with it, beyond p50 without

	// GateCPU is the most CPU a mirrored write may take, in that of QEMU's quorum over a unix socket in the same round.
	// Usual, with TLS: 0.9 to 1.6 at depth 1, 0.6 to 1.2 at depth 32, 1.9 to 3.2 with 128 KiB, on a quiet machine and a busy one. The limit
	// is the upper end of that; with each release that does better it comes down, and it never goes up without a reason beside it.
	GateCPU float64
}

// jobs are the table, and two rows without a target: what lies between depth 1 and 32, and several volumes at once.
var jobs = []job{
	{
		Name: "randwrite-4k-d1", Text: "4 KiB random write, depth 1", RW: "randwrite", KiB: 4, Depth: 1,
		Floor: 0.35, Goal: 0.45, CPUMicros: 190, TailTimes: 3, UnixTimes: 1.1, TLSMicros: 50, GateCPU: 1.6,
	},
	{
		Name: "randwrite-4k-fsync", Text: "same, fsync after each", RW: "randwrite", KiB: 4, Depth: 1, Fsync: true,
		Floor: 0.30, Goal: 0.40, UnixTimes: 1.1,
	},
	{Name: "randwrite-4k-d4", Text: "4 KiB random write, depth 4", RW: "randwrite", KiB: 4, Depth: 4},
	{
		Name: "randwrite-4k-d32", Text: "4 KiB random write, depth 32", RW: "randwrite", KiB: 4, Depth: 32,
		Floor: 0.35, Goal: 0.50, CPUMicros: 50, TailTimes: 4, UnixTimes: 1.1, TCPTimes: 5, TLSTimes: 0.95, GateCPU: 1.2,
	},
	{
		Name: "randread-4k-d1", Text: "4 KiB random read, depth 1", RW: "randread", KiB: 4, Depth: 1,
		Floor: 0.50, Goal: 0.70, TailTimes: 3, UnixTimes: 1.5,
	},
	{
		Name: "randread-4k-d32", Text: "4 KiB random read, depth 32", RW: "randread", KiB: 4, Depth: 32,
		Floor: 0.45, Goal: 0.60, TailTimes: 4, UnixTimes: 1.5, TCPTimes: 5,
	},
	{
		Name: "write-128k-d4", Text: "128 KiB write, depth 4", RW: "write", KiB: 128, Depth: 4,
		Floor: 0.22, Goal: 0.35, UnixTimes: 1.1, TCPTimes: 5, GateCPU: 3.2,
	},
	{
		Name: "write-1m-d4", Text: "1 MiB write, depth 4", RW: "write", KiB: 1024, Depth: 4,
		Floor: 0.28, Goal: 0.45, CPUMicros: 1300, UnixTimes: 1.1, TLSTimes: 0.45,
	},
	{Name: "randwrite-4k-4vol", Text: "4 volumes at once, 4 KiB random write, depth 8 each", RW: "randwrite", KiB: 4, Depth: 8, Volumes: 4},
}

const volumesMax = 4

// gateJobs are what the gates run: a wake-up per write, batches, and payloads that do not fit into one segment.
var gateJobs = []string{"randwrite-4k-d1", "randwrite-4k-d32", "write-128k-d4"}

// The subjects, by name. raw is R1 of the table; the others are told as ratios to it. The targets are those of a data lane that is
// not encrypted, on a cable inside the chassis; TLS has its own.
const (
	raw        = "raw"
	rawTwo     = "raw-two"
	duet       = "duet"
	duetTLS    = "duet-tls"
	oneCopy    = "qemu-one-copy"
	quorumUnix = "qemu-quorum-unix"
	quorumTCP  = "qemu-quorum-tcp"
)

var subjectNames = []string{rawTwo, duet, duetTLS, oneCopy, quorumUnix, quorumTCP}

// runs says whether a subject has this job: several volumes at once only where there are several.
func (j job) runs(subject string) bool {
	return j.Volumes <= 1 || subject == raw || subject == duet || subject == duetTLS
}

func (j job) volumes() int { return max(1, j.Volumes) }

func chosen(names string, gate bool) ([]job, error) {
	if names == "" && gate {
		names = strings.Join(gateJobs, ",")
	}
	if names == "" {
		return jobs, nil
	}
	var some []job
	for name := range strings.SplitSeq(names, ",") {
		at := slices.IndexFunc(jobs, func(j job) bool { return j.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("no job %q; -jobs list names them", name)
		}
		some = append(some, jobs[at])
	}
	return some, nil
}

func chosenSubjects(names string, gate bool) ([]string, error) {
	if names == "" && gate {
		names = duetTLS + "," + quorumUnix
	}
	some := []string{raw}
	if names == "" {
		return append(some, subjectNames...), nil
	}
	for name := range strings.SplitSeq(names, ",") {
		if !slices.Contains(subjectNames, name) {
			return nil, fmt.Errorf("no subject %q: %s", name, strings.Join(subjectNames, ", "))
		}
		some = append(some, name)
	}
	return some, nil
}
