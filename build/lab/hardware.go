package lab

import (
	"fmt"

	"duet/appliance/site"
	"duet/build/lab/core"
	"duet/build/lab/ns"
)

// Where a machine finds the programs of Options.Bin, and where the witness keeps its store.
const (
	BinDir      = ns.BinDir
	WitnessData = witnessData
)

// Hardware is the part of a site document that follows from the lab's hardware: BMCs, outlets, PDU and the witness's
// address. The rest (name, volumes, VMs, the witness's key) is for whoever founds the site.
func Hardware() site.Document {
	node := func(address string, first int, name string) site.Node {
		return site.Node{
			BMC: &site.BMC{Address: address, User: bmcUser, Password: bmcPassword},
			Outlets: []site.Outlet{
				{Outlet: first, PSU: name + ".1"},
				{Outlet: first + 1, PSU: name + ".2"},
			},
		}
	}
	return site.Document{
		Nodes:   site.Nodes{A: node(core.AddressBMCA, 1, A), B: node(core.AddressBMCB, 3, B)},
		Witness: &site.Witness{Address: fmt.Sprintf("%s:%d", core.AddressWitness, witnessPort)},
		PDU:     &site.PDU{Address: fmt.Sprintf("%s:%d", core.AddressPDU, core.PortPDU), Product: pduProduct},
	}
}
