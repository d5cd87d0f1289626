package postgres

import "testing"

// Orphans of a dead postmaster are nobody's server, one alone too.
func TestPostmaster(t *testing.T) {
	lead, child, orphan := process{pid: 10, parent: 1, leads: true}, process{pid: 11, parent: 10}, process{pid: 12, parent: 1}
	forked := process{pid: 13, parent: 10, leads: true} // has not changed its title yet
	for _, c := range []struct {
		all  []process
		want int
	}{
		{[]process{child, lead}, 10}, {[]process{lead}, 10}, {[]process{forked, lead, child}, 10}, {[]process{orphan}, 0}, {[]process{orphan, child}, 0}, {nil, 0},
	} {
		p, ok := postmaster(c.all)
		if ok != (c.want != 0) || p.pid != c.want {
			t.Errorf("%v: %v %v", c.all, p, ok)
		}
	}
}
