package register

import (
	"encoding/binary"
	"hash/crc32"
)

// SiteRecordSize is the size of the binding of an enrolment in a store, without its registers.
const SiteRecordSize = 84

// EncodeBinding writes what an enrolment was bound to, big-endian: site id 16, keys 2 × 32, crc32c 4.
func (s Site) EncodeBinding() []byte {
	record := make([]byte, 0, SiteRecordSize)
	record = append(record, s.ID[:]...)
	record = append(record, s.Keys[0][:]...)
	record = append(record, s.Keys[1][:]...)
	return binary.BigEndian.AppendUint32(record, crc32.Checksum(record, castagnoli))
}

// DecodeBinding reads what EncodeBinding wrote.
func DecodeBinding(record []byte) (Site, error) {
	const used = SiteRecordSize - 4
	if len(record) != SiteRecordSize || binary.BigEndian.Uint32(record[used:]) != crc32.Checksum(record[:used], castagnoli) {
		return Site{}, ErrCorrupt
	}
	return Site{ID: ID(record[:16]), Keys: [2][32]byte{[32]byte(record[16:48]), [32]byte(record[48:80])}}, nil
}

// Encode writes the whole site, for a store that keeps it under one key: the binding, then a record for each register,
// oldest first. A register that could not be read is dropped: unknown is as safe as corrupt, and its bytes are gone.
func (s Site) Encode() []byte {
	value := s.EncodeBinding()
	for _, k := range s.Kept {
		if !k.Corrupt {
			record := k.Register.Encode()
			value = append(value, record[:]...)
		}
	}
	return value
}

// DecodeSite reads what Encode wrote. A register that does not match its checksum is corrupt and leaves the others as
// they are; a value of another shape is corrupt as a whole.
func DecodeSite(value []byte) (Site, error) {
	if len(value) < SiteRecordSize {
		return Site{}, ErrCorrupt
	}
	s, err := DecodeBinding(value[:SiteRecordSize])
	records := value[SiteRecordSize:]
	if err != nil || len(records)%RecordSize != 0 || len(records) > PerSite*RecordSize {
		return Site{}, ErrCorrupt
	}
	for ; len(records) > 0; records = records[RecordSize:] {
		k := Kept{RID: ID(records[:16])}
		k.Register, err = Decode(k.RID, records[:RecordSize])
		k.Corrupt = err != nil || k.Register.Site != s.ID
		s.Kept = append(s.Kept, k)
	}
	return s, nil
}
