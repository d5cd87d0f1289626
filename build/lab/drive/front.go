package drive

import (
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"duet/build/lab/fusefile"
)

// FileName is the drive's file in the folder where it is attached.
const FileName = "disk"

// Front is one attachment of a drive: a FUSE file system with one file. It ends with the power, and the next
// power-on gets a new one, so a late request of a dying node never reaches the medium.
type Front struct {
	fuse.RawFileSystem
	drive  *Drive
	number int
	dir    string
}

// Attach mounts the drive at dir, which is made.
func (d *Drive) Attach(dir string) (*Front, error) {
	d.mu.Lock()
	d.front++
	f := &Front{RawFileSystem: fuse.NewDefaultRawFileSystem(), drive: d, number: d.front, dir: dir}
	d.mu.Unlock()
	if err := fusefile.Mount(dir, "duet-lab-drive", f); err != nil {
		return nil, err
	}
	return f, nil
}

// File is the path of the drive's file.
func (f *Front) File() string { return filepath.Join(f.dir, FileName) }

// Abandon answers EIO to what waits on this front end and to all that comes; the drive keeps its cache. It is for a
// node whose kernel died while its power stays on.
func (f *Front) Abandon() {
	d := f.drive
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = max(d.dead, f.number)
	d.gone.Broadcast()
}

// Detach takes the mount away.
func (f *Front) Detach() error { return fusefile.Unmount(f.dir) }

// String names the file system in go-fuse's messages.
func (f *Front) String() string { return "duet-lab-drive" }

func (f *Front) attr(node uint64, a *fuse.Attr) { fusefile.Attr(node, f.drive.size, a) }

// Lookup knows one name.
func (f *Front) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != fuse.FUSE_ROOT_ID || name != FileName {
		return fuse.ENOENT
	}
	out.NodeId = fusefile.Node
	f.attr(fusefile.Node, &out.Attr)
	return fuse.OK
}

// GetAttr answers stat.
func (f *Front) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// SetAttr refuses to change a drive's size and ignores the rest (times).
func (f *Front) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Valid&fuse.FATTR_SIZE != 0 {
		return fuse.EINVAL
	}
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// Open gives every opener direct I/O: no page of this file is ever cached outside the drive.
func (f *Front) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != fusefile.Node {
		return fuse.EINVAL
	}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// Read reads through the cache.
func (f *Front) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := int64(in.Offset)
	if off >= f.drive.size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(int64(len(buf)), f.drive.size-off)]
	if e := f.drive.read(f.number, off, buf); e != 0 {
		return nil, fuse.Status(e)
	}
	return fuse.ReadResultData(buf), fuse.OK
}

// Writev is a write. A direct write with O_DSYNC or RWF_DSYNC arrives as one WRITE with the flag set and no fsync
// follows: without looking at the flag a drive would lose honest FUA writes and blame the product (lab.md section 6).
// go-fuse v2.12.1 calls Writev before Write.
func (f *Front) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	var p []byte
	if len(data) == 1 {
		p = data[0]
	} else {
		p = make([]byte, 0, in.Size)
		for _, d := range data {
			p = append(p, d...)
		}
	}
	if e := f.drive.write(f.number, int64(in.Offset), p, in.Flags&syscall.O_DSYNC != 0); e != 0 {
		return 0, fuse.Status(e)
	}
	return uint32(len(p)), fuse.OK
}

// Write is Writev for a go-fuse that prefers it.
func (f *Front) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return f.Writev(c, in, [][]byte{data})
}

// Fsync is FLUSH.
func (f *Front) Fsync(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status {
	return fuse.Status(f.drive.flush(f.number))
}

// Flush is close(2) of one descriptor: no request to a drive.
func (f *Front) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fallocate refuses: the drive has no TRIM. The loop driver then says so and the kernel writes zeroes instead.
func (f *Front) Fallocate(_ <-chan struct{}, _ *fuse.FallocateIn) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

// StatFs keeps losetup content.
func (f *Front) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = BlockBytes, BlockBytes, 255
	return fuse.OK
}
