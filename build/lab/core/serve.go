package core

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"duet/build/lab/control"
)

// connectionsMax bounds the clients of the control socket.
const connectionsMax = 64

func (c *core) serve(l *net.UnixListener) {
	slots := make(chan struct{}, connectionsMax)
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			slog.Error("control socket", "error", err)
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			conn := control.NewConn(u)
			defer conn.Close()
			c.converse(conn)
		}()
	}
}

// converse answers one client's requests in order. A client that goes away ends the command it waits for.
func (c *core) converse(conn *control.Conn) {
	requests := make(chan incoming)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		for {
			var in incoming
			files, err := conn.Receive(&in.request)
			if err != nil {
				return
			}
			in.files = files
			select {
			case requests <- in:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case in := <-requests:
			r := c.do(ctx, in)
			for _, f := range in.files {
				f.Close()
			}
			if err := conn.Send(r); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

type incoming struct {
	request control.Request
	files   []*os.File
}

// do carries out one verb.
func (c *core) do(ctx context.Context, in incoming) control.Reply {
	verb, args := in.request.Verb, in.request.Args
	v, ok := c.verbs[verb]
	if !ok {
		return control.Reply{Error: fmt.Sprintf("no verb %q; there are: %s", verb, strings.Join(slices.Sorted(maps.Keys(c.verbs)), ", "))}
	}
	if len(args) < v.min || v.max >= 0 && len(args) > v.max {
		return control.Reply{Error: "usage: " + v.usage}
	}
	if !v.quiet {
		c.events.add("", "verb", strings.Join(append([]string{verb}, args...), " "))
	}
	value, exit, err := v.do(c, ctx, in)
	r := control.Reply{Exit: exit}
	if err == nil && value != nil {
		r.Value, err = json.Marshal(value)
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
