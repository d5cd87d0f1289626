package event

import "slices"

// catalogue is ordered by the numbers of the codes. Texts are short: what happened; why it matters; one next safe step.
var catalogue = slices.Concat(siteEntries, mirrorEntries, diskEntries, databaseEntries, fenceEntries, vmEntries, netEntries, sysEntries)

var siteEntries = []Entry{
	{
		Code: DocumentInvalid, Severity: Warning, Title: "The answers have wrong fields",
		What: "The answers have {count} wrong fields: {fields}",
		Why:  "A site is founded only from a document that is right as a whole",
		Next: "Correct the named fields and give the answers again",
	},
	{
		Code: AlreadyFounded, Severity: Warning, Title: "This node belongs to a site already",
		What: "Node {node} belongs to site {site}",
		Why:  "A site is founded once; founding again would abandon its volumes",
		Next: "Look at the site", Command: "duet status",
	},
	{
		Code: NotFounded, Severity: Warning, Title: "There is no site yet",
		What: "Node {node} is fresh: no site has been founded",
		Why:  "Volumes and VMs exist only in a site",
		Next: "Found the site from node a", Command: "duet setup answer FILE",
	},
	{
		Code: NoPeer, Severity: Warning, Title: "The other node is not seen",
		What: "Node {node} does not see node {peer} on any path inside the chassis",
		Why:  "Both nodes found the site together, and fresh nodes trust each other only inside one chassis",
		Next: "Check that node {peer} is on and that the mirror cable is plugged, then look again", Command: "duet setup show",
	},
	{
		Code: PeerNotFresh, Severity: Critical, Title: "The other node belongs to a site already",
		What: "Node {peer} belongs to another site",
		Why:  "It may hold data of that site; founding would abandon it",
		Next: "Find out which site node {peer} comes from before doing anything",
	},
	{
		Code: FrozenWaits, Severity: Critical, Title: "I/O is held",
		What: "Node {node} holds all I/O and waits for {waits_for}",
		Why:  "It may not write alone: the other node may hold newer writes or may be writing now",
		Next: "Bring back what it waits for: {waits_for}", Command: "duet status",
	},
	{
		Code: WitnessSilent, Severity: Warning, Title: "The witness does not answer",
		What: "The witness at {address} has not answered for {seconds} s",
		Why:  "While the pair is together this stops nothing; where the witness decides, the loss of a node would hold I/O until one of them is back. After 60 s fencing decides, if it is proven",
		Next: "Check the way to the witness and its machine", Command: "duet status",
	},
	{
		Code: WitnessUnknown, Severity: Critical, Title: "The witness does not know this site's register",
		What: "The witness at {address} answers `unknown register`",
		Why:  "It lost its store, or it is another witness; it will never grant anything to this site",
		Next: "Let it make a fresh register", Command: "duet witness replace",
	},
	{
		Code: WitnessRefused, Severity: Warning, Title: "The witness refused the connection",
		What: "The witness at {address} refused: {reason}",
		Why:  "Its key is not the one in the site document, or it does not know the key of this node",
		Next: "Compare the key of `duet-witness key` with the site's, and enrol both nodes there",
	},
	{
		Code: PeerOff, Severity: Warning, Title: "The other node is off or silent",
		What: "Node {peer} has not been heard since {since}",
		Why:  "Node {node} serves alone: its loss would stop service",
		Next: "Look at node {peer}: power, console", Command: "duet status",
	},
	{
		Code: RecordsConflict, Severity: Critical, Title: "The records of the nodes do not fit together",
		What: "The records of a and b match no rule: {detail}",
		Why:  "One of them may have been restored from an old copy; going on could lose acknowledged writes",
		Next: "Leave both nodes as they are and keep the records for support", Command: "duet status",
	},
	{
		Code: RegisterAhead, Severity: Warning, Title: "The register is ahead of the pair",
		What: "The register at {address} holds epoch {register_epoch}, the pair has {epoch}",
		Why:  "If a node dies now, the witness may refuse the other one",
		Next: "Look at the history of both nodes", Command: "duet status",
	},
	{
		Code: FoundingFailed, Severity: Warning, Title: "Founding ended before it was complete",
		What: "Founding stopped at: {step}",
		Why:  "{reason}",
		Next: "Mend the cause and give the answers again", Command: "duet setup show",
	},
	{
		Code: DocumentUnread, Severity: Critical, Title: "The stored site document cannot be read",
		What: "The stored site document of this node cannot be read",
		Why:  "A node that guessed its site could found a second one over its own data",
		Next: "Keep the file, replace the node's system disk if it fails",
	},
	{
		Code: WrongPeerKey, Severity: Critical, Title: "A stranger answers in the peer's place",
		What: "A node answers in the peer's place with another key than the site document names",
		Why:  "Only the pinned key is trusted, for ever",
		Next: "Put the original node back, or check the cabling", Command: "duet status",
	},
	{
		Code: OrderRefused, Severity: Warning, Title: "The order is not possible now",
		What: "Refused: {what}",
		Why:  "As things are, {reason}",
		Next: "{next}", Command: "duet status",
	},
	{
		Code: NoWitness, Severity: Warning, Title: "The site has no witness",
		What: "The site document names no witness",
		Why:  "Without one, fencing decides who goes on alone, and a node whose fencing gives no evidence waits for its peer",
		Next: "Add one", Command: "duet witness add",
	},
	{
		Code: Forced, Severity: Critical, Title: "A node goes on by force",
		What: "Node {node} goes on alone against its record, by order of {text}",
		Why:  "What the other side wrote alone since is not here; its disks are kept as they are",
		Next: "Keep the other node off until it is replaced or joins", Command: "duet status",
	},
	{
		Code: OverrideUnconfirmed, Severity: Warning, Title: "The override was not confirmed",
		What: "Nothing was done: {what} needs the confirmation word of the present state",
		Why:  "An override is a person's word, and what it may lose must have been seen as it is now",
		Next: "Look at what is known and may be lost, then confirm with the word that is shown", Command: "duet override {verb} --reason TEXT",
	},
	{
		Code: HasLeft, Severity: Warning, Title: "A node has left by order",
		What: "Node {node} has left the pair: {text}",
		Why:  "Node {other} goes on alone; its loss would stop service",
		Next: "Let node {node} return when the work is done", Command: "duet node return {node}",
	},
	{
		Code: ArbiterNone, Severity: Warning, Title: "No node may go on alone",
		What: "Neither the witness nor fencing decides who goes on alone",
		Why:  "The loss of a node or of the link would hold I/O; it changes by itself when the witness answers, or fencing is proven in both directions",
		Next: "Restore the witness, or prove fencing: duet fence status", Command: "duet witness status",
	},
	{
		Code: OrderUnconfirmed, Severity: Warning, Title: "The order was not confirmed",
		What: "Nothing was done: {what} needs the name of the site as its confirmation",
		Why:  "It stops what runs, so it must be meant, and for this site",
		Next: "Look at the name of the site, and give the order again with it", Command: "duet status",
	},
}

