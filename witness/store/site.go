package store

import (
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"duet/witness/register"
)

// boundSite is what an enrolment was bound to: site id 16, keys 2 × 32, crc32c 4.
type boundSite struct {
	site register.ID
	keys [2][32]byte
}

const siteRecordSize = 84

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (b boundSite) encode() []byte {
	record := make([]byte, 0, siteRecordSize)
	record = append(record, b.site[:]...)
	record = append(record, b.keys[0][:]...)
	record = append(record, b.keys[1][:]...)
	sum := crc32.Checksum(record, castagnoli)
	return append(record, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

func decodeSite(record []byte) (boundSite, error) {
	if len(record) != siteRecordSize {
		return boundSite{}, ErrCorrupt
	}
	b := boundSite{site: register.ID(record[:16]), keys: [2][32]byte{[32]byte(record[16:48]), [32]byte(record[48:80])}}
	if string(b.encode()) != string(record) {
		return boundSite{}, ErrCorrupt
	}
	return b, nil
}

func loadSite(tx *bbolt.Tx, name string) (boundSite, bool, error) {
	record := tx.Bucket(bucketSites).Get([]byte(name))
	if record == nil {
		return boundSite{}, false, nil
	}
	bound, err := decodeSite(record)
	if err != nil {
		return boundSite{}, false, fmt.Errorf("binding of %q: %w", name, err)
	}
	return bound, true, nil
}

// bindSite lets the owner create registers of site, or says why not.
func bindSite(tx *bbolt.Tx, owner Owner, site register.ID) error {
	if other := tx.Bucket(bucketOwners).Get(site[:]); other != nil && string(other) != owner.Name {
		return fmt.Errorf("site %x is the site of another enrolment: %w", site, ErrUnknownSite)
	}
	next := boundSite{site: site, keys: owner.Keys}
	bound, ok, err := loadSite(tx, owner.Name)
	if err != nil {
		return err
	}
	if ok && bound == next {
		return nil
	}
	if ok && bound.site != site {
		free, err := mayRebind(tx, bound, next)
		if err != nil {
			return err
		}
		if !free {
			return fmt.Errorf("%q is enrolled for site %x, not %x: %w", owner.Name, bound.site, site, ErrUnknownSite)
		}
		if err := forget(tx, bound.site); err != nil {
			return err
		}
	}
	if err := tx.Bucket(bucketOwners).Put(site[:], []byte(owner.Name)); err != nil {
		return err
	}
	return tx.Bucket(bucketSites).Put([]byte(owner.Name), next.encode())
}

// mayRebind says whether the old site can be given up: nobody ever used it, or no node of it is left.
func mayRebind(tx *bbolt.Tx, old, next boundSite) (bool, error) {
	shared := false
	for _, key := range next.keys {
		shared = shared || key == old.keys[0] || key == old.keys[1]
	}
	if !shared {
		return true, nil
	}
	kept, err := listOrder(tx, old.site)
	if err != nil {
		return false, err
	}
	for _, at := range kept {
		r, err := load(tx, at.rid)
		if err != nil || r.Content != (register.Content{}) {
			return false, nil // used, or not known to be unused
		}
	}
	return true, nil
}

// forget deletes what is kept of a site: every rid of it becomes unknown.
func forget(tx *bbolt.Tx, site register.ID) error {
	kept, err := listOrder(tx, site)
	if err != nil {
		return err
	}
	for _, at := range kept {
		if err := drop(tx, site, at); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketOwners).Delete(site[:])
}
