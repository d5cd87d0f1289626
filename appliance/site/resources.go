package site

import (
	"cmp"
	"slices"
)

// Resource is a thing with an owner: a VM with its volumes, one unattached volume, or the database. Slot 0, the pair, is not
// listed.
type Resource struct {
	Slot     int
	VM       *VM       // nil: no VM
	Database *Database // nil: not the database
	Volumes  []Volume
}

// Resources of a founded document in order of their slots.
func (d Document) Resources() []Resource {
	var all []Resource
	for i := range d.VMs {
		r := Resource{Slot: d.VMs[i].Slot, VM: &d.VMs[i]}
		for _, name := range d.VMs[i].Disks {
			if v, ok := d.VolumeByName(name); ok {
				r.Volumes = append(r.Volumes, v)
			}
		}
		all = append(all, r)
	}
	if d.Database != nil {
		all = append(all, Resource{Slot: d.Database.Slot, Database: d.Database})
	}
	for _, v := range unattached(d) {
		all = append(all, Resource{Slot: v.Resource, Volumes: []Volume{v}})
	}
	slices.SortFunc(all, func(a, b Resource) int { return cmp.Compare(a.Slot, b.Slot) })
	return all
}

// VMBySlot finds the VM of a resource slot; false: an unattached volume, or none.
func (d Document) VMBySlot(slot int) (VM, bool) {
	return find(d.VMs, func(v VM) bool { return v.Slot == slot })
}

// VMByName finds a VM.
func (d Document) VMByName(name string) (VM, bool) {
	return find(d.VMs, func(v VM) bool { return v.Name == name })
}

// VolumeByName finds a volume.
func (d Document) VolumeByName(name string) (Volume, bool) {
	return find(d.Volumes, func(v Volume) bool { return v.Name == name })
}

// VolumeBySlot finds a volume.
func (d Document) VolumeBySlot(slot int) (Volume, bool) {
	return find(d.Volumes, func(v Volume) bool { return v.Slot == slot })
}

// Node is the node of a slot: "a" or anything else for b.
func (d Document) Node(slot string) Node {
	if slot == "a" {
		return d.Nodes.A
	}
	return d.Nodes.B
}

// vmOf is the VM that has the volume as a disk.
func (d Document) vmOf(volume string) (VM, bool) {
	return find(d.VMs, func(v VM) bool { return slices.Contains(v.Disks, volume) })
}

func unattached(d Document) []Volume {
	var free []Volume
	for _, v := range d.Volumes {
		if _, used := d.vmOf(v.Name); !used {
			free = append(free, v)
		}
	}
	return free
}

func find[T any](list []T, match func(T) bool) (T, bool) {
	if i := slices.IndexFunc(list, match); i >= 0 {
		return list[i], true
	}
	var none T
	return none, false
}
