package event

// The codes. Areas: SITE 1xxx, REPL 2xxx, DISK 3xxx, PG 4xxx, FENCE 5xxx, VM 6xxx, NET 7xxx, CHAS 8xxx, SYS 9xxx. ipmi/fence and
// duet-mirrord write their codes themselves: they know nothing of this package. build/tidy compares.
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
	RecordsConflict Code = "SITE-1016"
	RegisterAhead   Code = "SITE-1017"
	FoundingFailed  Code = "SITE-1018"
	DocumentUnread  Code = "SITE-1020"
	WrongPeerKey    Code = "SITE-1021"
	OrderRefused    Code = "SITE-1030"
	NoWitness       Code = "SITE-1031"
	Forced          Code = "SITE-1032"

	OverrideUnconfirmed Code = "SITE-1033"
	HasLeft             Code = "SITE-1034"
	ArbiterNone         Code = "SITE-1035"
	OrderUnconfirmed    Code = "SITE-1036"

	// REPL: the mirror. 2006, 2010 and 2011 are kept for checksums and scrub (replication.md section 11).
	LegsUnrelated     Code = "REPL-2001"
	NoSource          Code = "REPL-2002"
	BothWrote         Code = "REPL-2003"
	GenerationsDiffer Code = "REPL-2004"
	CopyDiffers       Code = "REPL-2005"
	LegMissing        Code = "REPL-2020"
	DiskFailed        Code = "REPL-2021"
	LegUnusable       Code = "REPL-2022"
	ForeignMirror     Code = "REPL-2030"
	UnknownVolume     Code = "REPL-2041"
	MirrorDown        Code = "REPL-2042"
	CopyFailed        Code = "REPL-2043"

	// DISK: media.
	RecordUnwritable Code = "DISK-3002"

	// FENCE: evidence; 501x BMC, 502x PDU and outlets, 503x setup, 504x outcome.
	FenceUnknown       Code = "FENCE-5006"
	Fenced             Code = "FENCE-5008"
	PowerOnGivenUp     Code = "FENCE-5009"
	BMCSaysOff         Code = "FENCE-5010"
	WrongBMC           Code = "FENCE-5011"
	BMCSilent          Code = "FENCE-5012"
	BMCLogin           Code = "FENCE-5013"
	BMCRole            Code = "FENCE-5014"
	BMCSessions        Code = "FENCE-5015"
	BMCCannotSwitch    Code = "FENCE-5016"
	BMCSuite           Code = "FENCE-5017"
	BMCFailed          Code = "FENCE-5018"
	BMCFirmware        Code = "FENCE-5019"
	OutletOff          Code = "FENCE-5020"
	PDUSilent          Code = "FENCE-5021"
	PDUIdentity        Code = "FENCE-5022"
	PDUOutlet          Code = "FENCE-5023"
	PDURejects         Code = "FENCE-5024"
	PDUWrong           Code = "FENCE-5025"
	OutletsUnproven    Code = "FENCE-5026"
	OutletsWrong       Code = "FENCE-5027"
	PDUSettling        Code = "FENCE-5028"
	StaysOn            Code = "FENCE-5029"
	SharedOutlet       Code = "FENCE-5031"
	SharedBMC          Code = "FENCE-5032"
	FenceConfig        Code = "FENCE-5033"
	NoFenceMeans       Code = "FENCE-5034"
	PDUNoMap           Code = "FENCE-5035"
	OutletReserved     Code = "FENCE-5036"
	SharedPSUs         Code = "FENCE-5037"
	PSUUncovered       Code = "FENCE-5038"
	NotPoweredOn       Code = "FENCE-5041"
	FenceTestFailed    Code = "FENCE-5042"
	NobodyAnswers      Code = "FENCE-5043"
	FenceStale         Code = "FENCE-5044"
	FenceContradiction Code = "FENCE-5045"
	RelayOnly          Code = "FENCE-5046"
	NodeLatched        Code = "FENCE-5047"
	FenceTestRefused   Code = "FENCE-5048"
	LedgerDead         Code = "FENCE-5049"

	// VM: virtual machines.
	UnknownVM     Code = "VM-6001"
	OtherNodeOwns Code = "VM-6003"
	VMNotAllowed  Code = "VM-6004"
	LibvirtDown   Code = "VM-6005"
	VMKillFailed  Code = "VM-6006"
	VMOrphan      Code = "VM-6007"
	VMStartFailed Code = "VM-6031"

	// NET: ways between the nodes.
	NoDataLane  Code = "NET-7002"
	LinkRefused Code = "NET-7004"

	OtherPeerVersion Code = "NET-7005"

	// SYS: this node's software.
	Internal        Code = "SYS-9000"
	DaemonSilent    Code = "SYS-9002"
	TaskRunning     Code = "SYS-9003"
	UnknownTask     Code = "SYS-9004"
	UnknownObject   Code = "SYS-9005"
	BadRequest      Code = "SYS-9006"
	NotRoot         Code = "SYS-9007"
	WatchdogMissing Code = "SYS-9008"
	DeadlinePassed  Code = "SYS-9009"
	StillRunning    Code = "SYS-9010"
	TaskCancelled   Code = "SYS-9011"

	RecordingStopped Code = "SYS-9020" // appliance/support/flight
)
