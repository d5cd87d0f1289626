package event

// The codes. Areas: SITE 1xxx, REPL 2xxx, DISK 3xxx, PG 4xxx, FENCE 5xxx, VM 6xxx, NET 7xxx, CHAS 8xxx, SYS 9xxx.
const (
	// SITE: the document, the membership, the witness.
	DocumentInvalid Code = "SITE-1001"
	AlreadyFounded  Code = "SITE-1002"
	NotFounded      Code = "SITE-1003"
	NoPeer          Code = "SITE-1004"
	PeerNotFresh    Code = "SITE-1005"
	FrozenWaits     Code = "SITE-1007"
	WitnessSilent   Code = "SITE-1010"
	WitnessUnknown  Code = "SITE-1011"
	WitnessRefused  Code = "SITE-1012"
	PeerOff         Code = "SITE-1013"
	WentSolo        Code = "SITE-1014"
	WentPaired      Code = "SITE-1015"
	RecordsConflict Code = "SITE-1016"
	RegisterAhead   Code = "SITE-1017"
	FoundingFailed  Code = "SITE-1018"
	OtherChassis    Code = "SITE-1019"
	DocumentUnread  Code = "SITE-1020"
	WrongPeerKey    Code = "SITE-1021"

	// REPL and DISK: the mirror.
	UnknownVolume    Code = "REPL-2001"
	MirrorDown       Code = "REPL-2002"
	VolumeHeld       Code = "REPL-2003"
	CopyFailed       Code = "REPL-2004"
	MirrorFault      Code = "REPL-2005"
	LegFailed        Code = "DISK-3001"
	RecordUnwritable Code = "DISK-3002"

	// FENCE: evidence.
	BMCSilent       Code = "FENCE-5001"
	BMCRefused      Code = "FENCE-5002"
	PDUSilent       Code = "FENCE-5003"
	OutletsUnproven Code = "FENCE-5004"
	OutletsWrong    Code = "FENCE-5005"
	FenceUnknown    Code = "FENCE-5006"
	NoFencePath     Code = "FENCE-5007"
	Fenced          Code = "FENCE-5008"
	PowerOnGivenUp  Code = "FENCE-5009"
	FenceTestFailed Code = "FENCE-5010"

	// VM: virtual machines.
	UnknownVM       Code = "VM-6001"
	VMStartFailed   Code = "VM-6002"
	OtherNodeOwns   Code = "VM-6003"
	VMNotAllowed    Code = "VM-6004"
	LibvirtDown     Code = "VM-6005"
	VMKillFailed    Code = "VM-6006"
	VMOrphan        Code = "VM-6007"
	VMPausedOnError Code = "VM-6008"
	VMStarted       Code = "VM-6009"
	VMStopped       Code = "VM-6010"

	// NET: ways between the nodes.
	PathDown    Code = "NET-7001"
	NoDataLane  Code = "NET-7002"
	PeerLost    Code = "NET-7003"
	LinkRefused Code = "NET-7004"

	// SYS: this node's software.
	Internal        Code = "SYS-9000"
	ConfigInvalid   Code = "SYS-9001"
	DaemonSilent    Code = "SYS-9002"
	TaskRunning     Code = "SYS-9003"
	UnknownTask     Code = "SYS-9004"
	UnknownObject   Code = "SYS-9005"
	BadRequest      Code = "SYS-9006"
	NotRoot         Code = "SYS-9007"
	WatchdogMissing Code = "SYS-9008"
	DeadlinePassed  Code = "SYS-9009"
	StillRunning    Code = "SYS-9010"
)
