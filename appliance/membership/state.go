package membership

// Config holds the durations of section 5.3, in nanoseconds, and this node's slot.
type Config struct {
	Self        Node
	Lease       Boottime // L
	PeerWait    Boottime // W0
	Bias        Boottime // R4, the node that is not pair owner
	BootWait    Boottime // R4 in init
	AskAgain    Boottime // the same CAS or PUSH again
	FenceAgain  Boottime // R10 after unknown or refused
	PowerOnWait Boottime // R10b
	CommitAgain Boottime // COMMIT until a BEAT shows its epoch
}

// State is one node's whole view: a comparable value. Exported so that the driver can
// snapshot it (JSON), status can show it and the explorer can encode it; only Step changes it.
type State struct {
	Cfg      Config
	Rec      Record // as durable after the effects of the last Step
	Mode     Mode
	Session  Session
	Lease    Boottime // deadline of my right to run; 0: none
	PeerWait Boottime // until when the peer may still run something
}
