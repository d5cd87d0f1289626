package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Refused is a line of the site's settings that is not taken, with its name, its line and the reason.
type Refused struct {
	Line   int
	Name   string
	Reason string
}

func (r Refused) Error() string { return fmt.Sprintf("line %d: %s: %s", r.Line, r.Name, r.Reason) }

// bound says which values of a setting are the site's to choose. Values are the units of the table, whole numbers.
type bound struct {
	kind        boundKind
	least, most int64
	words       []string
}

type boundKind uint8

const (
	isBool   boundKind = iota
	isNumber           // without a unit
	isBytes            // bytes, with kB, MB, GB
	isTime             // milliseconds, with ms, s, min, h
	isFloat            // least and most in hundredths
	isWord
	isText // printable, short
)

const (
	kib = int64(1) << 10
	mib = kib << 10
	gib = mib << 10
)

var onOff = bound{kind: isBool}

// allowed are the settings of the owner of the site (design section 8); everything else is duet's or refused. Ranges keep a
// typing error from keeping the server down: it has to start without a person.
var allowed = map[string]bound{
	"synchronous_commit":                  {kind: isWord, words: []string{"on", "remote_apply"}},
	"shared_buffers":                      {kind: isBytes, least: mib, most: 512 * gib},
	"work_mem":                            {kind: isBytes, least: 64 * kib, most: 64 * gib},
	"maintenance_work_mem":                {kind: isBytes, least: mib, most: 64 * gib},
	"effective_cache_size":                {kind: isBytes, least: mib, most: 1024 * gib},
	"max_connections":                     {kind: isNumber, least: 10, most: 2000},
	"max_wal_size":                        {kind: isBytes, least: 64 * mib, most: 0}, // a quarter of pgwal, given at validation
	"checkpoint_timeout":                  {kind: isTime, least: 30_000, most: 15 * 60_000},
	"statement_timeout":                   {kind: isTime, least: 0, most: 24 * 3600_000},
	"idle_in_transaction_session_timeout": {kind: isTime, least: 0, most: 24 * 3600_000},
	"log_min_duration_statement":          {kind: isTime, least: -1, most: 24 * 3600_000},
	"timezone":                            {kind: isText},
	"autovacuum":                          onOff,
	"autovacuum_max_workers":              {kind: isNumber, least: 1, most: 20},
	"autovacuum_naptime":                  {kind: isTime, least: 1000, most: 24 * 3600_000},
	"autovacuum_vacuum_threshold":         {kind: isNumber, least: 0, most: 1 << 31},
	"autovacuum_analyze_threshold":        {kind: isNumber, least: 0, most: 1 << 31},
	"autovacuum_vacuum_scale_factor":      {kind: isFloat, least: 0, most: 10000},
	"autovacuum_analyze_scale_factor":     {kind: isFloat, least: 0, most: 10000},
	"autovacuum_vacuum_cost_limit":        {kind: isNumber, least: -1, most: 10000},
	"random_page_cost":                    {kind: isFloat, least: 0, most: 100000},
	"seq_page_cost":                       {kind: isFloat, least: 0, most: 100000},
	"default_statistics_target":           {kind: isNumber, least: 1, most: 10000},
	"effective_io_concurrency":            {kind: isNumber, least: 0, most: 1000},
	"enable_bitmapscan":                   onOff,
	"enable_hashagg":                      onOff,
	"enable_hashjoin":                     onOff,
	"enable_indexscan":                    onOff,
	"enable_mergejoin":                    onOff,
	"enable_nestloop":                     onOff,
	"enable_seqscan":                      onOff,
	"jit":                                 onOff,
}

// reasons why some names are refused, for who asks for them; all others are refused as not in the list.
var reasons = map[string]string{
	"archive_command":           "there is no archive: a rejoin never depends on one",
	"restore_command":           "there is no archive: a rejoin never depends on one",
	"archive_mode":              "there is no archive: a rejoin never depends on one",
	"fsync":                     "without it a power cut loses acknowledged rows",
	"full_page_writes":          "without it a power cut tears pages",
	"synchronous_standby_names": "duet decides who is waited for",
	"primary_conninfo":          "duet decides who is followed",
	"restart_after_crash":       "duet restarts the server, behind a closed gate",
	"wal_level":                 "replication depends on it",
	"listen_addresses":          "duet decides where clients get in",
	"port":                      "duet decides where clients get in",
	"shared_preload_libraries":  "only libraries of the image are loaded",
	"session_preload_libraries": "only libraries of the image are loaded",
	"local_preload_libraries":   "only libraries of the image are loaded",
	"include":                   "one file holds all settings",
	"include_if_exists":         "one file holds all settings",
	"include_dir":               "one file holds all settings",
}

const (
	// maxSettings is the longest text of settings: some 80 names exist.
	maxSettings = 64 << 10
	maxText     = 64
)

