package node

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"duet/appliance/api"
	"duet/appliance/membership"
)

// What a person must see before overriding, and the word that confirms it (protocol.md section 9.5). The word follows
// from what was shown, ages apart: it dies with the epochs, with a change of the mode, the members, the arbiter or this
// node's copy, with other evidence of the other node's power, and with this boot, so it cannot be kept for later or be of
// another node.

// override is one of the two forms of R26.
type override struct {
	name  string // of the route and the command
	what  string // in refusals
	note  string
	does  string
	event func(st membership.State, text string) membership.Event
}

var peerOffOverride = override{
	name: api.PeerOffOverride, what: "taking over by a person's word", note: "peer-off-by-person",
	does:  "counts as evidence that node %[2]s is off, once, for this epoch: node %[1]s takes over what node %[2]s ran",
	event: func(st membership.State, _ string) membership.Event { return membership.PeerOff{Epoch: st.Rec.Ep} },
}

var forceSoloOverride = override{
	name: api.ForceSoloOverride, what: "going on alone by force", note: "forced",
	does: "makes node %[1]s the only member against its record, with a mark that stays until node %[2]s is replaced or has joined",
	event: func(_ membership.State, text string) membership.Event {
		return membership.ForceSolo{PeerOff: true, Text: membership.MakeText(text)}
	},
}

// wordAlphabet is Crockford's: no letter that is read as another.
var wordAlphabet = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// word confirms an override as things are.
func (n *Node) word(o override, st membership.State) string {
	r := st.Rec
	seen := ""
	if e := n.history.lastFence(); e != nil {
		seen = fmt.Sprint(e.Epoch, e.Verdict, e.By)
	}
	sum := sha256.Sum256(fmt.Appendln(nil, o.name, r.Site, n.self, r.Ep, r.Prep.Ep, r.High, r.Members, r.Arb, r.Consistent, r.Forced.Counter, st.Mode, seen, n.bootID))
	text := wordAlphabet.EncodeToString(sum[:5])
	return text[:4] + "-" + text[4:]
}

// sameWord forgives what people type: case, the line between, and the letters that are read as digits.
func sameWord(given, want string) bool {
	plain := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1")
	return plain.Replace(strings.ToUpper(given)) == plain.Replace(want)
}

// Overrides is what is known, and what each override would need and may lose.
func (n *Node) Overrides(ctx context.Context) (api.Overrides, error) {
	f := n.observe(ctx)
	st := f.view.State
	r := st.Rec
	out := api.Overrides{
		Node: n.self.String(), Peer: n.peer().String(), Mode: modeWord(st), WaitsFor: n.waitsFor(f), Epoch: uint64(r.Ep),
		Prepared: uint64(r.Prep.Ep), PeerEpoch: uint64(r.High), Members: members(r.Members), Arbiter: arbiterWord(r.Arb.Kind),
		Holds: r.Consistent, HeardAge: -1, Evidence: n.history.lastFence(),
	}
	for _, p := range f.paths {
		if age := p.AckAge.Milliseconds(); p.AckAge >= 0 && (out.HeardAge < 0 || age < out.HeardAge) {
			out.HeardAge = age
		}
	}
	if r.Forced.Counter != 0 {
		out.Forced = r.Forced.Text.String()
	}
	out.PeerOff, out.ForceSolo = n.overrideNow(peerOffOverride, st), n.overrideNow(forceSoloOverride, st)
	return out, nil
}

func (n *Node) overrideNow(o override, st membership.State) api.Override {
	out := api.Override{Does: fmt.Sprintf(o.does, n.self, n.peer()), MayLose: n.mayLose(o, st)}
	if why := st.Allows(o.event(st, "")); why != membership.Granted {
		out.Refused = refusals[why].reason
		return out
	}
	out.Possible, out.Word = true, n.word(o, st)
	return out
}

// mayLose is what goes wrong if the word is not true, worst first.
func (n *Node) mayLose(o override, st membership.State) []string {
	peer := n.peer().String()
	var out []string
	solo := st.Mode == membership.Solo
	switch {
	case solo:
		out = append(out, "if node "+peer+" runs, what it ran runs twice until its lease ends; its writes are refused and are lost")
	case o.name == api.PeerOffOverride:
		out = append(out, "if node "+peer+" runs, or comes back by itself, both nodes write: one side's writes are lost")
	default:
		out = append(out, "everything that node "+peer+" wrote alone after epoch "+fmt.Sprint(max(st.Rec.Ep, st.Rec.Prep.Ep))+", if it did: it is not on this node")
		out = append(out, "if node "+peer+" comes back while this node cannot be heard, both write: keep it off")
	}
	if !solo && st.Rec.Arb.Kind == membership.ArbWitness {
		out = append(out, "the witness may have let node "+peer+" go on: it knows, ask it or bring it back first")
	}
	if !st.Rec.Members.Has(n.self) {
		out = append(out, "this node's record says that node "+peer+" went on alone: writes that are only there are certain")
	}
	return out
}
