package event

// Most of these are found by ipmi/fence, which words them itself with what it saw (Reported); the texts here stand
// in the catalogue for all of their kind.

var fenceEntries = []Entry{
	{
		Code: FenceUnknown, Severity: Warning, Title: "A fence attempt gave no evidence",
		What: "Fencing of node {node} gave no evidence: {detail}",
		Why:  "What node {node} ran starts here after 6 s without its beats, not before",
		Next: "Look at the BMC and the PDU of node {node}", Command: "duet fence status",
	},
	{
		Code: Fenced, Severity: Info, Title: "A node is known to be off",
		What: "Node {node} is off: {detail}",
		Why:  "Confirmed evidence: its power was read after the request and says off",
		Next: "Look at node {node}", Command: "duet fence status",
	},
	{
		Code: PowerOnGivenUp, Severity: Warning, Title: "A node stays off",
		What: "Node {node} was powered on {count} times in an hour and did not join",
		Why:  "More tries would only wear it",
		Next: "Look at the console of node {node}", Command: "duet fence status",
	},
	{
		Code: WrongBMC, Severity: Critical, Title: "Another system answers at the address of a BMC",
		What: "Another system answers at the address of a node's BMC",
		Why:  "Switching it could turn the survivor off; nothing is switched by it",
		Next: "Check the addresses of both BMCs", Command: "duet fence status",
	},
	{
		Code: BMCSilent, Severity: Warning, Title: "A BMC does not answer",
		What: "The BMC of a node does not answer",
		Why:  "If that node dies now, takeover uses the outlets, or waits 6 s",
		Next: "Check its cable and address, and whether the node has AC", Command: "duet fence status",
	},
	{
		Code: BMCLogin, Severity: Warning, Title: "A BMC refuses the login",
		What: "The BMC of a node refuses the login",
		Why:  "User or password is wrong; fencing by it gives no evidence",
		Next: "Give the BMC the user and password of the site document", Command: "duet fence status",
	},
	{
		Code: BMCRole, Severity: Warning, Title: "A BMC refuses the role operator",
		What: "The BMC of a node refuses the role operator",
		Why:  "The user may sign in and may not switch power",
		Next: "Give the user the role operator on the LAN channel", Command: "duet fence status",
	},
	{
		Code: BMCSessions, Severity: Warning, Title: "A BMC has no free session",
		What: "The BMC of a node has no free session",
		Why:  "It lets nobody in until one ends",
		Next: "Close other sessions; restart the BMC if they do not end", Command: "duet fence status",
	},
	{
		Code: BMCCannotSwitch, Severity: Warning, Title: "A BMC answers and does not switch",
		What: "The BMC of a node answers and does not switch",
		Why:  "The power of that node is on unless it says otherwise",
		Next: "Look at the event log of the BMC", Command: "duet fence status",
	},
	{
		Code: BMCSuite, Severity: Warning, Title: "A BMC accepts no usable cipher suite",
		What: "The BMC of a node accepts neither cipher suite 17 nor 3",
		Why:  "Without one of them nobody can be sure whose answer it is",
		Next: "Enable cipher suite 17 on the BMC or update it", Command: "duet fence status",
	},
	{
		Code: BMCFailed, Severity: Warning, Title: "A BMC cannot be used",
		What: "The BMC of a node cannot be used",
		Why:  "Fencing by it gives no evidence",
		Next: "Look at the page and the log of the BMC", Command: "duet fence status",
	},
	{
		Code: PDUSilent, Severity: Warning, Title: "The PDU does not answer",
		What: "The PDU does not answer",
		Why:  "If a BMC dies with its node, takeover waits 6 s",
		Next: "Check its cable, its address, and whether Modbus TCP is enabled there", Command: "duet fence status",
	},
	{
		Code: PDUIdentity, Severity: Critical, Title: "The PDU is another device than before",
		What: "The PDU is another device than before",
		Why:  "Its outlets may feed anything; none is switched",
		Next: "Check the address of the PDU", Command: "duet fence status",
	},
	{
		Code: PDUOutlet, Severity: Warning, Title: "The PDU does not have that outlet",
		What: "The PDU does not have an outlet that the site document names",
		Why:  "The outlets of that node cannot be used",
		Next: "Correct the outlets of the node", Command: "duet fence status",
	},
	{
		Code: PDURejects, Severity: Warning, Title: "The PDU rejects the command",
		What: "The PDU rejects the command",
		Why:  "It can be read and does not switch: no evidence by outlets",
		Next: "Allow writing by Modbus on the PDU and check its IP filter", Command: "duet fence status",
	},
	{
		Code: PDUWrong, Severity: Warning, Title: "The PDU gives wrong answers",
		What: "The PDU gives wrong answers",
		Why:  "What it says is not believed: no evidence by outlets",
		Next: "Check the product, and that nothing else answers at this address", Command: "duet fence status",
	},
	{
		Code: OutletsUnproven, Severity: Warning, Title: "An outlet map is not proven",
		What: "The outlets of a node are not proven to feed it",
		Why:  "An unproven outlet is no evidence: takeover from that node then uses its BMC, or waits 6 s",
		Next: "Let setup finish its live tests", Command: "duet setup show",
	},
	{
		Code: OutletsWrong, Severity: Critical, Title: "The outlets do not feed what the document says",
		What: "The outlets of a node are off and its BMC goes on",
		Why:  "Fencing by them would not stop that node, and may stop something else",
		Next: "Compare the power cords with the site document", Command: "duet fence status",
	},
	{
		Code: PDUSettling, Severity: Warning, Title: "The PDU may still carry out an earlier command",
		What: "The PDU did not answer an earlier command, which may still be carried out",
		Why:  "Switching the other way now could be undone by it",
		Next: "Wait; the PDU is read again", Command: "duet fence status",
	},
	{
		Code: StaysOn, Severity: Warning, Title: "A node or an outlet stays on",
		What: "A node or one of its outlets was commanded off and stays on",
		Why:  "What that node ran starts here only after 6 s without its beats",
		Next: "Switch it off by hand if it has to be off", Command: "duet fence status",
	},
	{
		Code: SharedOutlet, Severity: Warning, Title: "One outlet feeds both nodes",
		What: "An outlet is named for both nodes",
		Why:  "Switching one node off would switch the other off too",
		Next: "Give each node outlets of its own, or leave the outlets away",
	},
	{
		Code: SharedBMC, Severity: Warning, Title: "Both nodes have the same BMC",
		What: "Both nodes are given the same BMC address or system GUID",
		Why:  "Each node would fence itself",
		Next: "Enter the address of each node's own BMC",
	},
	{
		Code: FenceConfig, Severity: Warning, Title: "The ways to fence a node are set up wrongly",
		What: "The ways to fence a node are set up wrongly",
		Why:  "No device is asked or switched by a setup that is wrong",
		Next: "Correct the site's setup",
	},
	{
		Code: NoFenceMeans, Severity: Warning, Title: "There is no way to switch a node off",
		What: "Neither BMC nor outlets are set up for a node",
		Why:  "If that node dies, takeover waits 6 s",
		Next: "Enter a BMC or outlets for it", Command: "duet fence status",
	},
	{
		Code: NotPoweredOn, Severity: Warning, Title: "A node was not switched on",
		What: "A node or its outlets do not read on after the command",
		Why:  "That node stays off; this one serves alone",
		Next: "Press its power button and look at the log of its BMC", Command: "duet fence status",
	},
	{
		Code: FenceTestFailed, Severity: Critical, Title: "The live fence test failed",
		What: "The live test of node {node} failed at: {step}",
		Why:  "This way is no evidence until the test passes",
		Next: "Mend the cause and give the answers again: the test goes on", Command: "duet setup answer FILE",
	},
	{
		Code: NobodyAnswers, Severity: Warning, Title: "No way to a node said anything that can be believed",
		What: "Neither BMC nor PDU said anything about a node that can be believed",
		Why:  "What that node ran starts here after 6 s without its beats, not before",
		Next: "Check the networks of the BMC and of the PDU", Command: "duet fence status",
	},
}
