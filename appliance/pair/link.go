package pair

import "duet/appliance/pair/peerlink"

// Refused counts the connections that were turned away from the peer's place, by reason, since duetd began.
func (d *Driver) Refused() map[peerlink.Reason]uint64 { return d.link.Refused() }

// Dropped counts the frames that were dropped inside connections of the peer.
func (d *Driver) Dropped() map[string]uint64 { return d.link.Dropped() }
