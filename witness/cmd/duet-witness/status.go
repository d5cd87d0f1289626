package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"duet/witness/server"
)

// door is where a running witness tells its status: a socket in its own folder, mode 0600. Whoever connects is told and
// sent away; nothing is ever read from it, so there is nothing to protect but the counters.
type door struct{ ln net.Listener }

const (
	doorName  = "status.sock"
	doorLimit = 5 * time.Second // for one caller, the store's answer included
)

func openDoor(data string) (door, error) {
	path := filepath.Join(data, doorName)
	// One that a killed process left. Another living one is not hurt: it holds the store or its lock, and we are past that.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return door{}, fmt.Errorf("status socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return door{}, fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return door{}, errors.Join(fmt.Errorf("status socket: %w", err), ln.Close())
	}
	return door{ln}, nil
}

const doorPause = 100 * time.Millisecond // after an error of the listener, no open file left for example: it passes

// serve tells one caller after another until ctx ends.
func (d door) serve(ctx context.Context, s *server.Server, log *slog.Logger) {
	stop := context.AfterFunc(ctx, func() { _ = d.ln.Close() }) // removes the socket too
	defer stop()
	for {
		conn, err := d.ln.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			log.Warn("nobody can ask for the status now", "error", err)
			select {
			case <-time.After(doorPause):
			case <-ctx.Done():
			}
			continue
		}
		limited, cancel := context.WithTimeout(ctx, doorLimit)
		_ = conn.SetDeadline(time.Now().Add(doorLimit))
		if err := json.NewEncoder(conn).Encode(s.Status(limited)); err != nil {
			log.Debug("status was not taken", "error", err)
		}
		cancel()
		_ = conn.Close()
	}
}

func (c command) status(ctx context.Context, stdout io.Writer) error {
	if c.output != "text" && c.output != "json" {
		return fmt.Errorf("%w: -o is text or json", errUsage)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.data, doorName))
	if err != nil {
		return fmt.Errorf("no witness serves from %s: %w", c.data, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * doorLimit))
	text, err := io.ReadAll(conn)
	var status server.Status
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if c.output == "json" {
		_, err = stdout.Write(text)
		return err
	}
	return printStatus(stdout, status)
}

func printStatus(stdout io.Writer, s server.Status) error {
	out := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	health := "healthy"
	if !s.Store.Healthy {
		health = "no answers: " + s.Store.Error
	}
	fmt.Fprintf(out, "up\t%s\n", (time.Duration(s.Uptime) * time.Second).String())
	fmt.Fprintf(out, "store\t%s, %s\n", s.Store.Kind, health)
	fmt.Fprintf(out, "sites\t%d enrolled, %d with registers\n", s.Enrolled, s.Store.Sites)
	fmt.Fprintf(out, "registers\t%d kept\n", s.Store.Registers)
	fmt.Fprintf(out, "connections\t%d of %d nodes, %d accepted\n", s.Connections, s.Nodes, s.Accepted)
	printCounts(out, "requests", s.Requests)
	printCounts(out, "answers", s.Results)
	printCounts(out, "refused", s.Refusals)
	return out.Flush()
}

func printCounts(out io.Writer, title string, counts map[string]uint64) {
	if len(counts) == 0 {
		fmt.Fprintf(out, "%s\tnone\n", title)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(out, "%s\t%d\t%s\n", title, counts[name], name)
		title = ""
	}
}
