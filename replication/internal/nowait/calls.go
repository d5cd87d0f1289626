//go:build !race

package nowait

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2) of a descriptor that does not block; EAGAIN: there is nothing.
func Read(fd uintptr, p []byte) (int, error) {
	return result(Call(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// Write is write(2) of a descriptor that does not block; EAGAIN: nothing fits.
func Write(fd uintptr, p []byte) (int, error) {
	return result(Call(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))))
}

// Writev is writev(2) of a descriptor that does not block, of the first VectorsMax vectors; EAGAIN: nothing fits.
func Writev(fd uintptr, vectors [][]byte) (int, error) {
	list := make([]unix.Iovec, 0, 64)
	for _, v := range vectors[:min(len(vectors), VectorsMax)] {
		one := unix.Iovec{Base: unsafe.SliceData(v)}
		one.SetLen(len(v))
		list = append(list, one)
	}
	return result(Call(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(list))), uintptr(len(list))))
}

func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
