package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"duet/appliance/api"
	"duet/appliance/site"
	"duet/build/guest"
	"duet/build/lab"
)

// What every site of the scenarios has. Volumes stay small: a crashed leg is compared whole (architecture page).
const (
	VMName      = "vm1"
	VMVolume    = "vm1-disk"
	ProbeVolume = "probe"

	vmVolumeBytes    = 32 << 20
	probeVolumeBytes = 64 << 20
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

// answers is the first site document as a person would write it: the hardware of the lab, one VM that counts, one
// volume for the probe.
func answers(boot site.Boot, witnessKey string) site.Document {
	d := lab.Hardware()
	d.Format, d.Name = 1, "demo"
	d.Witness.Key = witnessKey
	d.Volumes = []site.Volume{{Name: VMVolume, SizeBytes: vmVolumeBytes}, {Name: ProbeVolume, SizeBytes: probeVolumeBytes}}
	d.VMs = []site.VM{{Name: VMName, MemoryMiB: 96, VCPUs: 1, Disks: []string{VMVolume}, Boot: boot}}
	return d
}

// found does what the person at the front panel does: reads both keys, admits the site at its witness, answers the
// questions. The live fence test switches each node off and on, node a, where the command runs, too: from then on
// only status tells.
func (s *Site) found(ctx context.Context, boot site.Boot) error {
	ctx, cancel := context.WithTimeout(ctx, foundingLimit)
	defer cancel()
	witnessKey, err := s.enroll(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(answers(boot, witnessKey), "", "  ")
	if err != nil {
		return err
	}
	if err := s.write(ctx, lab.A, "/root/answers.json", text); err != nil {
		return err
	}
	s.Say("founding the pair: witness register, both records, one live fence test of each node")
	answered := make(chan error, 1)
	go func() {
		_, err := s.Lab.Exec(ctx, lab.A, "duet", "setup", "answer", "/root/answers.json")
		answered <- err
	}()
	var answer error
	err = s.wait(ctx, "setup", foundingLimit, func() (bool, string) {
		select {
		case answer = <-answered:
		default:
		}
		return s.setupComplete(ctx)
	})
	if err != nil {
		return fmt.Errorf("founding: %w; duet setup answer: %v", err, answer) //nolint:errorlint // the second one is only told
	}
	return s.WaitSafe(ctx)
}

// write puts a file into a machine, through the machine.
func (s *Site) write(ctx context.Context, machine, path string, data []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := w.Write(data)
		sent <- errors.Join(err, w.Close())
	}()
	_, err = s.Lab.ExecWith(ctx, machine, r, "sh", "-c", "umask 077 && cat > "+path)
	return errors.Join(err, r.Close(), <-sent)
}

// enroll reads the nodes' keys and admits the site at the witness, whose key it returns.
func (s *Site) enroll(ctx context.Context) (string, error) {
	var keys [2]string
	for i, node := range []string{lab.A, lab.B} {
		err := s.wait(ctx, "duetd on node "+node, 30*time.Second, func() (bool, string) {
			var setup api.Setup
			if err := s.duet(ctx, node, &setup, "setup", "show"); err != nil {
				return false, err.Error()
			}
			keys[i] = setup.NodeKey
			return keys[i] != "", "no key yet"
		})
		if err != nil {
			return "", err
		}
	}
	if _, err := s.Lab.Exec(ctx, lab.Witness, "duet-witness", "enroll", "--data", lab.WitnessData,
		"--name", "demo", "--key-a", keys[0], "--key-b", keys[1]); err != nil {
		return "", fmt.Errorf("admitting the site at the witness: %w", err)
	}
	key, err := s.Lab.Exec(ctx, lab.Witness, "duet-witness", "key", "--data", lab.WitnessData)
	if err != nil {
		return "", fmt.Errorf("key of the witness: %w", err)
	}
	return string(bytes.TrimSpace(key)), nil
}

// setupComplete asks both nodes: while one is being tested only the other can answer.
func (s *Site) setupComplete(ctx context.Context) (bool, string) {
	seen := ""
	for _, node := range []string{lab.A, lab.B} {
		var setup api.Setup
		if err := s.duet(ctx, node, &setup, "setup", "show"); err != nil {
			continue
		}
		if setup.State == "complete" {
			return true, ""
		}
		seen = node + ": " + setup.State
		for _, step := range setup.Steps {
			if step.State == "running" {
				seen = fmt.Sprintf("%s: %s: %s", node, step.Name, step.Detail)
			}
		}
	}
	return false, seen
}
