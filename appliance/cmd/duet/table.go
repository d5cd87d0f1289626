package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table prints aligned columns; a row's cells are separated by tabs.
func table(w io.Writer, header string, rows []string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, header)
	for _, r := range rows {
		fmt.Fprintln(t, r)
	}
	t.Flush() //nolint:errcheck // a terminal that is gone
}

func row(cells ...any) string {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = fmt.Sprint(c); text[i] == "" {
			text[i] = "-"
		}
	}
	return strings.Join(text, "\t")
}

// size in the largest unit that divides it, so that nothing is rounded away.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for bytes != 0 && bytes%1024 == 0 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return fmt.Sprintf("%d %s", bytes, units[i])
}

// age of an observation in milliseconds.
func age(ms int64) string {
	switch {
	case ms < 0:
		return "never"
	case ms < 10_000:
		return fmt.Sprintf("%.1f s ago", float64(ms)/1000)
	case ms < 120_000:
		return fmt.Sprintf("%d s ago", ms/1000)
	}
	return fmt.Sprintf("%d min ago", ms/60_000)
}
