package outlook

import "fmt"

// sentence: `demo: at risk. Survives the loss of: link, witness. Not of: node a. (b is off since 03:12)`.
func sentence(f Facts, v View) string {
	var survived, not []string
	for _, l := range v.Losses {
		if l.Survived {
			survived = append(survived, l.Of)
		} else {
			not = append(not, l.Of)
		}
	}
	if len(survived) == 0 {
		survived = []string{"nothing"}
	}
	text := fmt.Sprintf("%s: %s. Survives the loss of: %s.", f.Site, v.Word, list(survived, ", "))
	if len(not) > 0 {
		text += fmt.Sprintf(" Not of: %s.", list(not, ", "))
	}
	if why := reasons(f); len(why) > 0 {
		text += " (" + list(why, "; ") + ")"
	}
	return text
}

// reasons: what is not as it should be, worst first.
func reasons(f Facts) []string {
	var why []string
	if f.Forced != "" {
		why = append(why, f.Self+" goes on by force, against its record: "+f.Forced)
	}
	switch {
	case f.Mode == Solo && !f.Peer && f.PeerLeft:
		why = append(why, other(f.Self)+" has left by order")
	case f.Mode == Solo && !f.Peer:
		text := other(f.Self) + " is not heard"
		if f.PeerOff {
			text = other(f.Self) + " is off"
		}
		if f.Since != "" {
			text += " since " + f.Since
		}
		why = append(why, text)
	case f.Mode != Paired:
		joiner := other(member(f))
		text := joiner + " is being brought up to date"
		if f.CopyParts >= 0 {
			text += fmt.Sprintf(": %d %%", f.CopyParts)
		}
		why = append(why, text)
	}
	if text := arbitration(f); text != "" {
		why = append(why, text)
	}
	if f.Mode == Paired {
		for _, n := range []string{"a", "b"} {
			if v := onlyOn(f.Volumes, n); v != "" {
				why = append(why, "volume "+v+" is not in sync on "+other(n))
			}
		}
	}
	switch only := f.Database.only(); {
	case !f.Database.There:
	case !f.Database.Recorded:
		why = append(why, "the database is being made")
	case !f.Database.Serves:
		why = append(why, "the database does not serve")
	case f.Mode == Paired && only != "":
		why = append(why, "the database has no standby that holds everything")
	}
	for _, vm := range f.VMs {
		if vm.Desired && !vm.Running {
			why = append(why, "VM "+vm.Name+" does not run")
		}
	}
	if !f.Complete {
		why = append(why, "setup is not complete")
	}
	return why
}

// arbitration: how the witness stands, and what decides instead.
func arbitration(f Facts) string {
	text := ""
	switch {
	case !f.Witness.Configured:
		text = "there is no witness"
	case !f.Witness.Reached:
		text = "the witness is not reached"
	case f.Mode == Paired && f.Arbiter == ByWitness && !f.Witness.Confirmed:
		return "the witness has not confirmed this membership yet"
	case f.Mode == Paired && f.Arbiter == ByWitness && !f.Witness.PeerReached:
		return "node " + other(f.Self) + " does not reach the witness"
	}
	switch {
	case f.Mode != Paired:
	case f.Arbiter == ByFencing && text == "":
		return "fencing decides who goes on; the witness is back"
	case f.Arbiter == ByFencing:
		text += ": fencing decides who goes on"
	case f.Arbiter == ByNobody && text == "":
		return "the witness is being admitted"
	case f.Arbiter == ByNobody:
		text += ", and fencing does not decide"
	}
	return text
}

// next is one safe step: the first reason's.
func next(f Facts) string {
	switch {
	case f.Mode == Solo && !f.Peer && f.Forced != "":
		return "keep node " + other(f.Self) + " off until it is replaced or may join"
	case f.Mode == Solo && !f.Peer && f.PeerLeft:
		return "let it return when the work is done: duet node return " + other(f.Self) + ", on node " + other(f.Self)
	case f.Mode == Solo && !f.Peer:
		return "look at node " + other(f.Self) + ": its power and console; it joins by itself"
	case f.Mode != Paired:
		return "wait until node " + other(member(f)) + " is up to date"
	case f.Arbiter != ByWitness && (f.FenceA == Fence{} || f.FenceB == Fence{}):
		return "repair fencing: duet fence status"
	case f.Arbiter != ByWitness && (!f.FenceA.Outlets || !f.FenceB.Outlets):
		return "restore the witness or the outlets: a node that takes its BMC with it would stop the other one"
	case !f.Witness.Configured && f.Arbiter == ByNobody:
		return "plan a witness: without it a lost node stops the other one"
	case !f.Witness.Configured:
		return "plan a witness: duet witness add"
	case !f.Witness.Reached:
		return "restore the witness or the way to it"
	case f.Arbiter == ByWitness && !f.Witness.PeerReached:
		return "restore the way from node " + other(f.Self) + " to the witness: duet witness status, there"
	case f.Arbiter != ByWitness:
		return "wait: the witness is admitted when it has been reached for some minutes"
	case !f.Witness.Confirmed:
		return "wait: the membership is being confirmed by the witness"
	case onlyOn(f.Volumes, "a") != "" || onlyOn(f.Volumes, "b") != "":
		return "look at the volumes: duet volume list"
	case f.Database.only() != "":
		return "look at the database: duet db status"
	case !f.Complete:
		return "let setup finish: duet setup show"
	case f.FenceA == Fence{} || f.FenceB == Fence{}:
		return "repair fencing: duet fence status"
	}
	return ""
}

func list(words []string, between string) string {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += between
		}
		text += w
	}
	return text
}
