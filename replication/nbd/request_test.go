package nbd

import "testing"

// A request of 28 bytes may name 4 GiB. Whatever it names, what it costs before it is answered is counted by the
// budget: pieces exist for data only.
func TestOnlyDataCostsMemory(t *testing.T) {
	for command, pieces := range map[uint16]int{
		cmdRead: RequestBytesMax / PieceBytesMax, cmdWrite: RequestBytesMax / PieceBytesMax,
		cmdTrim: 0, cmdWriteZeroes: 0, cmdCache: 0, cmdFlush: 0,
	} {
		r := &request{command: command, n: 1<<32 - 4096}
		switch command {
		case cmdRead, cmdWrite:
			r.n = RequestBytesMax
		case cmdFlush:
			r.n = 0
		}
		if e, _ := r.check(offer{size: 1 << 40}); e != eOK {
			t.Fatalf("command %d: error %d", command, e)
		}
		if r.plan(); len(r.pieces) != pieces {
			t.Errorf("command %d of %d bytes: %d pieces, want %d", command, r.n, len(r.pieces), pieces)
		}
	}
}
