package flight

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"duet/appliance/membership"
)

// The closed list: what can be in a recording. A test compares it with the source of package membership, so that a new
// type of the core cannot be forgotten. Numbers on disk are places in the list sorted by name; the fingerprint covers it.
var (
	events = registryOf(
		membership.Boot{}, membership.Resume{}, membership.Connected{}, membership.PeerLost{}, membership.Received{},
		membership.Timer{}, membership.Beat{}, membership.WitnessReply{}, membership.FenceResult{}, membership.CopyDone{},
		membership.CopyFailed{}, membership.Want{}, membership.Found{}, membership.PeerPowered{}, membership.Leave{},
		membership.Move{}, membership.Drained{}, membership.SetArbiter{}, membership.PeerOff{}, membership.ForceSolo{},
		membership.ChangeDoc{}, membership.LegFailed{}, membership.LegSynced{},
	)
	messages = registryOf(
		membership.Hello{}, membership.Join{}, membership.Prepare{}, membership.PreparedMsg{}, membership.Commit{},
		membership.BeatMsg{}, membership.BeatAck{}, membership.Yield{}, membership.Give{}, membership.Taken{}, membership.WDrop{},
		membership.WDropped{}, membership.WSet{}, membership.DocPrepare{}, membership.DocPrepared{}, membership.DocCommit{},
		membership.LegBad{}, membership.LegOut{}, membership.LegOutOK{}, membership.LegPrepare{}, membership.LegPrepared{},
		membership.LegCommit{},
	)
	effects = registryOf(
		membership.Persist{}, membership.Stop{}, membership.Grant{}, membership.Revoke{}, membership.Send{},
		membership.CloseSession{}, membership.AskWitness{}, membership.PushWitness{}, membership.Start{}, membership.Fence{},
		membership.CancelFence{}, membership.PowerOnPeer{}, membership.Copy{}, membership.Arm{}, membership.Report{},
		membership.CreateRegister{}, membership.Drain{},
	)
)

// The interfaces of the core, and the list of each.
var registries = map[reflect.Type]*registry{
	reflect.TypeFor[membership.Event]():   events,
	reflect.TypeFor[membership.Message](): messages,
	reflect.TypeFor[membership.Effect]():  effects,
}

// registry is one closed list.
type registry struct {
	types  []reflect.Type // sorted by name
	number map[reflect.Type]int
}

func registryOf(values ...any) *registry {
	r := &registry{number: map[reflect.Type]int{}}
	for _, v := range values {
		r.types = append(r.types, reflect.TypeOf(v))
	}
	slices.SortFunc(r.types, func(a, b reflect.Type) int { return cmp.Compare(a.Name(), b.Name()) })
	for i, t := range r.types {
		r.number[t] = i
	}
	return r
}

// formatVersion is that of the files; another one is refused.
const formatVersion = 1

// Schema names the types of a build: two builds with equal schemas encode every value alike.
type Schema [sha256.Size]byte

// String is what people compare.
func (s Schema) String() string { return hex.EncodeToString(s[:8]) }

// ThisSchema is that of this build.
var ThisSchema = fingerprint()

func fingerprint() Schema {
	d := describer{seen: map[reflect.Type]bool{}}
	fmt.Fprintf(&d.out, "flight %d, digests of %d and %d\n", formatVersion, len(Digest{}), beatDigest)
	d.describe(reflect.TypeFor[membership.State]())
	for _, r := range []*registry{events, messages, effects} {
		for _, t := range r.types {
			fmt.Fprintf(&d.out, "- %s\n", t.Name())
			d.describe(t)
		}
	}
	return sha256.Sum256([]byte(d.out.String()))
}

// describer writes every type once: name, kind, fields, and for small numbers with words the words, because a value that
// means something else is another schema too.
type describer struct {
	out  strings.Builder
	seen map[reflect.Type]bool
}

func (d *describer) describe(t reflect.Type) {
	if d.seen[t] {
		return
	}
	d.seen[t] = true
	fmt.Fprintf(&d.out, "%s %s", t.Name(), t.Kind())
	switch t.Kind() {
	case reflect.Struct:
		for f := range t.Fields() {
			fmt.Fprintf(&d.out, " %s:%s", f.Name, f.Type)
		}
		d.out.WriteByte('\n')
		for f := range t.Fields() {
			d.describe(f.Type)
		}
	case reflect.Array:
		fmt.Fprintf(&d.out, " %d×%s\n", t.Len(), t.Elem())
		d.describe(t.Elem())
	case reflect.Uint8:
		d.out.WriteString(words(t))
		d.out.WriteByte('\n')
	default:
		d.out.WriteByte('\n')
	}
}

// words are the texts of all values of a small type that has some.
func words(t reflect.Type) string {
	if !t.Implements(reflect.TypeFor[fmt.Stringer]()) {
		return ""
	}
	var all strings.Builder
	for i := range 256 {
		v := reflect.New(t).Elem()
		v.SetUint(uint64(i))                    //nolint:gosec // below 256
		fmt.Fprintf(&all, " %v", v.Interface()) // fmt survives a String that panics
	}
	return all.String()
}
