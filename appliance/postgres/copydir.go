package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyDir copies a stopped data directory: by reference where the file system can (ioctl_ficlone(2)), else byte by byte. A
// lock file is not copied: it names a process of the original. Everything belongs to the server's user afterwards, the
// settings file that is root's in a running directory too, or pg_rewind would stop half way at it. pg_rewind syncs the
// whole directory when it is done.
func copyDir(ctx context.Context, from, to string, uid, gid int, progress func(bytes int64)) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if rest == "postmaster.pid" {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		target := filepath.Join(to, rest)
		switch {
		case d.IsDir():
			err = os.Mkdir(target, info.Mode().Perm())
		case d.Type()&fs.ModeSymlink != 0:
			var link string
			if link, err = os.Readlink(path); err == nil {
				err = os.Symlink(link, target)
			}
		case d.Type().IsRegular():
			err = copyFile(path, target, info.Mode().Perm())
			progress(info.Size())
		default:
			return nil
		}
		if err == nil {
			err = os.Lchown(target, uid, gid)
		}
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		return nil
	})
}

func copyFile(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	_, err = io.Copy(out, in)
	return err
}
