package event

// The database pair, appliance/postgres. docs/postgres.md says what raises each of them.

var databaseEntries = []Entry{
	{
		Code: PGStandbyLost, Severity: Warning, Title: "The database has no standby that holds everything",
		What: "The database on node {node} has no standby that holds everything",
		Why:  "If node {node} dies now, node {peer} does not take the database over: rows may exist on node {node} only",
		Next: "Look at node {peer}; it is brought back by itself when it runs",
	},
	{
		Code: PGNoReturn, Severity: Warning, Title: "A standby cannot follow the primary",
		What: "The standby on node {node} has not followed the primary for a minute",
		Why:  "It holds no acknowledged row alone, so it is stopped and made anew from the primary",
		Next: "Wait for the copy; look at the link if it does not end",
	},
	{
		Code: PGWaitsHolder, Severity: Critical, Title: "The database waits for the node that holds it",
		What: "The database waits for node {peer}, which alone holds its newest rows",
		Why:  "Node {node} lacks rows that were acknowledged; serving without them would lose them",
		Next: "Bring node {peer} back",
	},
	{
		Code: PGDivergedKept, Severity: Critical, Title: "A data directory with rows of its own is kept",
		What: "Node {node} has a data directory with rows that node {peer} does not have",
		Why:  "They were acknowledged by node {node} alone, or given up by a person: the machine does not delete them",
		Next: "Decide which rows count before node {node} is made anew",
	},
	{
		Code: PGNoSpace, Severity: Warning, Title: "There is no space to bring a standby back",
		What: "Node {node} has no space for a second copy of its data directory",
		Why:  "A directory is never changed in place, so a rejoin needs room for a copy beside the old one",
		Next: "Free space on the data volume of node {node}",
	},
	{
		Code: PGSlotLost, Severity: Warning, Title: "The log that a standby needs is gone",
		What: "The primary on node {node} has dropped the log that node {peer} needs",
		Why:  "Node {peer} was away for longer than the log volume lasts; it will be copied whole when it returns",
		Next: "Bring node {peer} back",
	},
	{
		Code: PGDirectory, Severity: Critical, Title: "The database directory is missing or foreign",
		What: "Node {node} should hold the database and its directory is missing, foreign or unfinished",
		Why:  "An empty volume must never become a new database, so nothing is started",
		Next: "Look whether the data volume of node {node} is mounted and whole",
	},
	{
		Code: PGLossAccepted, Severity: Critical, Title: "Rows were given up by order",
		What: "Node {node} serves without the newest rows, by order of a person",
		Why:  "Rows that only node {peer} had are missing from the database",
		Next: "Keep the data directory of node {peer} until nobody needs those rows",
	},
	{
		Code: PGDiskLied, Severity: Critical, Title: "A disk lost what it had called written",
		What: "The log of node {node} ends before that of its standby",
		Why:  "Its disk lost rows after it had reported them as written; node {peer} goes on with all of them",
		Next: "Replace the disk of node {node}",
	},
	{
		Code: PGHung, Severity: Warning, Title: "The database does not get on",
		What: "The database on node {node} does not release waiting commits, or does not answer",
		Why:  "A stalled disk or checkpointer delays commits; none of them is cancelled, because a cancelled one would look acknowledged",
		Next: "Look at the disks of node {node}",
	},
	{
		Code: PGCrashLoop, Severity: Warning, Title: "The database server fails again and again",
		What: "The database server on node {node} has failed three times within ten minutes",
		Why:  "It is started again after a pause that grows to 30 s; it is never given up",
		Next: "Look at the log of the server on node {node}",
	},
	{
		Code: PGNotManaged, Severity: Critical, Title: "A node cannot run its database server",
		What: "Node {node} cannot run its database server: {reason}",
		Why:  "The other node has no standby there; a database that runs there already goes on until its lease ends",
		Next: "Mend what the reason names; it is tried again every 5 s",
	},
	{
		Code: PGNone, Severity: Info, Title: "The site has no database",
		What: "The site has no database",
		Why:  "Its document has no section `database`, which is made at founding",
		Next: "Found the site with one, or use another database",
	},
}
