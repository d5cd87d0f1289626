package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxReplyBytes bounds what a client reads: a full site's status has about 100 KiB.
const maxReplyBytes = 8 << 20

// Client speaks to one duetd over its unix socket. Safe for concurrent use.
type Client struct {
	http   http.Client
	socket string
}

// NewClient makes a client; nothing is dialled yet.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{
		Timeout: callTimeout + drainTime,
		Transport: &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
			IdleConnTimeout: 10 * time.Second,
		},
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ContactError: there is no duetd behind the socket, or it does not answer.
type ContactError struct {
	Socket string
	Err    error
}

// Error says where nobody answered.
func (e *ContactError) Error() string {
	return fmt.Sprintf("no contact with duetd at %s: %v", e.Socket, e.Err)
}

// Unwrap is the cause.
func (e *ContactError) Unwrap() error { return e.Err }

// Site is the whole status.
func (c *Client) Site(ctx context.Context) (Site, error) { return get[Site](ctx, c, "/site") }

// Volumes lists the volumes.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	return get[[]Volume](ctx, c, "/volumes")
}

// Volume is one volume.
func (c *Client) Volume(ctx context.Context, name string) (Volume, error) {
	return get[Volume](ctx, c, "/volumes/"+url.PathEscape(name))
}

// VMs lists the VMs.
func (c *Client) VMs(ctx context.Context) ([]VM, error) { return get[[]VM](ctx, c, "/vms") }

// VM is one VM.
func (c *Client) VM(ctx context.Context, name string) (VM, error) {
	return get[VM](ctx, c, "/vms/"+url.PathEscape(name))
}

// StartVM wants the VM to run.
func (c *Client) StartVM(ctx context.Context, name string) (Acted, error) {
	return call[Acted](ctx, c, http.MethodPost, "/vms/"+url.PathEscape(name)+"/start", nil)
}

// StopVM wants the VM not to run.
func (c *Client) StopVM(ctx context.Context, name string) (Acted, error) {
	return call[Acted](ctx, c, http.MethodPost, "/vms/"+url.PathEscape(name)+"/stop", nil)
}

// Fence is the fencing view.
func (c *Client) Fence(ctx context.Context) (Fence, error) { return get[Fence](ctx, c, "/fence") }

// Setup tells how far founding has come.
func (c *Client) Setup(ctx context.Context) (Setup, error) { return get[Setup](ctx, c, "/setup") }

// Answer gives the answers (JSON of site.Document) and returns the task that founds the site.
func (c *Client) Answer(ctx context.Context, document []byte) (Task, error) {
	return call[Task](ctx, c, http.MethodPost, "/setup/answer", document)
}

// Task is a long action; after a restart of duetd it is unknown (SYS-9004) and Setup tells more.
func (c *Client) Task(ctx context.Context, id string) (Task, error) {
	return get[Task](ctx, c, "/tasks/"+url.PathEscape(id))
}

// CancelTask ends a long action; it is over when Task says so.
func (c *Client) CancelTask(ctx context.Context, id, reason string) (Task, error) {
	return post[Task](ctx, c, "/tasks/"+url.PathEscape(id)+"/cancel", Reason{reason})
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

func call[T any](ctx context.Context, c *Client, method, path string, body []byte) (T, error) {
	var result T
	req, err := http.NewRequestWithContext(ctx, method, "http://duetd"+base+path, bytes.NewReader(body))
	if err != nil {
		return result, fmt.Errorf("request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // the address in it is of no use to a person
		}
		return result, &ContactError{c.socket, err}
	}
	defer resp.Body.Close() // read to its end below
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes))
	if err != nil {
		return result, &ContactError{c.socket, err}
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case err == nil && kind == "application/problem+json":
		p := &Problem{}
		if err := json.Unmarshal(data, p); err != nil || p.Code == "" {
			return result, &ContactError{c.socket, fmt.Errorf("an answer of another program: %s", resp.Status)}
		}
		return result, p
	case resp.StatusCode/100 != 2:
		return result, &ContactError{c.socket, fmt.Errorf("an answer of another program: %s", resp.Status)}
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return result, &ContactError{c.socket, fmt.Errorf("answer: %w", err)}
	}
	return result, nil
}
