package site

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// maxDocumentBytes bounds what is read: the largest valid document has about 40 KiB.
const maxDocumentBytes = 1 << 20

// Founding is what setup adds to a person's answers.
type Founding struct {
	Random     io.Reader // crypto/rand.Reader
	KeyA, KeyB []byte    // ed25519 public keys of the nodes
	RID        string    // register id, 32 hex digits; empty without a witness
	GUIDA      string    // of the BMCs, as read; may be empty
	GUIDB      string
}

// Found makes version 1 of the document: ids, slots, keys, register. Slots follow the order of the answers; volumes
// of a VM get its resource, every other volume one of its own. It refuses answers that Validate refuses, and a key in
// the answers that is not the node's.
func Found(answers Document, f Founding) (Document, error) {
	if err := Validate(answers).Err(); err != nil {
		return Document{}, err
	}
	d := answers.clone()
	d.Version = 1
	var err error
	if d.SiteID, err = randomHex(f.Random); err != nil {
		return Document{}, err
	}
	if d.Nodes.A, err = pinned(d.Nodes.A, "a", f.KeyA, f.GUIDA); err != nil {
		return Document{}, err
	}
	if d.Nodes.B, err = pinned(d.Nodes.B, "b", f.KeyB, f.GUIDB); err != nil {
		return Document{}, err
	}
	if d.Witness != nil {
		d.Witness.RID = f.RID
	}
	for i := range d.VMs {
		d.VMs[i].Slot = 1 + i // slot 0 is the pair
		if d.VMs[i].ID, err = randomUUID(f.Random); err != nil {
			return Document{}, err
		}
	}
	next := 1 + len(d.VMs)
	if d.Database != nil {
		d.Database.Slot = next
		next++
		password, err := randomHex(f.Random)
		if err != nil {
			return Document{}, err
		}
		d.Database.Password = Secret(password)
	}
	for i := range d.Volumes {
		v := &d.Volumes[i]
		v.Slot = i
		if v.ID, err = randomHex(f.Random); err != nil {
			return Document{}, err
		}
		if vm, ok := d.vmOf(v.Name); ok {
			v.Resource = vm.Slot
			continue
		}
		v.Resource = next
		next++
	}
	return d, Check(d).Err()
}

// SetRID names the register that the witness made; founding asks for it after it has the site id.
func (d *Document) SetRID(rid string) { d.Witness.RID = rid }

func pinned(n Node, slot string, key []byte, guid string) (Node, error) {
	text := base64.StdEncoding.EncodeToString(key)
	if n.Key != "" && n.Key != text {
		return n, FieldErrors{{
			Field: "nodes." + slot + ".key", What: "is not the key of node " + slot,
			Why: "another node is in the slot", Next: "remove the key, or put the right node into the slot",
		}}
	}
	n.Key = text
	if n.BMC != nil && guid != "" {
		n.BMC.GUID = guid
	}
	return n, nil
}

// Check names every wrong field of a founded document: one that was stored, or that the peer sent.
func Check(d Document) FieldErrors {
	var c checker
	if d.Version == 0 {
		c.wrong("version", "is 0", "a founded document has a version", "found the site")
	}
	c.hex("site_id", d.SiteID)
	c.key("nodes.a.key", d.Nodes.A.Key)
	c.key("nodes.b.key", d.Nodes.B.Key)
	if d.Nodes.A.Key == d.Nodes.B.Key {
		c.wrong("nodes.b.key", "is the key of node a", "a node is known by its key", "found the site again")
	}
	c.slots(d)
	c.document(d)
	return c.errors
}

