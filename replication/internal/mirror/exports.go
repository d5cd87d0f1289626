package mirror

import (
	"context"
	"errors"

	"duet/replication/internal/batch"
	"duet/replication/nbd"
	"duet/replication/volume"
)

// Exports is the NBD server's view of the volumes.
type Exports struct{ m *Mirror }

// Exports of this mirror.
func (m *Mirror) Exports() Exports { return Exports{m} }

// Exports lists the configured volumes.
func (x Exports) Exports() []nbd.Export {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	var out []nbd.Export
	for _, vc := range x.m.config.Volumes {
		if x.m.names[vc.Name] != nil {
			out = append(out, nbd.Export{Name: vc.Name})
		}
	}
	return out
}

// Open finds a volume by name. Before the first configuration nobody knows what exists, so the client waits: a
// guest's disk connects while the daemon restarts.
func (x Exports) Open(ctx context.Context, name string) (nbd.Volume, error) {
	for {
		x.m.mu.Lock()
		e, configured, appeared := x.m.names[name], x.m.configured, x.m.appeared
		x.m.mu.Unlock()
		switch {
		case e != nil:
			return export{e.vol}, nil
		case configured:
			return nil, nbd.ErrUnknown
		}
		select {
		case <-appeared:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-x.m.ctx.Done():
			return nil, nbd.ErrGone
		}
	}
}

// export makes a volume speak the NBD server's interface; package volume knows no NBD type.
type export struct{ v *volume.Volume }

// gone turns the end of the daemon into the end of the connection.
func gone(err error) error {
	if errors.Is(err, volume.ErrClosed) {
		return nbd.ErrGone
	}
	return err
}

func (e export) Size() int64 { return e.v.Size() }

func (e export) ReadAt(ctx context.Context, p []byte, off int64) error {
	return gone(e.v.ReadAt(ctx, p, off))
}

func (e export) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	return gone(e.v.WriteAt(ctx, p, off, fua))
}

func (e export) BeginRead(ctx context.Context, b *batch.Batch, off, n int64, done func(*batch.Batch, []byte, error)) bool {
	return e.v.BeginRead(ctx, b, off, n, func(b *batch.Batch, p []byte, err error) { done(b, p, gone(err)) })
}

func (e export) BeginWrite(ctx context.Context, b *batch.Batch, p []byte, off int64, done func(*batch.Batch, error)) bool {
	return e.v.BeginWrite(ctx, b, p, off, func(b *batch.Batch, err error) { done(b, gone(err)) })
}

func (e export) BeginFlush(ctx context.Context, b *batch.Batch, done func(*batch.Batch, error)) bool {
	return e.v.BeginFlush(ctx, b, func(b *batch.Batch, err error) { done(b, gone(err)) })
}

func (e export) Flush(ctx context.Context) error { return gone(e.v.Flush(ctx)) }

func (e export) Zero(ctx context.Context, off, n int64, fua bool) error {
	return gone(e.v.Zero(ctx, off, n, fua))
}

func (e export) Trim(ctx context.Context, off, n int64) error { return gone(e.v.Trim(ctx, off, n)) }

func (e export) NextDirty(ctx context.Context, off, end int64) (from, n int64, err error) {
	from, n, err = e.v.NextDirty(ctx, off, end)
	return from, n, gone(err)
}

func (e export) Close() {}

func (e export) Live() bool { return e.v.Live() }

func (e export) Term() uint64 { return e.v.Term() }

func (e export) Wait(ctx context.Context) error { return gone(e.v.AwaitLive(ctx)) }
