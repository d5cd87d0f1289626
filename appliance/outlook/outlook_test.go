package outlook

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

func healthy() Facts {
	both := Fence{BMC: true, Outlets: true}
	return Facts{
		Site: "demo", Founded: true, Complete: true, Self: "a", Mode: Paired, Peer: true, CopyParts: -1,
		Arbiter: ByWitness, PairOwner: "a",
		Witness: Witness{true, true, true, true}, FenceA: both, FenceB: both,
		Volumes: []Volume{{"disk0", true, true}}, VMs: []VM{{"counter", true, true}},
	}
}

var modes = map[string]Mode{
	"starting": Starting, "joining": Joining, "resolving": Resolving, "frozen": Frozen, "prepared": Prepared, "paired": Paired, "solo": Solo,
}

// TestSentences: one line of changes to a healthy pair, the whole view below it.
func TestSentences(t *testing.T) {
	datadriven.RunTest(t, "testdata/sentences.txt", func(t *testing.T, d *datadriven.TestData) string {
		f := healthy()
		for _, arg := range d.CmdArgs {
			value := ""
			if len(arg.Vals) > 0 {
				value = arg.Vals[0]
			}
			switch arg.Key {
			case "self":
				f.Self = value
			case "mode":
				f.Mode = modes[value]
			case "peer-gone":
				f.Peer = false
			case "off":
				f.PeerOff = true
			case "since":
				f.Since = value
			case "waits":
				f.WaitsFor = strings.ReplaceAll(value, "-", " ")
			case "fresh":
				f.Founded = false
			case "setup-open":
				f.Complete = false
			case "no-witness":
				f.Witness = Witness{}
			case "by":
				f.Arbiter = map[string]Arbiter{"nobody": ByNobody, "fencing": ByFencing}[value]
			case "pair-owner":
				f.PairOwner = value
			case "left":
				f.Left = true
			case "peer-left":
				f.PeerLeft = true
			case "forced":
				f.Forced = strings.ReplaceAll(value, "-", " ")
			case "witness-silent":
				f.Witness.Reached, f.Witness.PeerReached = false, false
			case "here-only":
				f.Witness.PeerReached = false
			case "there-only":
				f.Witness.Reached = false
			case "unconfirmed":
				f.Witness.Confirmed = false
			case "no-bmc":
				f.FenceA.BMC, f.FenceB.BMC = false, false
			case "no-outlets":
				f.FenceA.Outlets, f.FenceB.Outlets = false, false
			case "out-of-sync-on-b":
				f.Volumes[0].InSyncB = false
			case "database":
				f.Database = Database{There: true, Recorded: value != "none", OnA: strings.Contains(value, "a"), OnB: strings.Contains(value, "b"), Serves: true}
			case "database-down":
				f.Database.Serves = false
			case "vm-down":
				f.VMs[0].Running = false
			case "copied":
				_, err := fmt.Sscan(value, &f.CopyParts)
				if err != nil {
					t.Fatal(err)
				}
			default:
				d.Fatalf(t, "unknown change %s", arg.Key)
			}
		}
		v := Judge(f)
		var out strings.Builder
		fmt.Fprintln(&out, v.Sentence)
		for _, l := range v.Losses {
			fmt.Fprintf(&out, "  %-8s %-5v %s\n", l.Of, l.Survived, l.Consequence)
		}
		fmt.Fprintf(&out, "next: %s\n", v.Next)
		return out.String()
	})
}

// Every combination of facts: the word follows from the losses, never better, and nothing panics.
func TestHonesty(t *testing.T) {
	for bits := range 1 << 13 {
		on := func(i int) bool { return bits>>i&1 == 1 }
		for _, mode := range modes {
			f := healthy()
			if f.Arbiter = Arbiter(bits >> 10 & 3); f.Arbiter > ByFencing {
				continue
			}
			f.Mode, f.Peer = mode, on(0)
			f.Witness = Witness{on(1), on(2), on(3), on(12)}
			f.Volumes = []Volume{{"v", on(4), on(5)}}
			f.FenceA, f.FenceB = Fence{on(6), on(7)}, Fence{on(8), on(9)}
			v := Judge(f)
			survivedAll := len(v.Losses) == 4 || len(v.Losses) == 3 && f.Arbiter == ByFencing && !on(2)
			for _, l := range v.Losses {
				survivedAll = survivedAll && l.Survived
			}
			arbiter := f.Arbiter == ByWitness && on(1) && on(2) && on(3) && on(12) || f.Arbiter == ByFencing && (on(7) && on(9))
			if v.Word == Safe && (!survivedAll || mode != Paired || !on(0) || !arbiter || !on(4) || !on(5)) {
				t.Fatalf("%+v is called safe", f)
			}
			for _, l := range v.Losses {
				if l.Survived && strings.HasPrefix(l.Of, "node") && mode == Paired && f.Arbiter != ByFencing &&
					(f.Arbiter == ByNobody || !on(1) || !on(3) || !on(2) && l.Of == "node b" || !on(12) && l.Of == "node a") {
					t.Fatalf("%+v: %s is called survived without a vote", f, l.Of)
				}
			}
			if v.Word != Safe && v.Next == "" {
				t.Fatalf("%+v: %s without a next step", f, v.Word)
			}
			if !strings.HasPrefix(v.Sentence, "demo: "+v.Word+".") {
				t.Fatalf("%q does not begin with its word", v.Sentence)
			}
		}
	}
}

// A healthy pair with a database is safe only while both nodes hold every commit, whoever answers; a database that nobody has
// written to yet loses nothing.
func TestHonestyOfTheDatabase(t *testing.T) {
	for _, self := range []string{"a", "b"} {
		for bits := range 1 << 5 {
			on := func(i int) bool { return bits>>i&1 == 1 }
			f := healthy()
			f.Self, f.Database = self, Database{on(0), on(1), on(2), on(3), on(4)}
			v := Judge(f)
			if want := !on(0) || !on(1) || on(2) && on(3); (v.Word == Safe) != want {
				t.Errorf("%+v is called %s", f.Database, v.Word)
			}
			for _, l := range v.Losses {
				if l.Survived && on(0) && on(1) && (l.Of == "node a" && !on(3) || l.Of == "node b" && on(3) && !on(2)) {
					t.Errorf("%+v: %s is called survived", f.Database, l.Of)
				}
			}
		}
	}
}
