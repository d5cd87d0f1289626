package mirror

import (
	"context"

	"duet/replication/block"
	"duet/replication/internal/batch"
	"duet/replication/volume"
)

// guest is a volume as the NBD server uses it: a request is begun if its way is free, and waits like any other one if not. So
// every test is one of both ways.
type guest struct{ *volume.Volume }

func (g guest) ReadAt(ctx context.Context, p []byte, off int64) error {
	var b batch.Batch
	answer := make(chan error, 1)
	begun := g.BeginRead(ctx, &b, off, int64(len(p)), func(_ *batch.Batch, got []byte, err error) {
		if err == nil {
			copy(p, got)
			block.Put(got)
		}
		answer <- err
	})
	b.End()
	if !begun {
		return g.Volume.ReadAt(ctx, p, off)
	}
	return <-answer
}

func (g guest) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	var b batch.Batch
	answer := make(chan error, 1)
	begun := !fua && g.BeginWrite(ctx, &b, p, off, func(_ *batch.Batch, err error) { answer <- err })
	b.End()
	if !begun {
		return g.Volume.WriteAt(ctx, p, off, fua)
	}
	return <-answer
}

func (g guest) Flush(ctx context.Context) error {
	var b batch.Batch
	answer := make(chan error, 1)
	begun := g.BeginFlush(ctx, &b, func(_ *batch.Batch, err error) { answer <- err })
	b.End()
	if !begun {
		return g.Volume.Flush(ctx)
	}
	return <-answer
}
