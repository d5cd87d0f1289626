package event

// REPL-2001 to 2005 are those of replication.md section 8; 2020 to 2030 are what duet-mirrord meets besides. It words all
// of them itself, with what it saw (Reported); the texts here stand in the catalogue for all of their kind.

var mirrorEntries = []Entry{
	{
		Code: LegsUnrelated, Severity: Critical, Title: "The legs of a volume do not belong together",
		What: "The legs of a volume are of different sites, volumes, sizes or formats, or have no content in common",
		Why:  "Copying one over the other could destroy the only good copy",
		Next: "Leave both legs as they are and find out where each disk comes from", Command: "duet volume list",
	},
	{
		Code: NoSource, Severity: Critical, Title: "The only leg that may serve is not up to date",
		What: "The only leg that may serve a volume, or be the source of a copy, is not up to date",
		Why:  "The membership names it as the one with every write, and it says itself that it is not",
		Next: "Bring the other node back: its leg may be the source", Command: "duet volume list",
	},
	{
		Code: BothWrote, Severity: Critical, Title: "Both legs were written without the other",
		What: "Both legs of a volume hold writes that the other does not have",
		Why:  "No rule can say which of them to give up",
		Next: "Keep both legs as they are and call support", Command: "duet volume list",
	},
	{
		Code: GenerationsDiffer, Severity: Critical, Title: "Both legs should be equal and are not",
		What: "Both legs of a volume should hold every write, but their generations differ",
		Why:  "One of them may have been replaced by an older copy; guessing could lose acknowledged writes",
		Next: "Keep both legs as they are and call support", Command: "duet volume list",
	},
	{
		Code: CopyDiffers, Severity: Critical, Title: "The legs differed after a copy",
		What: "The digests of both legs differ although every difference was sent",
		Why:  "A disk or a cache lost a write that it had confirmed",
		Next: "Wait for the repeated copy; if the fault comes again, replace the disk of the node that was copied to", Command: "duet volume list",
	},
	{
		Code: LegsDiffer, Severity: Critical, Title: "The legs of a volume were different without a sign of it",
		What: "A scrub found a block that was different on the two legs, and each leg vouched for its own, or neither did",
		Why:  "The version of the node that serves the volume was written to both; which one was right is not known",
		Next: "Export a support bundle: this must not happen", Command: "duet volume show NAME",
	},
	{
		Code: BlockDamaged, Severity: Critical, Title: "A block is damaged on every leg",
		What: "A block of a volume contradicts its checksum or cannot be read, and the other leg does not have it either",
		Why:  "The guest that read it got an I/O error; what was in these 4 KiB is lost unless the other node's leg has it and comes back",
		Next: "Bring the other node back if it is away; else restore what lies there from a backup", Command: "duet volume show NAME",
	},
	{
		Code: LegMissing, Severity: Warning, Title: "A leg of a volume failed or is missing",
		What: "A leg of a volume failed or is missing on one node",
		Why:  "The volume is not mirrored, and the nodes are not paired until it is",
		Next: "Replace the disk of the named node", Command: "duet volume list",
	},
	{
		Code: DiskFailed, Severity: Critical, Title: "A disk failed under a leg",
		What: "A write, sync or read of a leg failed",
		Why:  "The error is final: what the disk holds is not trusted any more, and the volume has at most one copy left",
		Next: "Replace the disk of this node, then switch the node off and on again; if only its error has passed, readmit the leg", Command: "duet volume readmit NAME",
	},
	{
		Code: LegUnusable, Severity: Critical, Title: "A leg cannot be opened or created",
		What: "The leg of a volume cannot be opened or created",
		Why:  "The volume is not mirrored on this node; nothing was changed",
		Next: "Check the disk of this node, and that it belongs to this node", Command: "duet volume list",
	},
	{
		Code: LegSlow, Severity: Critical, Title: "A leg was taken out because its disk is too slow",
		What: "A disk hung, or was far slower than the other node's, without an error, and its leg was taken out",
		Why:  "It held the guests of both nodes; the volume has one copy until the leg is back",
		Next: "Look at the disk, its cable and its controller; then readmit the leg", Command: "duet volume readmit NAME",
	},
	{
		Code: ForeignMirror, Severity: Critical, Title: "A stranger is on the mirror link",
		What: "A machine with another key than the pinned one is on the mirror link",
		Why:  "Only the key that was pinned when the pair was founded is trusted, for ever",
		Next: "Check the cabling of the mirror ports", Command: "duet status",
	},
	{
		Code: UnknownVolume, Severity: Warning, Title: "No such volume",
		What: "There is no volume {volume}",
		Why:  "The site document does not name it",
		Next: "List the volumes", Command: "duet volume list",
	},
	{
		Code: MirrorDown, Severity: Critical, Title: "duet-mirrord does not answer",
		What: "duet-mirrord on node {node} does not answer",
		Why:  "Guests on this node stall until it is back; nothing is lost",
		Next: "It is started again by itself; look at its log if it does not come back",
	},
	{
		Code: CopyFailed, Severity: Warning, Title: "Bringing the other leg up to date was interrupted",
		What: "The copy of session {session} ended: {reason}",
		Why:  "The other node is not in sync yet; the copy begins again where it can",
		Next: "Wait, or look at the link between the nodes", Command: "duet volume list",
	},
}

var diskEntries = []Entry{
	{
		Code: RecordUnwritable, Severity: Critical, Title: "The membership record cannot be written",
		What: "This node cannot write its membership record",
		Why:  "A node that cannot record a decision must not act on it; it has stopped",
		Next: "Replace the system disk of this node",
	},
}
