package postgres

import (
	"duet/appliance/event"
	"duet/appliance/postgres/decide"
)

// codes of what decide raises. 4006, 4012, 4013, 4015 and 4016 of the design are raised by nobody yet.
var codes = map[uint16]event.Code{
	decide.FaultStandbyLost:  event.PGStandbyLost,
	decide.FaultNoReturn:     event.PGNoReturn,
	decide.FaultWaitsHolder:  event.PGWaitsHolder,
	decide.FaultDivergedKept: event.PGDivergedKept,
	decide.FaultNoSpace:      event.PGNoSpace,
	decide.FaultSlotLost:     event.PGSlotLost,
	decide.FaultDirectory:    event.PGDirectory,
	decide.FaultLossAccepted: event.PGLossAccepted,
	decide.FaultDiskLied:     event.PGDiskLied,
	decide.FaultHung:         event.PGHung,
	decide.FaultCrashLoop:    event.PGCrashLoop,
}

// report tells who shows faults. The values are what a person needs to find the node.
func (m *Manager) report(e decide.SetFault) {
	fault := event.New(codes[e.Code], "node", m.cfg.Self.String(), "peer", m.cfg.Self.Peer().String())
	if e.On {
		m.cfg.Log.Warn("fault", "code", string(fault.Code), "what", fault.What())
	} else {
		m.cfg.Log.Info("fault is over", "code", string(fault.Code))
	}
	if m.cfg.Report != nil {
		m.cfg.Report(fault, e.On)
	}
}
