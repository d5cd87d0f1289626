//go:build race

package nowait

import "syscall"

// The race detector knows from package syscall alone that what was written to a socket comes before what is read from it.

// Read is read(2) of a descriptor that does not block; EAGAIN: there is nothing.
func Read(fd uintptr, p []byte) (int, error) { return told(syscall.Read(int(fd), p)) }

// Write is write(2) of a descriptor that does not block; EAGAIN: nothing fits.
func Write(fd uintptr, p []byte) (int, error) { return told(syscall.Write(int(fd), p)) }

// Writev writes what it can, as one that finds little room in the socket.
func Writev(fd uintptr, vectors [][]byte) (int, error) {
	for i, v := range vectors[:min(len(vectors), VectorsMax)] {
		if len(v) > 0 || i == len(vectors)-1 {
			return Write(fd, v)
		}
	}
	return 0, nil
}

func told(n int, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return n, nil
}
