package volume

import (
	"context"

	"duet/replication/volume/stage"
)

// NextDirty is the first run of bytes within [off, end) that the other leg may lack, as this leg's dirty map knows it;
// n = 0: there is none. It is held like a read, because only who may answer reads knows, and it changes nothing.
func (v *Volume) NextDirty(ctx context.Context, off, end int64) (from, n int64, err error) {
	if err := v.inRange(off, end-off); err != nil {
		return 0, 0, err
	}
	if err := v.await(ctx, stage.AdmitsReads); err != nil {
		return 0, 0, err
	}
	from, n = v.md().Dirty().NextIn(off/Block, end/Block)
	return from * Block, n * Block, nil
}
