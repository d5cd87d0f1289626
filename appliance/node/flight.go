package node

import (
	"path/filepath"

	"duet/appliance/api"
	"duet/appliance/event"
	"duet/appliance/support/flight"
)

// flightDir is the ring of the flight recorder in the data directory.
const flightDir = "flight"

// startFlight begins the recording. It cannot fail: what goes wrong later is a fault, and nothing else ends with it.
func (n *Node) startFlight() {
	limit := n.boot.FlightBytes
	if limit == 0 {
		limit = flight.DefaultLimit
	}
	n.flight = flight.Start(flight.Config{
		Dir: filepath.Join(n.boot.DataDir, flightDir), Limit: limit, BootID: n.bootID, Node: n.self,
		Log: n.log.With("subsystem", "flight"),
		Broken: func(err error) {
			n.faults.raise(event.New(event.RecordingStopped, "node", n.self.String()).Because(err))
		},
		Mended: func() { n.faults.clear(event.RecordingStopped) },
	})
}

// linkFacts is what came in the peer's place or out of turn.
func (n *Node) linkFacts() api.Link {
	l := api.Link{Refused: map[string]uint64{}, Dropped: n.driver.Dropped()}
	for reason, count := range n.driver.Refused() {
		l.Refused[string(reason)] = count
	}
	return l
}

func (n *Node) flightFacts() api.FlightRecorder {
	s := n.flight.Status()
	return api.FlightRecorder{Recording: s.Recording, Sequence: s.Sequence, Lost: s.Lost}
}
