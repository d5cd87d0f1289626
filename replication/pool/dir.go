package pool

import (
	"context"

	"duet/replication/block"
	"duet/replication/meta"
)

// Spec says what leg to create.
type Spec struct {
	Site, Volume meta.ID
	Node         uint8 // 0 a, 1 b
	SizeBytes    int64 // multiple of 4096
	Software     string
}

// Entry is one leg of the pool.
type Entry struct {
	Volume    meta.ID
	SizeBytes int64 // of data
}

// Dir is a directory pool: <path>/<volume id>/{data,meta}.
type Dir struct{}

// OpenDir locks the pool and removes what an interrupted Create left.
func OpenDir(path string) (*Dir, error) { panic("unfinished") }

// Create makes a whole leg: zeroed data, formatted meta in state New.
func (d *Dir) Create(ctx context.Context, s Spec, progress func(done, total int64)) error {
	panic("unfinished")
}

// Open opens both objects of a leg under their exclusive locks.
func (d *Dir) Open(id meta.ID) (data, meta block.Device, err error) { panic("unfinished") }

// List is every leg, by volume id.
func (d *Dir) List() ([]Entry, error) { panic("unfinished") }

// Remove renames the leg to trash.
func (d *Dir) Remove(id meta.ID) error { panic("unfinished") }

// Purge deletes all trash.
func (d *Dir) Purge() error { panic("unfinished") }

// Free is how many bytes a new leg may take.
func (d *Dir) Free() (int64, error) { panic("unfinished") }

// Close gives the lock back.
func (d *Dir) Close() error { panic("unfinished") }
