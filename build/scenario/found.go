package scenario

import (
	"context"
	"fmt"
	"path/filepath"

	"duet/appliance/site"
	"duet/build/lab"
	"duet/build/lab/guest"
)

// What every site of the scenarios has. Volumes stay small: a crashed leg is compared whole (architecture page).
const (
	VMName      = "vm1"
	VMVolume    = "vm1-disk"
	ProbeVolume = "probe"
)

// Sizes are those of the volumes. What a copy takes grows with them.
type Sizes struct {
	VMBytes, ProbeBytes int64
	ProbeBlocks         int // of the probe volume that are written and read back
}

// Usual is what a person's first site has; Small is for runs of many short episodes.
var (
	Usual = Sizes{VMBytes: 32 << 20, ProbeBytes: 64 << 20, ProbeBlocks: 4096}
	Small = Sizes{VMBytes: 8 << 20, ProbeBytes: 8 << 20, ProbeBlocks: 1024}
)

// initrdName is the guest's initramfs among the programs, which every node sees.
const initrdName = "guest-initrd.img"

// prepareGuest builds the initramfs beside the programs and returns how a node boots it.
func prepareGuest(bin string) (site.Boot, error) {
	kernel, release, err := guest.Kernel()
	if err != nil {
		return site.Boot{}, err
	}
	if err := guest.Build(filepath.Join(bin, initrdName), release, filepath.Join(bin, "guest-init")); err != nil {
		return site.Boot{}, err
	}
	return site.Boot{Kernel: kernel, Initrd: filepath.Join(lab.BinDir, initrdName), Cmdline: "console=ttyS0 quiet"}, nil
}

// found founds the site with one VM that counts and one volume for the probe, and waits until the guest does.
func (s *Site) found(ctx context.Context, boot site.Boot) error {
	ctx, cancel := context.WithTimeout(ctx, foundingLimit)
	defer cancel()
	s.Say("founding the pair: witness register, both records, one live fence test of each node")
	err := s.Lab.Found(ctx, site.Document{
		Name:    "demo",
		Volumes: []site.Volume{{Name: VMVolume, SizeBytes: s.sizes.VMBytes}, {Name: ProbeVolume, SizeBytes: s.sizes.ProbeBytes}},
		VMs:     []site.VM{{Name: VMName, MemoryMiB: 96, VCPUs: 1, Disks: []string{VMVolume}, Boot: boot}},
	}, func(line string) { s.Say("  %s", line) })
	if err != nil {
		return fmt.Errorf("founding: %w", err)
	}
	return s.WaitSafe(ctx)
}
