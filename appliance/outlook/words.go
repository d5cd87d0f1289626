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
	switch {
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
	switch {
	case !f.Witness.Configured:
		why = append(why, "there is no witness")
	case !f.Witness.Reached:
		why = append(why, "the witness is not reached")
	case f.Mode == Paired && !f.Witness.Confirmed:
		why = append(why, "the witness has not confirmed this membership yet")
	}
	if f.Mode == Paired {
		for _, n := range []string{"a", "b"} {
			if v := onlyOn(f.Volumes, n); v != "" {
				why = append(why, "volume "+v+" is not in sync on "+other(n))
			}
		}
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

// next is one safe step: the first reason's.
func next(f Facts) string {
	switch {
	case f.Mode == Solo && !f.Peer:
		return "look at node " + other(f.Self) + ": its power and console; it joins by itself"
	case f.Mode != Paired:
		return "wait until node " + other(member(f)) + " is up to date"
	case !f.Witness.Configured:
		return "plan a witness: without it a lost node stops the other one"
	case !f.Witness.Reached:
		return "restore the witness or the way to it"
	case !f.Witness.Confirmed:
		return "wait: the membership is being confirmed by the witness"
	case onlyOn(f.Volumes, "a") != "" || onlyOn(f.Volumes, "b") != "":
		return "look at the volumes: duet volume list"
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