// Settings checks the site's own settings in the form of postgresql.conf (PostgreSQL manual 20.1.2) and gives them back in
// one form. Every line that is not taken is in the list; then nothing is taken.
func Settings(text string, walVolumeBytes int64) (string, []Refused) {
	if len(text) > maxSettings {
		return "", []Refused{{0, "settings", fmt.Sprintf("more than %d bytes", maxSettings)}}
	}
	var refused []Refused
	values := map[string]string{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		name, value, err := settingLine(line)
		if name == "" && err == "" {
			continue
		}
		if err == "" {
			value, err = settingValue(name, value, walVolumeBytes)
		}
		if err != "" {
			refused = append(refused, Refused{number, name, err})
			continue
		}
		values[name] = value // the last one counts, as the server does it
	}
	if refused != nil {
		return "", refused
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	out := ""
	for _, name := range names {
		out += name + " = " + quote(values[name]) + "\n"
	}
	return out, nil
}

// settingLine takes name and value of one line; an empty name without an error is a comment or an empty line.
func settingLine(line string) (name, value, err string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", ""
	}
	n := strings.IndexFunc(line, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.'
	})
	if n < 0 {
		return strings.ToLower(line[:min(len(line), maxText)]), "", "has no value"
	}
	if n == 0 {
		return line[:min(len(line), maxText)], "", "is not of the form name = value"
	}
	name = strings.ToLower(line[:n])
	rest := strings.TrimSpace(line[n:])
	rest = strings.TrimSpace(strings.TrimPrefix(rest, "="))
	if rest == "" || rest[0] == '#' {
		return name, "", "has no value"
	}
	if rest[0] != '\'' {
		value, _, _ = strings.Cut(rest, "#")
		value = strings.TrimSpace(value)
		if strings.ContainsAny(value, " \t'\\") {
			return name, "", "a value with spaces or quotes is written in single quotes"
		}
		return name, value, ""
	}
	var out strings.Builder
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\':
			return name, "", "a backslash has no place here"
		case rest[i] != '\'':
			out.WriteByte(rest[i])
		case i+1 < len(rest) && rest[i+1] == '\'':
			out.WriteByte('\'')
			i++
		default:
			if tail := strings.TrimSpace(rest[i+1:]); tail != "" && tail[0] != '#' {
				return name, "", "something follows the value"
			}
			return name, out.String(), ""
		}
	}
	return name, "", "the quote is not closed"
}

// settingValue checks a value against its bound and gives it in one form; err is the reason.
func settingValue(name, value string, walVolumeBytes int64) (string, string) {
	b, known := allowed[name]
	if !known {
		if why := reasons[name]; why != "" {
			return "", why
		}
		return "", "is not a setting of the site"
	}
	if name == "max_wal_size" {
		b.most = walVolumeBytes / 4
	}
	switch b.kind {
	case isBool:
		switch strings.ToLower(value) {
		case "on", "true", "yes", "1":
			return "on", ""
		case "off", "false", "no", "0":
			return "off", ""
		}
		return "", "is on or off"
	case isWord:
		if slices.Contains(b.words, value) {
			return value, ""
		}
		return "", "is one of " + strings.Join(b.words, ", ")
	case isText:
		if len(value) > maxText || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "", "is a short word"
		}
		return value, ""
	case isFloat:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || f != f || f*100 < float64(b.least) || f*100 > float64(b.most) {
			return "", fmt.Sprintf("is a number from %g to %g", float64(b.least)/100, float64(b.most)/100)
		}
		return strconv.FormatFloat(f, 'f', -1, 64), ""
	case isBytes:
		return whole(value, b, []unit{{"kB", kib}, {"MB", mib}, {"GB", gib}}, kib, "kB")
	case isTime:
		return whole(value, b, []unit{{"ms", 1}, {"min", 60_000}, {"s", 1000}, {"h", 3600_000}}, 1, "ms")
	case isNumber:
		return whole(value, b, nil, 1, "")
	}
	return "", "is not a setting of the site"
}

type unit struct {
	name string
	size int64
}

// whole reads a whole number with an optional unit, and writes it in the smallest one. A number of bytes or of time
// without a unit is refused: the server would count it in a unit that differs from name to name.
func whole(value string, b bound, units []unit, smallest int64, as string) (string, string) {
	size, named := int64(1), units == nil
	for _, u := range units {
		if rest, ok := strings.CutSuffix(value, u.name); ok {
			value, size, named = strings.TrimSpace(rest), u.size, true
			break
		}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err == nil && n > 0 && !named:
		return "", "needs a unit"
	case err != nil || n > (1<<62)/size || n < -1 || n*size < b.least || n*size > b.most:
		return "", fmt.Sprintf("is from %d%s to %d%s", b.least/smallest, as, b.most/smallest, as)
	case n < 0:
		return "-1", ""
	}
	return strconv.FormatInt(n*size/smallest, 10) + as, ""
}

func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }
