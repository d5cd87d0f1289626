package main

import (
	"os"
	"slices"
	"testing"
)

// Every figure that has a target misses it alone, and at the target nothing is missed.
func TestJudge(t *testing.T) {
	at := figures{
		RSSIdleMiB: targetRSSMiB, RSSStormMiB: targetRSSMiB, RSSPeakMiB: targetRSSMiB, BitsPerSitesIdle: targetBitsPerSite,
		StormSeconds: targetStormSecond, RedialSeconds: targetStormSecond,
	}
	if at.judge(); len(at.TargetsMissed) != 0 {
		t.Errorf("at the targets: %v", at.TargetsMissed)
	}
	for _, tc := range []struct {
		raise func(*figures) *float64
		want  string
	}{
		{func(f *figures) *float64 { return &f.RSSIdleMiB }, "rss_mib"},
		{func(f *figures) *float64 { return &f.RSSStormMiB }, "rss_mib"},
		{func(f *figures) *float64 { return &f.RSSPeakMiB }, "rss_mib"},
		{func(f *figures) *float64 { return &f.BitsPerSitesIdle }, "bits_per_second_per_site"},
		{func(f *figures) *float64 { return &f.StormSeconds }, "storm_seconds"},
		{func(f *figures) *float64 { return &f.RedialSeconds }, "storm_with_new_connections_seconds"},
	} {
		f := at
		*tc.raise(&f)++
		if f.judge(); !slices.Equal(f.TargetsMissed, []string{tc.want}) {
			t.Errorf("above %s: %v", tc.want, f.TargetsMissed)
		}
	}
}

// A memory that cannot be read is an error, never a figure that meets its target.
func TestUnreadMemory(t *testing.T) {
	if got, err := mib(os.Getpid(), "VmRSS"); err != nil || got <= 0 {
		t.Errorf("this process has %v MiB, %v", got, err)
	}
	if got, err := mib(os.Getpid(), "VmNothing"); err == nil {
		t.Errorf("a field that is not there is %v MiB", got)
	}
}