var vmEntries = []Entry{
	{
		Code: UnknownVM, Severity: Warning, Title: "No such VM",
		What: "There is no VM {vm}",
		Why:  "The site document does not name it",
		Next: "List the VMs", Command: "duet vm list",
	},
	{
		Code: OtherNodeOwns, Severity: Warning, Title: "The other node must be asked",
		What: "{object} belongs to node {node}",
		Why:  "Only its owner may start or stop it",
		Next: "Give the order on node {node}",
	},
	{
		Code: VMNotAllowed, Severity: Warning, Title: "This node may not run the VM now",
		What: "VM {vm} may not run here under epoch {epoch}",
		Why:  "The right to run it was withdrawn, or was given to the other node",
		Next: "See the mode of the node", Command: "duet status",
	},
	{
		Code: LibvirtDown, Severity: Warning, Title: "libvirt does not answer",
		What: "libvirt on this node does not answer",
		Why:  "Running guests go on, but none can be started here",
		Next: "It is started again by itself; look at its log if it is not",
	},
	{
		Code: VMKillFailed, Severity: Critical, Title: "A VM did not end",
		What: "VMs {vms} did not end within their deadline",
		Why:  "A node that cannot stop a guest must not say that it has; it resets itself",
		Next: "None: the node resets itself",
	},
	{
		Code: VMOrphan, Severity: Warning, Title: "A VM that the site does not know",
		What: "A domain {vm} runs on this node that the site document does not name",
		Why:  "It uses memory; duet leaves it alone",
		Next: "Find out who made it", Command: "virsh list",
	},
	{
		Code: VMStartFailed, Severity: Warning, Title: "A VM was not started",
		What: "VM {vm} was not started",
		Why:  "It is tried again while it is wanted",
		Next: "Look at the reason; correct the VM if it repeats", Command: "duet vm show {vm}",
	},
}

