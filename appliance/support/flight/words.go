package flight

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"

	"duet/appliance/membership"
)

// EventWords is an event for people: "received beat-msg nonce 3f2a…", "timer arbitrate".
func EventWords(e membership.Event) string {
	if e == nil {
		return "nothing"
	}
	return phrase(reflect.ValueOf(e))
}

// EffectsWords is the list in order, without the reports: those are shown by themselves.
func EffectsWords(list []membership.Effect) string {
	var all []string
	for _, e := range list {
		if _, report := e.(membership.Report); !report {
			all = append(all, phrase(reflect.ValueOf(e)))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, "; ")
}

// Reports are the core's own words for the rules that applied.
func Reports(list []membership.Effect) []string {
	var all []string
	for _, e := range list {
		if r, ok := e.(membership.Report); ok {
			all = append(all, r.Report.String())
		}
	}
	return all
}

// Line is one moment on one line: sequence, time, input, mode before and after, reports, effects.
func (m Moment) Line() string {
	at := m.Wall.UTC().Format("2006-01-02 15:04:05.000")
	if s := m.Snapshot; s != nil {
		line := fmt.Sprintf("%8d %s  state: %v, %s (%v; boot %.8s)", m.Seq, at, s.State.Mode, recordWords(&s.State.Rec), s.Reason, s.BootID)
		if s.Lost > 0 {
			line += fmt.Sprintf("; %d entries were left out", s.Lost)
		}
		return line + m.verdict()
	}
	line := fmt.Sprintf("%8d %s  %s", m.Seq, at, EventWords(m.Input.Event))
	if m.Died {
		return line + " => Step panicked" + m.verdict()
	}
	if m.Before.Mode != m.After.Mode {
		line += fmt.Sprintf(" | %v → %v", m.Before.Mode, m.After.Mode)
	} else {
		line += fmt.Sprintf(" | %v", m.After.Mode)
	}
	if m.Before.Rec != m.After.Rec {
		line += ", " + recordWords(&m.After.Rec)
	}
	if r := Reports(m.Done); len(r) > 0 {
		line += " | " + strings.Join(r, ", ")
	}
	if words := EffectsWords(m.Done); words != "none" {
		line += " | " + words
	}
	return line + m.verdict()
}

func (m Moment) verdict() string {
	switch {
	case m.Difference != "":
		return " <== DIFFERS: " + m.Difference
	case m.Violation != "":
		return " <== VIOLATES: " + m.Violation
	}
	return ""
}

// Calm says whether nothing worth a line happened: beats and what repeats itself.
func (m Moment) Calm() bool {
	if m.Snapshot != nil {
		return m.Snapshot.Reason != AtStart && m.Snapshot.Reason != AfterLoss && m.Difference == ""
	}
	loud := m.Died || m.Difference != "" || m.Violation != "" || m.Before.Mode != m.After.Mode || m.Before.Rec != m.After.Rec
	return !loud && len(Reports(m.Done)) == 0 && (isBeat(m.Input.Event) || !m.Changed)
}

func recordWords(r *membership.Record) string {
	text := fmt.Sprintf("epoch %d %v", r.Ep, r.Members)
	if r.Prep.Ep != 0 {
		text += fmt.Sprintf(", prepared %d", r.Prep.Ep)
	}
	return fmt.Sprintf("%s, record %d", text, r.Seq)
}

// phrase is the type's name and what it says that is not zero. Tables are left to -o json and to the summary.
func phrase(v reflect.Value) string {
	words := []string{kebab(v.Type().Name())}
	for i := range v.NumField() {
		if text := fieldWords(v.Field(i)); text != "" {
			words = append(words, strings.TrimSpace(label(v.Type(), i)+" "+text))
		}
	}
	return strings.Join(words, " ")
}

// label: a field that has the name of its type's role needs no word of its own.
func label(t reflect.Type, i int) string {
	switch name := t.Field(i).Name; name {
	case "Message", "Timer", "Record", "Grant", "Report", "Tuple":
		return ""
	default:
		return kebab(name)
	}
}

func fieldWords(v reflect.Value) string {
	if v.IsZero() && v.Kind() != reflect.Uint8 {
		return ""
	}
	switch x := v.Interface().(type) {
	case membership.Record:
		return recordWords(&x)
	case membership.TimerID:
		return word(x, "arbitrate", "fence", "power-on", "prepare", "lease", "peer-wait", "repeat")
	case membership.Session, membership.Nonce:
		return fmt.Sprintf("%016x", x)[:8]
	case membership.ID:
		return hex.EncodeToString(x[:4])
	case membership.Digest:
		return hex.EncodeToString(x[:4])
	case membership.RegisterContent:
		return fmt.Sprintf("%d %v", x.Ep, x.Set)
	case membership.GrantContent:
		return grantWords(&x)
	case membership.WitnessOp:
		return word(x, "cas", "push", "create")
	case membership.WitnessResult:
		return word(x, "failed", "ok", "unknown")
	case membership.Verdict:
		return word(x, "unknown", "confirmed", "refused")
	case membership.Text: // a person's words
		return fmt.Sprintf("%q", x.String())
	case membership.ArbKind:
		return word(x, "none", "witness", "fence")
	case membership.Prepared:
		return fmt.Sprintf("epoch %d", x.Ep)
	case membership.Boottime:
		return fmt.Sprintf("%d ms", int64(x)/1e6)
	case fmt.Stringer:
		return x.String()
	}
	return plainWords(v)
}

// word of a small number, in the order of its constants; one that came later is shown as it is.
func word[T ~uint8](x T, names ...string) string {
	if int(x) < len(names) {
		return names[x]
	}
	return fmt.Sprint(uint8(x))
}

func grantWords(g *membership.GrantContent) string {
	until := fmt.Sprintf("until %d ms", int64(g.Deadline)/1e6)
	if g.Deadline == 0 {
		until = "without a deadline"
	}
	if g.Deadline == membership.Expired {
		until = "without a lease"
	}
	text := fmt.Sprintf("%v epoch %d %v %s", g.Mode, g.Epoch, g.Members, until)
	if g.Prepared != 0 {
		text += fmt.Sprintf(", prepared %d", g.Prepared)
	}
	return text
}

func plainWords(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Interface:
		return phrase(v.Elem())
	case reflect.Bool:
		return "yes"
	case reflect.Array:
		return "…"
	case reflect.Struct:
		return "(" + strings.TrimPrefix(phrase(v), kebab(v.Type().Name())+" ") + ")"
	default: // numbers
	}
	return fmt.Sprint(v.Interface())
}

// kebab is CamelCase as the reports are written: peer-lost.
func kebab(name string) string {
	var out strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z' {
			out.WriteByte('-')
		}
		if upper {
			r += 'a' - 'A'
		}
		out.WriteRune(r)
	}
	return out.String()
}

// differences names the fields in which two states differ, with both values.
func differences(mine, recorded membership.State) string {
	var all []string
	differ(&all, "", reflect.ValueOf(mine), reflect.ValueOf(recorded))
	const most = 8
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, ", ")
}

func differ(all *[]string, path string, a, b reflect.Value) {
	if a.Equal(b) {
		return
	}
	switch {
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			differ(all, strings.TrimPrefix(path+"."+a.Type().Field(i).Name, "."), a.Field(i), b.Field(i))
		}
	case a.Kind() == reflect.Array && a.Type().Elem().Kind() != reflect.Uint8:
		for i := range a.Len() {
			differ(all, fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
		}
	default:
		*all = append(*all, fmt.Sprintf("%s is %v, recorded %v", path, a, b))
	}
}
