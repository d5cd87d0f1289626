package scenario

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Console is what a counting guest said on one node's serial console: after each boot "RESUME n", the counter it
// found on its disk, then "ACK n" after each write that its fsync confirmed. The file lies outside the node's drives.
type Console struct {
	Resumes []uint64
	Acked   []uint64 // in order
	LastAck uint64
	Acks    int
	Bad     []string // what the guest itself complained about
}

// ReadConsole parses a console log. A node on which the VM never ran has none: that is an empty Console.
func ReadConsole(path string) (Console, error) {
	var c Console
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		word, number, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if !ok {
			continue
		}
		switch word {
		case "RESUME", "ACK":
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				continue // kernel message cut into the line; the next acknowledgement says the same
			}
			if word == "RESUME" {
				c.Resumes = append(c.Resumes, n)
				continue
			}
			c.LastAck, c.Acks, c.Acked = max(c.LastAck, n), c.Acks+1, append(c.Acked, n)
		case "BAD":
			c.Bad = append(c.Bad, number)
		}
	}
	return c, lines.Err()
}

// GuestHistory looks at the consoles of both nodes over the whole life of a guest. The guest counts on from what it finds
// on its disk, so a number that was acknowledged twice was lost in between, or counted by two guests at once. This
// needs no clock, and it also sees a counter that fell back and has long caught up again.
func GuestHistory(consoles ...Console) []string {
	var wrong []string
	times := map[uint64]int{}
	for _, c := range consoles {
		wrong = append(wrong, c.Bad...)
		for _, n := range c.Acked {
			if times[n]++; times[n] == 2 {
				wrong = append(wrong, fmt.Sprintf("the guest acknowledged %d twice", n))
			}
		}
	}
	return wrong
}

// GuestLoss compares what the guest had acknowledged anywhere before its last boot with what it found then.
func GuestLoss(ackedBefore uint64, after Console, bootsBefore int) []string {
	if len(after.Resumes) <= bootsBefore {
		return []string{"the guest did not boot"}
	}
	if found := after.Resumes[len(after.Resumes)-1]; found < ackedBefore {
		return []string{fmt.Sprintf("the guest found counter %d, but %d was acknowledged", found, ackedBefore)}
	}
	return nil
}
