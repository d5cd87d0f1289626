package membership

// The reports. Those marked "fault" stay true until a person or a later event clears them.
const (
	ReportNone            ReportCode = iota
	ReportBooted                     // R1
	ReportResumed                    // the snapshot was valid
	ReportConnected                  // R2
	ReportPeerLost                   // R3
	ReportFrozen                     // writes are held: R3, R17
	ReportAsking                     // R4: the witness is being asked
	ReportWaitsForPeer               // R4 cannot ask: no arbiter, or this node does not hold every acknowledged write
	ReportSolo                       // R1, R5, R20
	ReportExcluded                   // R6: the peer is the only member
	ReportWitnessMismatch            // R7: an answer without a rule; asked again later
	ReportWitnessUnknown             // fault: the witness does not know the register
	ReportTookOver                   // R8
	ReportPeerWaitOver               // the peer has certainly stopped
	ReportFencing                    // R10: an attempt began
	ReportFenceConfirmed             // R10
	ReportFenceUnknown               // R10: no evidence; tried again
	ReportFenceRefused               // R10: the device said no; tried again
	ReportPowerOn                    // R10b
	ReportPowerOnFailed              // R10b: no path could switch it on
	ReportPowerOnLimit               // fault: R10b, three in an hour and no completed join
	ReportLeaseEnded                 // R11
	ReportJoining                    // R12
	ReportResolving                  // R13
	ReportCopying                    // R12b, R13
	ReportPrepareSent                // R14
	ReportPrepared                   // R15
	ReportPaired                     // R16, R16b
	ReportJoinCut                    // R17
	ReportPushConfirmed              // R16: no longer at risk
	ReportRegisterAhead              // fault: R16, the register is above this pair (I13)
	ReportFounding                   // R27: PREPARE of epoch 1 is out
	ReportFounded                    // R27
	ReportFoundingDropped            // R27: the other side never recorded it
	ReportFreshWaits                 // this node is fresh and its peer, which is not, does not go on alone: R28
	ReportFreshPeer                  // the peer is fresh and this node is not: R28
	ReportOtherSite                  // fault: the peer belongs to another site
	ReportHelloUnmatched             // fault: a pair of records that no rule knows
	ReportRecordOlder                // fault: this solo node's record was rolled back; I/O is held
	ReportDiverged                   // fault: two solo sides met; I/O is held
	ReportOwnersConflict             // fault: equal versions, different owners
	ReportLeft                       // R18: this node has left, its peer goes on alone
	ReportNotGiven                   // R22: it could not be drained; it stays here
	ReportGiven                      // R22: a resource is the peer's now
	ReportTaken                      // R22: a resource is this node's now
	ReportArbiterChanges             // R21a: a change of arbitration began
	ReportArbiterSet                 // R21a, R19, R21d, R19s: it is complete here
	ReportPeerOffByPerson            // R26: a person says that the peer is off and stays off
	ReportForced                     // fault: R26, this node goes on against its record
	ReportClaimed                    // R26: the register knows it
	ReportReplaced                   // R28: this node joins in the place of another
	ReportDocument                   // R25: a version of a document is current
	ReportLegOut                     // R23: a leg is out of its volume
	ReportLegIn                      // R24: it is back
	ReportLegHeld                    // fault: R23s, a volume is held because its last leg has failed
	ReportOrderRefused               // an order changed nothing: State.Allows says why
	reportCount
)

var reportNames = [reportCount]string{
	"none", "booted", "resumed", "connected", "peer-lost", "frozen", "asking", "waits-for-peer", "solo", "excluded",
	"witness-mismatch", "witness-unknown", "took-over", "peer-wait-over", "fencing", "fence-confirmed",
	"fence-unknown", "fence-refused", "power-on", "power-on-failed", "power-on-limit", "lease-ended", "joining",
	"resolving", "copying", "prepare-sent", "prepared", "paired", "join-cut", "push-confirmed", "register-ahead", "founding",
	"founded", "founding-dropped", "fresh-waits", "fresh-peer", "other-site", "hello-unmatched", "record-older",
	"diverged", "owners-conflict", "left", "not-given", "given", "taken", "arbiter-changes", "arbiter-set", "peer-off-by-person", "forced",
	"claimed", "replaced", "document", "leg-out", "leg-in", "leg-held", "order-refused",
}

// String is the name that logs and the event catalogue use.
func (c ReportCode) String() string {
	if c >= reportCount {
		return "report?"
	}
	return reportNames[c]
}

// IsFault says whether people must look at it.
func (c ReportCode) IsFault() bool {
	switch c {
	case ReportWitnessUnknown, ReportPowerOnLimit, ReportRegisterAhead, ReportOtherSite, ReportHelloUnmatched,
		ReportRecordOlder, ReportDiverged, ReportOwnersConflict, ReportForced, ReportLegHeld:
		return true
	default: // the others as below
	}
	return false
}
