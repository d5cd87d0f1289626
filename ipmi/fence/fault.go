package fence

import (
	"errors"
	"fmt"

	"duet/ipmi/bmc"
	"duet/ipmi/pdu"
)

// Fault is what is wrong with a path: code, what, why, next.
type Fault struct {
	Code string `json:"code"` // "FENCE-5012"
	What string `json:"what"`
	Why  string `json:"why"`
	Next string `json:"next"`
}

// Error is the fault in one line.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s: %s: %s. Next: %s", f.Code, f.What, f.Why, f.Next)
}

// Codes of the faults of fencing.
const (
	CodeSaysOff       = "FENCE-5010"
	CodeWrongBMC      = "FENCE-5011"
	CodeBMCSilent     = "FENCE-5012"
	CodeBMCLogin      = "FENCE-5013"
	CodeBMCRole       = "FENCE-5014"
	CodeBMCSessions   = "FENCE-5015"
	CodeBMCCannot     = "FENCE-5016"
	CodeBMCSuite      = "FENCE-5017"
	CodeBMCFailed     = "FENCE-5018"
	CodeFirmware      = "FENCE-5019"
	CodeOutletOff     = "FENCE-5020"
	CodePDUSilent     = "FENCE-5021"
	CodePDUIdentity   = "FENCE-5022"
	CodePDUOutlet     = "FENCE-5023"
	CodePDURejects    = "FENCE-5024"
	CodePDUWrong      = "FENCE-5025"
	CodeMapUnproven   = "FENCE-5026"
	CodeCrossed       = "FENCE-5027"
	CodePDUSettling   = "FENCE-5028"
	CodeStaysOn       = "FENCE-5029"
	CodeSharedOutlet  = "FENCE-5031"
	CodeSharedBMC     = "FENCE-5032"
	CodeBadConfig     = "FENCE-5033"
	CodeNoMeans       = "FENCE-5034"
	CodeNoMap         = "FENCE-5035"
	CodeReserved      = "FENCE-5036"
	CodeSharedPSUs    = "FENCE-5037"
	CodeUncovered     = "FENCE-5038"
	CodeNotPoweredOn  = "FENCE-5041"
	CodeLiveTest      = "FENCE-5042"
	CodeNobodyAnswers = "FENCE-5043"
	CodeStale         = "FENCE-5044"
	CodeContradiction = "FENCE-5045"
	CodeRelayOnly     = "FENCE-5046"
)

// bmcFault turns a failed call into what a person can act on.
func (r *Runner) bmcFault(err error) *Fault {
	return bmcFault(r.cfg.Target.Node, r.cfg.Target.BMC.Address, err)
}

func bmcFault(node Node, address string, err error) *Fault {
	what := fmt.Sprintf("The BMC of node %s at %s", node, address)
	e, ok := bmc.AsError(err)
	if !ok {
		return &Fault{CodeBMCFailed, what + " cannot be used", err.Error(), "Look at the BMC's own page and log"}
	}
	switch e.Class {
	case bmc.NoAnswer:
		return &Fault{CodeBMCSilent, what + " does not answer", e.Error(), "Check its cable, its address and whether the node has AC"}
	case bmc.LoginRefused:
		return &Fault{CodeBMCLogin, what + " refuses the login", e.Error(), "Enter the right user and password; it is asked once a minute only"}
	case bmc.RoleRefused:
		return &Fault{CodeBMCRole, what + " refuses the role operator", e.Error(), "Give the user the role operator on the LAN channel"}
	case bmc.NoSession:
		return &Fault{CodeBMCSessions, what + " has no free session", e.Error(), "Close other sessions; restart the BMC if they do not end"}
	case bmc.SuiteRefused:
		return &Fault{CodeBMCSuite, what + " accepts neither cipher suite 17 nor 3", e.Error(), "Enable suite 17 on the BMC or update it"}
	case bmc.CommandFailed:
		return &Fault{CodeBMCCannot, what + " answers and does not switch", e.Error(), "Look at the BMC's log"}
	case bmc.Other:
		return &Fault{CodeBMCFailed, what + " cannot be used", e.Error(), "Look at the BMC's own page and log"}
	default:
		return &Fault{CodeBMCFailed, what + " cannot be used", e.Error(), "Look at the BMC's own page and log"}
	}
}

func (r *Runner) wrongBMC(got bmc.GUID) *Fault {
	why := fmt.Sprintf("it says that it is system %s, recorded is %s", got, r.recordedGUID())
	if got.String() == r.cfg.OwnGUID {
		why = fmt.Sprintf("it says that it is system %s, which is this node's own", got)
	}
	return &Fault{
		CodeWrongBMC, fmt.Sprintf("At the address of node %s's BMC, %s, another system answers", r.cfg.Target.Node, r.cfg.Target.BMC.Address),
		why, "Check the addresses of both BMCs; if this BMC was exchanged, make the new one known: duet fence test " + r.cfg.Target.Node.String() + " --power-cycle --new-bmc --reason TEXT",
	}
}

func (r *Runner) pduFault(err error) *Fault {
	what := fmt.Sprintf("The PDU at %s", r.cfg.Target.PDU.Address)
	e, ok := pdu.AsError(err)
	if !ok {
		return &Fault{CodePDUWrong, what + " cannot be used", err.Error(), "Look at the PDU's own page and log"}
	}
	switch e.Class {
	case pdu.NoAnswer:
		return &Fault{CodePDUSilent, what + " does not answer", e.Error(), "Check its cable, its address and whether Modbus TCP is enabled there"}
	case pdu.WrongIdentity:
		return &Fault{CodePDUIdentity, what + " is another device than before", e.Error(), "Check the address; after the PDU was exchanged, enter its product and run the live test again"}
	case pdu.NoSuchOutlet:
		return &Fault{CodePDUOutlet, what + " does not have that outlet", e.Error(), "Correct the outlets of the node"}
	case pdu.Rejected:
		return &Fault{CodePDURejects, what + " rejects the command", e.Error(), "Allow writing by Modbus on the PDU; check its IP filter"}
	case pdu.Settling:
		return &Fault{CodePDUSettling, what + " did not answer an earlier command, which may still be carried out", e.Error(), "Wait; it is read again"}
	case pdu.NoMap:
		return noMap(r.cfg.Target.PDU.Product, e.Err)
	case pdu.BadReply, pdu.Other:
		return &Fault{CodePDUWrong, what + " gives wrong answers", e.Error(), "Check the product and that nothing else answers at this address"}
	default:
		return &Fault{CodePDUWrong, what + " cannot be used", e.Error(), "Look at the PDU's own page and log"}
	}
}

func noMap(product string, err error) *Fault {
	return &Fault{
		CodeNoMap, "Outlets of a PDU " + product + " cannot be switched", err.Error(),
		"Read the missing numbers off the device's own page and enter them, or fence by BMC only",
	}
}

func asFault(err error) (*Fault, bool) {
	var f *Fault
	ok := errors.As(err, &f)
	return f, ok
}
