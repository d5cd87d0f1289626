package scenario

import "time"

// dropped brings a site to arbitration by fencing: the witness is gone for a minute (R21a).
var dropped = Phase{Do: []string{"witness stop", "arbiter fencing"}}

// Rows is the liveness table of protocol.md section 12.2 with what the lab can add to it (hung nodes, slow witness,
// killed daemons, stepped clocks: the faults of features.md section 4).
//
//nolint:maintidx // a table: one entry a row
func Rows() []Row {
	return []Row{
		{
			Name: "witness-lost", Situation: "witness lost", Own: "no pause", Other: "no pause", Person: "repair", OwnWithin: noPause,
			Cases: []Case{
				{"stopped", []Phase{{Do: []string{"witness stop", "witness-lost"}, Quiet: quiet, Own: "owner"}}},
				{"stopped in its tracks", []Phase{{Do: []string{"witness pause"}, Quiet: quiet, Own: "owner"}}},
				{"cut off from the owner only", []Phase{{Do: []string{"link wan owner cut"}, Quiet: quiet, Own: "owner"}}},
				{"cut off from the other only", []Phase{{Do: []string{"link wan other cut"}, Quiet: quiet, Own: "owner"}}},
			},
		},
		{
			Name: "link-lost", Situation: "link lost", Own: "one side serves: pause ~2 s; other frozen, killed at 4 s",
			Other: "restarted there ~8 s", Person: "repair", OwnWithin: StallTarget, OtherWithin: VMStartTarget,
			Cases: append([]Case{
				{"both reach the witness", []Phase{{Do: []string{"link all cut"}, One: true}}},
				{"the other does not reach the witness", []Phase{{Do: []string{"link wan other cut", "link all cut"}, Own: "owner"}}},
			}, again(
				Case{"the owner does not reach the witness", []Phase{{Do: []string{"link wan owner cut", "link all cut"}, Starts: "other"}}},
			)...),
		},
		{
			Name: "lan-lost", Situation: "only the LAN between the nodes lost", Own: "no pause; ~1 s if the mirror's lane was on it",
			Other: "no pause", Person: "repair", OwnWithin: StallTarget,
			Cases: []Case{
				{"the switch", []Phase{{Do: []string{"link lan cut"}, Quiet: quiet, Own: "owner"}}},
				{"the owner's LAN cable", []Phase{{Do: []string{"link lan owner cut"}, Quiet: quiet, Own: "owner"}}},
			},
		},
		{
			Name: "cable-lost", Situation: "only the cable between the nodes lost", Own: "pause ~2 s", Other: "no pause", Person: "repair",
			OwnWithin: StallTarget,
			Cases:     []Case{{"mirror0 cut", []Phase{{Do: []string{"link mirror0 cut"}, Quiet: quiet, Own: "owner"}}}},
		},
		{
			Name: "leg-fails", Situation: "one leg fails", Own: "pause of that volume ~0.1 s", Other: "same", Person: "replace disk",
			Note:      "the drive answers nothing but errors; it comes back when its node is switched off and on again",
			OwnWithin: noPause, BackWithin: VMStartTarget,
			Cases: again(
				Case{"the other's, once: a new leg by order", []Phase{
					{Do: []string{"disk other.1 eio write once"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"readmit other", "paired"}, Quiet: quiet / 4, Own: "owner"},
				}},
				Case{"the owner's, once: a new leg by order", []Phase{
					{Do: []string{"disk owner.1 eio write once"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"readmit owner", "paired"}, Quiet: quiet / 4, Own: "owner"},
				}},
				Case{"the other's", []Phase{
					{Do: []string{"disk other.1 eio"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"disk other.1 ok", "cut other"}, Own: "owner", Back: true},
				}},
				Case{"the owner's", []Phase{
					{Do: []string{"disk owner.1 eio"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"disk owner.1 ok", "cut owner"}, Starts: "other", Back: true},
				}},
			),
		},
		{
			Name: "leg-hangs", Situation: "one leg hangs, without an error", Own: "pause of that volume < 3 s", Other: "same", Person: "look at the disk",
			Note:      "the drive answers nothing at all; the leg comes back by order, when it answers again",
			OwnWithin: hangPause,
			Cases: again(
				Case{"the other's", []Phase{
					{Do: []string{"disk other.1 hang"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"disk other.1 ok", "readmit other", "paired"}, Quiet: quiet / 4, Own: "owner"},
				}},
				Case{"the owner's", []Phase{
					{Do: []string{"disk owner.1 hang"}, Quiet: quiet, Own: "owner"},
					{Do: []string{"disk owner.1 ok", "readmit owner", "paired"}, Quiet: quiet / 4, Own: "owner"},
				}},
			),
		},
		{
			Name: "node-dies", Situation: "one node dies", Own: "1.5 s + CAS (0.1-1 s)", Other: "+ BMC: 4-10 s", Person: "none",
			OwnWithin: StallTarget, OtherWithin: VMStartTarget,
			Cases: again(
				Case{"the owner", []Phase{{Do: []string{"panic owner"}, Starts: "other"}}},
				Case{"the other", []Phase{{Do: []string{"panic other"}, Own: "owner"}}},
			),
		},
		{
			Name: "node-and-bmc-die", Situation: "node dies with its BMC (its feed cut)", Own: "1.5 s + CAS",
			Other: "PDU 5-12 s, else W0: ~8 s after the last beat", Person: "none", OwnWithin: StallTarget, OtherWithin: 12 * time.Second,
			Cases: again(
				Case{"the owner", []Phase{{Do: []string{"cut owner"}, Starts: "other"}}},
				Case{"the other", []Phase{{Do: []string{"cut other"}, Own: "owner"}}},
				Case{"the owner, PDU silent", []Phase{{Do: []string{"pdu mute", "cut owner"}, Starts: "other"}}},
			),
		},
		{
			Name: "fences-lost", Situation: "BMC or PDU or both lost, with or without the witness", Own: "no pause", Other: "no pause",
			Person: "repair", OwnWithin: noPause,
			Cases: []Case{
				{"BMC of the owner", []Phase{{Do: []string{"bmc owner mute"}, Quiet: quiet / 2, Own: "owner"}}},
				{"BMC of the other", []Phase{{Do: []string{"bmc other mute"}, Quiet: quiet / 2, Own: "owner"}}},
				{"PDU", []Phase{{Do: []string{"pdu mute"}, Quiet: quiet / 2, Own: "owner"}}},
				{"both BMCs and PDU", []Phase{{Do: []string{"bmc a mute", "bmc b mute", "pdu mute"}, Quiet: quiet, Own: "owner"}}},
				{"all of them and the witness", []Phase{{Do: []string{"bmc a mute", "bmc b mute", "pdu mute", "witness stop"}, Quiet: quiet, Own: "owner"}}},
			},
		},
		{
			Name: "link-and-fences-lost", Situation: "link + BMC + PDU lost", Own: "~2 s", Other: "~8 s (lease)", Person: "repair",
			OwnWithin: StallTarget, OtherWithin: VMStartTarget,
			Cases: append([]Case{
				{"both reach the witness", []Phase{{Do: []string{"bmc a mute", "bmc b mute", "pdu mute", "link all cut"}, One: true}}},
			}, again(
				Case{"the owner does not reach the witness", []Phase{
					{Do: []string{"bmc a mute", "bmc b mute", "pdu mute", "link wan owner cut", "link all cut"}, Starts: "other"},
				}},
			)...),
		},
		{
			Name: "node-then-witness", Situation: "node dies, then witness", Own: "no pause (solo recorded)", Other: "same", Person: "none",
			OwnWithin: noPause,
			Cases: again(
				Case{"the other", []Phase{
					{Do: []string{"cut other", "until owner solo"}},
					{Do: []string{"witness stop", "witness-lost"}, Own: "owner"},
				}},
				Case{"the owner", []Phase{
					{Do: []string{"cut owner", "until other solo", "runs other", "writes other"}},
					{Do: []string{"witness stop", "witness-lost"}, Own: "other"},
				}},
			),
		},
		{
			Name: "node-witness-reboot", Situation: "node dies, then witness, then the survivor reboots alone", Own: "serves at boot (R1)",
			Other: "R8: recorded, else W0", Person: "none", OwnWithin: nodeBoot, OtherWithin: VMStartTarget,
			Note: "counted from the power button; the boot of a node is in it",
			Cases: []Case{
				{"the other dies", []Phase{
					{Do: []string{"cut other", "until owner solo", "witness stop", "pause 1s", "cut owner", "pause 1s"}},
					{Do: []string{"on owner"}, Own: "owner", Starts: "owner"},
				}},
				{"the owner dies", []Phase{
					{Do: []string{"cut owner", "until other solo", "runs other", "witness stop", "cut other", "pause 1s"}},
					{Do: []string{"on other"}, Own: "other", Starts: "other"},
				}},
			},
		},
		{
			Name: "witness-then-node", Situation: "witness lost, then a node dies", Own: "frozen until witness, peer or person", Other: "-",
			Person: "R26, or bring back the witness or the node", BackWithin: VMStartTarget,
			Cases: []Case{
				{"the owner; the witness returns", []Phase{
					{Do: []string{"witness stop", "witness-lost"}},
					{Do: []string{"cut owner"}, Holds: []string{"other"}, Waits: "the witness or node"},
					{Do: []string{"witness start"}, Starts: "other", Back: true},
				}},
				{"the other; the witness returns", []Phase{
					{Do: []string{"witness stop", "witness-lost"}},
					{Do: []string{"cut other"}, Holds: []string{"owner"}, Waits: "the witness or node"},
					{Do: []string{"witness start"}, Own: "owner", Back: true},
				}},
				{"the other; it returns", []Phase{
					{Do: []string{"witness stop", "witness-lost"}},
					{Do: []string{"cut other"}, Holds: []string{"owner"}, Waits: "the witness or node"},
					{Do: []string{"on other"}, Own: "owner", Back: true},
				}},
			},
		},
		{
			Name: "witness-then-link", Situation: "witness lost, then link lost",
			Own: "both frozen; killed (or suspended) at 4 s; go on when link or witness returns", Other: "-", Person: "repair",
			BackWithin: VMStartTarget,
			Cases: []Case{
				{"the witness returns", []Phase{
					{Do: []string{"witness stop", "witness-lost"}},
					{Do: []string{"link all cut"}, Holds: []string{"a", "b"}, Waits: "the witness or node"},
					{Do: []string{"witness start"}, One: true, Back: true},
				}},
				{"the link returns", []Phase{
					{Do: []string{"witness stop", "witness-lost"}},
					{Do: []string{"link all cut"}, Holds: []string{"a", "b"}, Waits: "the witness or node"},
					{Do: []string{"link all restore"}, Own: "owner", Back: true},
				}},
			},
		},
		{
			Name: "witness-then-node-and-bmc", Situation: "witness lost, then node + its BMC (no PDU)", Own: "frozen", Other: "-",
			Person: "R26, or bring back the witness or the node", BackWithin: 12 * time.Second,
			Cases: []Case{
				{"the owner", []Phase{
					{Do: []string{"witness stop", "witness-lost", "pdu mute"}},
					{Do: []string{"cut owner"}, Holds: []string{"other"}, Waits: "the witness or node"},
					{Do: []string{"witness start"}, Starts: "other", Back: true},
				}},
				{"the other", []Phase{
					{Do: []string{"witness stop", "witness-lost", "pdu mute"}},
					{Do: []string{"cut other"}, Holds: []string{"owner"}, Waits: "the witness or node"},
					{Do: []string{"witness start"}, Own: "owner", Back: true},
				}},
			},
		},
		{
			Name: "dropped-then-node", Situation: "witness lost for 60 s (arbitration by fencing, R21), then a node dies",
			Own: "confirmed fence: 4-8 s if the survivor is pair owner, else 10-16 s", Other: "same", Person: "none",
			OwnWithin: 16 * time.Second,
			Note:      "the lab does not say who owns the pair; a node that panics is back before the turn of one that does not",
			Cases:     []Case{{"the other", []Phase{dropped, {Do: []string{"panic other"}, Own: "owner"}}}},
		},
		{
			Name: "dropped-then-node-with-bmc", Situation: "witness lost for 60 s (R21), then a node dies with its BMC", Own: "PDU 18-45 s",
			Other: "same", Person: "none", OwnWithin: 45 * time.Second, OtherWithin: 45 * time.Second,
			Cases: []Case{
				{"the other", []Phase{dropped, {Do: []string{"cut other"}, Own: "owner"}}},
				{"the owner", []Phase{dropped, {Do: []string{"cut owner"}, Starts: "other"}}},
			},
		},
		{
			Name: "dropped-then-link", Situation: "witness lost for 60 s (R21), then link lost",
			Own: "pair owner fences, 4-8 s; the other boots and waits for the link", Other: "same", Person: "repair",
			OwnWithin: 8 * time.Second, OtherWithin: 16 * time.Second,
			Cases: []Case{
				{"both can fence", []Phase{dropped, {Do: []string{"link all cut"}, One: true}}},
				{"only the other can fence", []Phase{dropped, {Do: []string{"bmc other mute", "pdu mute", "link all cut"}, Starts: "other"}}},
			},
		},
		{
			Name: "dropped-then-node-and-bmc", Situation: "witness lost for 60 s (R21), then node + its BMC (no PDU)",
			Own: "frozen (evidence unknown)", Other: "-", Person: "R26, or bring back the node", BackWithin: 2*time.Second + nodeBoot,
			Note: "back is counted from the power button",
			Cases: []Case{
				{"the other", []Phase{
					dropped,
					{Do: []string{"pdu mute", "cut other"}, Holds: []string{"owner"}, Waits: "evidence that node"},
					{Do: []string{"on other"}, Own: "owner", Back: true},
				}},
			},
		},
		{
			Name: "dropped-both-cycled", Situation: "witness lost for 60 s (R21), both power-cycled, one returns",
			Own: "refuses (R21c): waits for the other", Other: "-", Person: "R26, or bring back the other", BackWithin: 2*time.Second + nodeBoot,
			Note: "back is counted from the power button",
			Cases: both("returns", func(x, y string) []Phase {
				return []Phase{
					dropped,
					{Do: []string{"cut other", "cut owner", "pause 1s"}},
					{Do: []string{"on " + x}, Holds: []string{x}, Waits: "or a person"},
					{Do: []string{"on " + y}, Own: "owner", Back: true},
				}
			}),
		},
		{
			Name: "witness-replaced", Situation: "witness replaced, then a node dies", Own: "as \"one node dies\"", Other: "same", Person: "none",
			OwnWithin: StallTarget, OtherWithin: VMStartTarget,
			Cases: again(
				Case{"the owner", []Phase{
					{Do: []string{"replace-witness"}, Quiet: quiet / 2, Own: "owner"},
					{Do: []string{"panic owner"}, Starts: "other"},
				}},
				Case{"the other", []Phase{
					{Do: []string{"replace-witness"}, Quiet: quiet / 2, Own: "owner"},
					{Do: []string{"panic other"}, Own: "owner"},
				}},
			),
		},
		{
			Name: "node-leaves", Situation: "a node leaves by order, and returns", Own: "-", Other: "VM boot", Person: "the orders",
			OtherWithin: VMStartTarget,
			Cases: again(
				Case{"the owner", []Phase{
					{Do: []string{"duet owner node leave owner --reason lab --yes --confirm-site demo"}, Starts: "other"},
					{Do: []string{"duet owner node return owner", "paired"}, Own: "other"},
				}},
			),
		},
		{
			Name: "both-return", Situation: "both power-cycled, both return", Own: "1-2 s after both are up", Other: "same", Person: "none",
			OwnWithin: 2*time.Second + nodeBoot, Note: "counted from the second power button; the boot of a node is in it",
			Cases: []Case{
				{"the owner first", []Phase{
					{Do: []string{"cut owner", "cut other", "pause 1s", "on owner", "pause 2s"}},
					{Do: []string{"on other"}, Own: "owner"},
				}},
				{"the owner last", []Phase{
					{Do: []string{"cut other", "cut owner", "pause 1s", "on other", "pause 2s"}},
					{Do: []string{"on owner"}, Own: "owner"},
				}},
			},
		},
		{
			Name: "one-returns", Situation: "both power-cycled, one returns, witness alive", Own: "boot wait + CAS", Other: "+ fence or W0",
			Person: "none", OwnWithin: 16*time.Second + nodeBoot, OtherWithin: 28*time.Second + nodeBoot,
			Note: "counted from the power button; boot wait 15 s",
			Cases: []Case{
				{"the owner returns", []Phase{
					{Do: []string{"cut other", "cut owner", "pause 1s"}},
					{Do: []string{"on owner"}, Own: "owner"},
				}},
				{"the other returns", []Phase{
					{Do: []string{"cut other", "cut owner", "pause 1s"}},
					{Do: []string{"on other"}, Starts: "other"},
				}},
			},
		},
		{
			Name: "both-cycled-no-witness", Situation: "both power-cycled, no witness, last {a,b}, and one returns or the link is cut",
			Own: "refuse", Other: "-", Person: "R26 or repair", BackWithin: 2*time.Second + nodeBoot,
			Note: "back is counted from the power button or the link",
			Cases: append(both("returns", func(x, y string) []Phase {
				return []Phase{
					{Do: []string{"witness stop", "cut other", "cut owner", "pause 1s"}},
					{Do: []string{"on " + x}, Holds: []string{x}, Waits: "the witness"},
					{Do: []string{"on " + y}, Own: "owner", Back: true},
				}
			}), Case{"both return, link cut", []Phase{
				{Do: []string{"witness stop", "cut other", "cut owner", "link all cut", "pause 1s"}},
				{Do: []string{"on owner", "on other"}, Holds: []string{"a", "b"}, Waits: "the witness"},
				{Do: []string{"link all restore"}, Own: "owner", Back: true},
			}}),
		},
		{
			Name: "both-cycled-link-lost", Situation: "both power-cycled, link lost, witness alive", Own: "boot wait + CAS, one side",
			Other: "+ fence or W0", Person: "repair", OwnWithin: 16*time.Second + nodeBoot, OtherWithin: 28*time.Second + nodeBoot,
			Note: "counted from the power buttons; boot wait 15 s",
			Cases: []Case{
				{"both reach the witness", []Phase{
					{Do: []string{"cut other", "cut owner", "link all cut", "pause 1s"}},
					{Do: []string{"on owner", "on other"}, One: true},
				}},
				{"the owner does not reach the witness", []Phase{
					{Do: []string{"cut other", "cut owner", "link all cut", "link wan owner cut", "pause 1s"}},
					{Do: []string{"on owner", "on other"}, Starts: "other"},
				}},
			},
		},
		{
			Name: "stale-returns", Situation: "a died, b solo, b dies, a alone returns", Own: "refuses (a lacks b's writes)", Other: "-",
			Person: "return b, or R26", BackWithin: VMStartTarget + nodeBoot, Note: "back is counted from the power button; a node that was fenced by its outlets less than 10 s before its peer died has no power at all until that peer returns",
			Cases: []Case{
				{"the owner is stale", []Phase{
					{Do: []string{"cut owner", "until other solo", "runs other", "writes other", "fed owner", "pause 1s", "cut other"}},
					{Do: []string{"on owner"}, Holds: []string{"owner"}, Waits: "node"},
					{Do: []string{"on other"}, Own: "other", Back: true},
				}},
				{"the other is stale", []Phase{
					{Do: []string{"cut other", "until owner solo", "pause 1s", "cut owner"}},
					{Do: []string{"on other"}, Holds: []string{"other"}, Waits: "node"},
					{Do: []string{"on owner"}, Own: "owner", Back: true},
				}},
			},
		},
		{
			Name: "push-unconfirmed", Situation: "commit, then coordinator dies before PUSH is confirmed",
			Own: "frozen if M of the other excluded it before", Other: "-", Person: "R26 or return", BackWithin: 2*time.Second + nodeBoot,
			Note: "at risk until the PUSH is confirmed; back is counted from the power button",
			Cases: []Case{{"the coordinator", []Phase{
				{Do: []string{"cut other", "until owner solo", "witness stop", "on other", "paired"}},
				{Do: []string{"cut owner"}, Holds: []string{"other"}, Waits: "node"},
				{Do: []string{"witness start", "witness-back"}, Holds: []string{"other"}, Waits: "node"},
				{Do: []string{"on owner"}, Own: "owner", Back: true},
			}}},
		},
		{
			Name: "node-hangs", Situation: "node hangs (frozen whole), wakes after the takeover", Own: "1.5 s + CAS", Other: "+ BMC: 4-10 s; W0 without",
			Person: "none", OwnWithin: StallTarget, OtherWithin: VMStartTarget, Note: "it must find itself fenced out: nothing runs twice, its writes are refused, it joins",
			Cases: append(again(
				Case{"the owner, fenced by its BMC", []Phase{{Do: []string{"hang owner"}, Starts: "other"}}},
				Case{"the other, fenced by its BMC", []Phase{{Do: []string{"hang other"}, Own: "owner"}}},
			),
				Case{"the owner wakes, no BMC and no PDU", []Phase{
					{Do: []string{"bmc a mute", "bmc b mute", "pdu mute"}},
					{Do: []string{"hang owner", "until other solo", "resume owner"}, Starts: "other"},
				}},
				Case{"the other wakes, no BMC and no PDU", []Phase{
					{Do: []string{"bmc a mute", "bmc b mute", "pdu mute"}},
					{Do: []string{"hang other", "until owner solo", "resume other"}, Own: "owner"},
				}}),
		},
		{
			Name: "witness-slow", Situation: "witness slow: 5 s round trip, 30 % loss each way; then a node dies",
			Own: "no false failover; 1.5 s + the witness's answer", Other: "+ BMC", Person: "none",
			Note: "no bound is promised: with every third packet lost each way an answer takes as many round trips as it takes",
			Cases: []Case{
				{"nothing dies", []Phase{{Do: []string{"witness slow 2.5s 30%"}, Quiet: 2 * quiet, Own: "owner"}}},
				{"the other dies", []Phase{{Do: []string{"witness slow 2.5s 30%", "pause 6s"}}, {Do: []string{"cut other"}, Own: "owner"}}},
				{"the owner dies", []Phase{{Do: []string{"witness slow 2.5s 30%", "pause 6s"}}, {Do: []string{"cut owner"}, Starts: "other"}}},
			},
		},
		{
			Name: "daemon-killed", Situation: "duetd or duet-mirrord killed", Own: "no takeover; pause below peer lost", Other: "same", Person: "none",
			OwnWithin: 1500 * time.Millisecond,
			Cases: []Case{
				{"duetd of the owner", []Phase{{Do: []string{"kill owner duetd"}, Quiet: quiet / 2, Own: "owner"}}},
				{"duetd of the other", []Phase{{Do: []string{"kill other duetd"}, Quiet: quiet / 2, Own: "owner"}}},
				{"duet-mirrord of the owner", []Phase{{Do: []string{"kill owner duet-mirrord"}, Quiet: quiet / 2, Own: "owner"}}},
				{"duet-mirrord of the other", []Phase{{Do: []string{"kill other duet-mirrord"}, Quiet: quiet / 2, Own: "owner"}}},
			},
		},
		{
			Name: "clock-stepped", Situation: "boot clock of a node a year ahead after its power-on; then the other node dies", Own: "1.5 s + CAS",
			Other: "+ BMC: 4-10 s", Person: "none", OwnWithin: StallTarget, OtherWithin: VMStartTarget,
			Note: "the wall clock is one for all namespaces of a kernel: the lab cannot step it; deciding code imports no clock (build/tidy)",
			Cases: []Case{
				{"the survivor is a year ahead", []Phase{
					{Do: []string{"clock other 8760h", "cycle other", "paired"}},
					{Do: []string{"panic owner"}, Starts: "other"},
				}},
				{"the dead node is a year ahead", []Phase{
					{Do: []string{"clock other 8760h", "cycle other", "paired"}},
					{Do: []string{"panic other"}, Own: "owner"},
				}},
			},
		},
	}
}