var netEntries = []Entry{
	{
		Code: NoDataLane, Severity: Critical, Title: "The mirror has no lane",
		What: "duet-mirrord has no data lane to node {peer}",
		Why:  "Writes cannot be mirrored; after 1.5 s one node goes on alone",
		Next: "Check the mirror cable", Command: "duet status",
	},
	{
		Code: LinkRefused, Severity: Warning, Title: "A connection was refused",
		What: "A connection from {address} on path {path} was refused: {reason}",
		Why:  "Only the other node of this chassis has business on this port; what runs is not disturbed",
		Next: "Find out what uses the network between the nodes", Command: "duet status",
	},
	{
		Code: OtherPeerVersion, Severity: Critical, Title: "The other node speaks another version",
		What: "Node {peer} speaks another version of the protocol: {reason}",
		Why:  "The nodes cannot be a pair until both run releases that understand each other; what runs is not disturbed",
		Next: "Bring both nodes to the same release", Command: "duet version",
	},
	{
		Code: AddressTaken, Severity: Critical, Title: "Another machine has a service address",
		What: "Another machine, {mac}, answers for the service address {address} on {interface} of node {node}",
		Why:  "Two machines with one address take each other's clients, so it is not taken; the node can be reached by its own address",
		Next: "Take the address away from that machine, or give the site another one",
	},
}

var sysEntries = []Entry{
	{
		Code: Internal, Severity: Critical, Title: "An error without a code",
		What: "{error}",
		Why:  "This is a fault of duet: every error should have a code",
		Next: "Keep the log and report it",
	},
	{
		Code: DaemonSilent, Severity: Critical, Title: "duetd does not answer",
		What: "duetd at {socket} does not answer",
		Why:  "It is not running, or it hangs; guests and their disks go on up to the end of the lease",
		Next: "It is started again by itself; look at its log if it is not",
	},
	{
		Code: TaskRunning, Severity: Warning, Title: "Another task is running",
		What: "Task {task} is running",
		Why:  "One task at a time",
		Next: "Wait for it", Command: "duet setup show",
	},
	{
		Code: UnknownTask, Severity: Warning, Title: "No such task",
		What: "There is no task {task}",
		Why:  "Tasks are forgotten when duetd restarts; setup's progress is not",
		Next: "Look at setup", Command: "duet setup show",
	},
	{
		Code: UnknownObject, Severity: Warning, Title: "No such thing",
		What: "There is no {path}",
		Why:  "The address names nothing in this API",
		Next: "See the commands", Command: "duet help",
	},
	{
		Code: BadRequest, Severity: Warning, Title: "The request cannot be understood",
		What: "The request is malformed: {detail}",
		Why:  "Nothing was done",
		Next: "Correct the request", Command: "duet help",
	},
	{
		Code: NotRoot, Severity: Warning, Title: "Only root may use the local socket",
		What: "User {uid} may not use duetd's local socket",
		Why:  "Who can order the node must be able to log in to it as root",
		Next: "Run the command as root",
	},
	{
		Code: WatchdogMissing, Severity: Warning, Title: "There is no hardware watchdog",
		What: "The watchdog {device} cannot be used: {reason}",
		Why:  "A node that hangs as a whole is stopped by its peer's fence only",
		Next: "Check the device",
	},
	{
		Code: DeadlinePassed, Severity: Warning, Title: "The deadline passed",
		What: "{what} did not finish within {seconds} s",
		Why:  "Waiting for it was given up; what was begun goes on and may still be completed",
		Next: "Look at the state before ordering it again", Command: "duet status",
	},
	{
		Code: StillRunning, Severity: Warning, Title: "A long action is still running",
		What: "{what} is still running after {seconds} s",
		Why:  "Following it was given up; it goes on by itself",
		Next: "See how far it has come", Command: "duet setup show",
	},
	{
		Code: TaskCancelled, Severity: Warning, Title: "A task was cancelled",
		What: "Task {task} was cancelled: {reason}",
		Why:  "What it had begun was ended or put back as far as that was possible; what had taken effect stays",
		Next: "Look at the state, then order it again", Command: "duet status",
	},
	{
		Code: RecordingStopped, Severity: Warning, Title: "The flight recorder has stopped",
		What: "The flight recorder of node {node} cannot write its ring",
		Why:  "Everything else goes on; what is decided until it records again cannot be replayed",
		Next: "Look at the space and the health of the system disk of node {node}", Command: "duet status",
	},
}
