package vms

import (
	"encoding/xml"
	"fmt"
	"strings"
	"text/template"

	"duet/appliance/site"
)

// machine is versioned and the CPU model is fixed, so that a guest sees the same hardware on both nodes and after an
// update of QEMU.
const machine = "pc-q35-7.2"

// reconnectSeconds is how long QEMU's NBD client keeps requests while duet-mirrord restarts (architecture.md section 8).
const reconnectSeconds = 60

type virtualization struct{ domainType, cpu string }

// virtualization of the setting: /dev/kvm may open and yet not run a guest, so it is told, not probed.
func (m *Manager) virtualization() virtualization {
	if m.cfg.Accel == "kvm" {
		return virtualization{"kvm", "Westmere"}
	}
	return virtualization{"qemu", "qemu64"}
}

// domainXML describes a transient domain. Each choice that is not plain:
//   - errors stop the guest instead of reaching it: held I/O never fails, and if the NBD client gives up after its
//     reconnect delay the guest waits, paused, until it is resumed and the request is sent again;
//   - cache none, no io= (libvirt refuses native for a network disk); discard reaches the volume as TRIM;
//   - physical blocks of 4096 tell the guest to align, logical ones of 512 let any boot loader work;
//   - the serial console goes to a file that survives restarts of the guest (append);
//   - a guest that powers off or crashes is gone, then the manager starts it again if it is wanted;
//   - no balloon, USB, graphics: fewer devices, fewer surprises.
var domainTemplate = template.Must(template.New("domain").Funcs(template.FuncMap{"x": escape}).Parse(`<domain type='{{.Virt.Type}}'>
  <name>{{x .Name}}</name>
  <uuid>{{x .VM.ID}}</uuid>
  <metadata><duet:vm xmlns:duet='urn:duet:vm' epoch='{{.Epoch}}'/></metadata>
  <memory unit='MiB'>{{.VM.MemoryMiB}}</memory>
  <vcpu>{{.VM.VCPUs}}</vcpu>
  <os>
    <type arch='x86_64' machine='{{.Machine}}'>hvm</type>
{{- with .VM.Boot}}{{if .Kernel}}
    <kernel>{{x .Kernel}}</kernel>
{{- if .Initrd}}
    <initrd>{{x .Initrd}}</initrd>
{{- end}}
{{- if .Cmdline}}
    <cmdline>{{x .Cmdline}}</cmdline>
{{- end}}
{{- else}}
    <boot dev='hd'/>
{{- end}}{{end}}
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{{.Virt.CPU}}</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{{- range .Disks}}
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap'/>
      <source protocol='nbd' name='{{x .Volume}}'>
        <host transport='unix' socket='{{x $.NBDSocket}}'/>
        <reconnect delay='{{$.Reconnect}}'/>
      </source>
      <blockio logical_block_size='512' physical_block_size='4096'/>
      <target dev='{{.Device}}' bus='virtio'/>
    </disk>
{{- end}}
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{{x .Log}}' append='on'/>
      <target type='isa-serial' port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
`))

type disk struct{ Volume, Device string }

func (m *Manager) domainXML(vm site.VM, epoch uint64, log string) (string, error) {
	virt := m.virtualization()
	data := struct {
		Virt                          struct{ Type, CPU string }
		Name, Machine, NBDSocket, Log string
		VM                            site.VM
		Epoch                         uint64
		Disks                         []disk
		Reconnect                     int
	}{
		Name: m.cfg.Prefix + vm.Name, Machine: machine, NBDSocket: m.cfg.NBDSocket, Log: log,
		VM: vm, Epoch: epoch, Reconnect: reconnectSeconds,
	}
	data.Virt.Type, data.Virt.CPU = virt.domainType, virt.cpu
	for i, volume := range vm.Disks {
		data.Disks = append(data.Disks, disk{volume, "vd" + string(rune('a'+i))})
	}
	var text strings.Builder
	if err := domainTemplate.Execute(&text, data); err != nil {
		return "", fmt.Errorf("domain of VM %s: %w", vm.Name, err)
	}
	return text.String(), nil
}

func escape(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}
