package register

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// RecordSize is the size of a register in a store.
const RecordSize = 64

// ErrCorrupt is a record that is not what was written. It is answered as such and never as a default: a register
// that guesses is worse than none (protocol.md section 11).
var ErrCorrupt = errors.New("the register is corrupt")

// Layout, big-endian: rid 16, site 16, nonce of its CREATE 8, epoch 8, set 1, sequence 8, crc32c of those 57 bytes 4,
// three zero bytes. The rid is inside so that a record found under another key is not believed.
const (
	recordUsed = 57
	recordCRC  = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes the record of r.
func (r Register) Encode() (record [RecordSize]byte) {
	copy(record[0:], r.RID[:])
	copy(record[16:], r.Site[:])
	binary.BigEndian.PutUint64(record[32:], r.CreateNonce)
	binary.BigEndian.PutUint64(record[40:], uint64(r.Content.Epoch))
	record[48] = byte(r.Content.Set)
	binary.BigEndian.PutUint64(record[49:], r.Sequence)
	binary.BigEndian.PutUint32(record[recordUsed:], crc32.Checksum(record[:recordUsed], castagnoli))
	return record
}

// Decode reads the record of the register rid.
func Decode(rid ID, record []byte) (Register, error) {
	if len(record) != RecordSize ||
		binary.BigEndian.Uint32(record[recordUsed:]) != crc32.Checksum(record[:recordUsed], castagnoli) ||
		[3]byte(record[recordCRC:]) != [3]byte{} ||
		ID(record[0:16]) != rid || Set(record[48]) > Both {
		return Register{}, ErrCorrupt
	}
	return Register{
		RID:         rid,
		Site:        ID(record[16:32]),
		CreateNonce: binary.BigEndian.Uint64(record[32:]),
		Content:     Content{Epoch: Epoch(binary.BigEndian.Uint64(record[40:])), Set: Set(record[48])},
		Sequence:    binary.BigEndian.Uint64(record[49:]),
	}, nil
}