// slots: each in its table, none used twice, volumes with the resource of their VM.
func (c *checker) slots(d Document) {
	resources, volumes := map[int]bool{0: true}, map[int]bool{}
	take := func(field string, slot, limit int, used map[int]bool) {
		if slot < 0 || slot >= limit || used[slot] {
			c.wrong(field, fmt.Sprintf("%d is not a free slot", slot), "slots are unique and never reused", "found the site again")
		}
		used[slot] = true
	}
	for i, vm := range d.VMs {
		take(fmt.Sprintf("vms[%d].slot", i), vm.Slot, MaxResources, resources)
		if !isUUID(vm.ID) {
			c.wrong(fmt.Sprintf("vms[%d].id", i), fmt.Sprintf("%q is not a UUID", vm.ID), "libvirt finds a VM by it", "found the site again")
		}
	}
	if d.Database != nil {
		take("database.slot", d.Database.Slot, MaxResources, resources)
		if d.Database.Password == "" {
			c.wrong("database.password", "is empty", "the nodes know each other's server by it", "found the site again")
		}
	}
	for i, v := range d.Volumes {
		take(fmt.Sprintf("volumes[%d].slot", i), v.Slot, MaxVolumes, volumes)
		c.hex(fmt.Sprintf("volumes[%d].id", i), v.ID)
		field := fmt.Sprintf("volumes[%d].resource", i)
		if vm, ok := d.vmOf(v.Name); !ok {
			take(field, v.Resource, MaxResources, resources)
		} else if v.Resource != vm.Slot {
			c.wrong(field, fmt.Sprintf("is %d", v.Resource), fmt.Sprintf("its VM %s has slot %d", vm.Name, vm.Slot), "found the site again")
		}
	}
}

// Canonical is the document's one byte form: what is hashed, stored and sent. Struct order, no white space, empty lists
// as [].
func (d Document) Canonical() ([]byte, error) {
	d = d.clone()
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("site document: %w", err)
	}
	return data, nil
}

// Hash is the SHA-256 of Canonical; it rides on the membership record.
func (d Document) Hash() ([32]byte, error) {
	data, err := d.Canonical()
	return sha256.Sum256(data), err
}

// Parse reads a stored or received document or a person's answers. Unknown fields, a second value and anything above
// 1 MiB are refused; the fields' values are for Validate and Check.
func Parse(data []byte) (Document, error) {
	var d Document
	if err := strictJSON(data, &d); err != nil {
		return Document{}, fmt.Errorf("site document: %w", err)
	}
	return d, nil
}

// strictJSON reads exactly one value that has only known fields; errors name the line.
func strictJSON(data []byte, into any) error {
	if len(data) > maxDocumentBytes {
		return fmt.Errorf("%d bytes are more than %d", len(data), maxDocumentBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		offset := dec.InputOffset()
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			offset = syntax.Offset
		}
		if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
			offset = kind.Offset
		}
		offset = max(0, min(offset, int64(len(data))))
		return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:offset], []byte("\n")), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// clone copies everything that a change could reach through a pointer or slice, and makes lists non-nil.
func (d Document) clone() Document {
	d.Nodes.A, d.Nodes.B = d.Nodes.A.clone(), d.Nodes.B.clone()
	d.Witness, d.Former = copied(d.Witness), copied(d.Former)
	if d.PDU = copied(d.PDU); d.PDU != nil {
		d.PDU.Numbers, d.PDU.Feeds = maps.Clone(d.PDU.Numbers), slices.Clone(d.PDU.Feeds)
	}
	d.Fencing = copied(d.Fencing)
	d.Database = copied(d.Database)
	if d.Database != nil {
		d.Database.Settings, d.Database.Rules = slices.Clone(d.Database.Settings), slices.Clone(d.Database.Rules)
		for i, r := range d.Database.Rules {
			r.Networks, r.Users, r.Databases = slices.Clone(r.Networks), slices.Clone(r.Users), slices.Clone(r.Databases)
			d.Database.Rules[i] = r
		}
	}
	d.Volumes = append([]Volume{}, d.Volumes...)
	d.VMs = append([]VM{}, d.VMs...)
	for i := range d.VMs {
		d.VMs[i].Disks = append([]string{}, d.VMs[i].Disks...)
	}
	return d
}

func (n Node) clone() Node {
	n.BMC = copied(n.BMC)
	n.Outlets = slices.Clone(n.Outlets)
	return n
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func randomHex(random io.Reader) (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

// randomUUID is RFC 9562 version 4.
func randomUUID(random io.Reader) (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", fmt.Errorf("random uuid: %w", err)
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), nil
}

func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	raw, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	return err == nil && len(raw) == 16
}
