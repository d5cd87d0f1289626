package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"duet/witness/register"
)

func loadBinding(tx *bbolt.Tx, name string) (register.Site, bool, error) {
	record := tx.Bucket(bucketSites).Get([]byte(name))
	if record == nil {
		return register.Site{}, false, nil
	}
	bound, err := register.DecodeBinding(record)
	if err != nil {
		return register.Site{}, false, fmt.Errorf("binding of %q: %w", name, err)
	}
	return bound, true, nil
}

// loadSite reads the enrolment and its registers; places[i] is where Kept[i] stands in the order of creation.
func loadSite(tx *bbolt.Tx, name string) (site register.Site, places []place, err error) {
	site, ok, err := loadBinding(tx, name)
	if err != nil || !ok {
		return site, nil, err
	}
	places, err = listOrder(tx, site.ID)
	for _, at := range places {
		r, err := load(tx, at.rid)
		site.Kept = append(site.Kept, register.Kept{RID: at.rid, Register: r, Corrupt: err != nil})
	}
	return site, places, err
}

// saveCreated writes what Create made of a site. Nothing before it in the transaction has written anything, so a
// refusal beside it in the same transaction leaves nothing behind.
func saveCreated(tx *bbolt.Tx, owner register.Owner, before, after register.Site, places []place, made register.Register) error {
	var errs []error
	number := uint64(1)
	if before.ID == after.ID && len(places) > 0 {
		number = places[len(places)-1].number + 1
	}
	for i, at := range places {
		if _, err := after.Find(before.Kept[i].RID); errors.Is(err, register.ErrUnknownRegister) {
			errs = append(errs, drop(tx, before.ID, at))
		}
	}
	if before.ID != after.ID && before.ID != (register.ID{}) {
		errs = append(errs, tx.Bucket(bucketOwners).Delete(before.ID[:]))
	}
	errs = append(errs,
		tx.Bucket(bucketOwners).Put(after.ID[:], []byte(owner.Name)),
		tx.Bucket(bucketSites).Put([]byte(owner.Name), after.EncodeBinding()),
		tx.Bucket(bucketOrder).Put(orderKey(after.ID, number), made.RID[:]),
		save(tx, made))
	return errors.Join(errs...)
}

func load(tx *bbolt.Tx, rid register.ID) (register.Register, error) {
	record := tx.Bucket(bucketRegisters).Get(rid[:])
	if record == nil {
		return register.Register{}, register.ErrUnknownRegister
	}
	return register.Decode(rid, record)
}

func save(tx *bbolt.Tx, r register.Register) error {
	record := r.Encode()
	return tx.Bucket(bucketRegisters).Put(r.RID[:], record[:])
}

// place is one register in the order of creation.
type place struct {
	number uint64
	rid    register.ID
}

// listOrder is oldest first.
func listOrder(tx *bbolt.Tx, site register.ID) ([]place, error) {
	var list []place
	c := tx.Bucket(bucketOrder).Cursor()
	for key, value := c.Seek(site[:]); len(key) == 24 && register.ID(key[:16]) == site; key, value = c.Next() {
		if len(value) != 16 {
			return nil, fmt.Errorf("order of site %x: %w", site, register.ErrCorrupt)
		}
		list = append(list, place{binary.BigEndian.Uint64(key[16:]), register.ID(value)})
	}
	return list, nil
}

func drop(tx *bbolt.Tx, site register.ID, at place) error {
	return errors.Join(tx.Bucket(bucketOrder).Delete(orderKey(site, at.number)), tx.Bucket(bucketRegisters).Delete(at.rid[:]))
}

func orderKey(site register.ID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 24), site[:]...), number)
}
