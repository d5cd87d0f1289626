package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"duet/appliance/event"
)

// The limits, with their reasons.
const (
	callTimeout  = 30 * time.Second // of one request: a VM's start may take 20 s on a busy machine
	maxBodyBytes = 1 << 20          // of a request: the site document
	headerWait   = 5 * time.Second  // a client that sends half a request
	drainTime    = 2 * time.Second  // for requests under way when duetd stops
)

// DefaultSocket is where duetd listens.
const DefaultSocket = "/run/duet/duetd.sock"

// ServerConfig is everything a server needs.
type ServerConfig struct {
	Backend      Backend
	Node         string        // "a" or "b"
	Version      string        // of duet
	SetupTimeout time.Duration // of founding: two live fence tests with a boot each; 0: 10 min
	AllowUID     uint32        // who may connect: 0, root
	Products     []string      // PDU products that this build knows; empty: not checked
	Log          *slog.Logger
}

// Server serves the API. Its zero value is not useful; make it with NewServer.
type Server struct {
	cfg   ServerConfig
	tasks taskTable
	http  http.Handler
	ctx   context.Context // of tasks: ends with Serve
	stop  context.CancelFunc
}

// NewServer makes a server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.SetupTimeout == 0 {
		cfg.SetupTimeout = 10 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, tasks: taskTable{node: cfg.Node, now: time.Now}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	s.routes(humago.New(mux, humaConfig(cfg.Version)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, event.New(event.UnknownObject, "path", r.Method+" "+r.URL.Path))
	})
	s.http = s.guard(mux)
	return s
}

// humaConfig: no documentation viewer (huma's default loads one from a public network), no $schema links in bodies.
func humaConfig(version string) huma.Config {
	cfg := huma.DefaultConfig("duet", version)
	cfg.DocsPath, cfg.SchemasPath, cfg.OpenAPIPath = "", "", base+"/openapi"
	cfg.CreateHooks = nil
	cfg.Transformers = []huma.Transformer{withCode}
	return cfg
}

// Listen makes the unix socket: a stale one is removed, a living one is an error.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s: another duetd answers", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers until ctx ends, then lets requests under way finish for a moment, ends the running task and waits for it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.tasks.live.Wait()
	defer s.stop()
	h := &http.Server{
		Handler: s.http, ReadHeaderTimeout: headerWait, WriteTimeout: callTimeout + drainTime, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, callerKey{}, callerOf(c))
		},
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("local API: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := h.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = h.Close()
	}
	<-done //nolint:errcheck // http.ErrServerClosed, always
	if err != nil {
		return fmt.Errorf("stop of the local API: %w", err)
	}
	return nil
}

type callerKey struct{}

// caller is who connected, as the kernel says (SO_PEERCRED).
type caller struct {
	uid   uint32
	known bool
}

func callerOf(c net.Conn) caller {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return caller{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return caller{}
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cred == nil {
		return caller{}
	}
	return caller{uid: cred.Uid, known: true}
}

// guard is around every request: who asks, how long it may take, how much it may send, and what happens to a panic.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(callerKey{}).(caller)
		if !who.known || who.uid != s.cfg.AllowUID {
			writeProblem(w, event.New(event.NotRoot, "uid", fmt.Sprint(who.uid)))
			return
		}
		defer func() {
			if broken := recover(); broken != nil {
				s.cfg.Log.Error("request panicked", "path", r.URL.Path, "panic", broken, "stack", string(debug.Stack()))
				writeProblem(w, event.New(event.Internal, "error", "the request was ended by a fault of duetd"))
			}
		}()
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func writeProblem(w http.ResponseWriter, f *event.Fault) {
	p := fromFault(f)
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(p); err != nil {
		http.Error(w, p.Code, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body.Bytes()) //nolint:errcheck // the client is gone
}
