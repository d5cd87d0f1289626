package enrolment

import (
	"crypto/ed25519"
	"os"
	"sync"
	"time"

	"duet/witness/register"
)

// Directory finds the site of a key. It reads the folder again whenever it has changed, so it stays cheap with
// thousands of sites and with strangers that knock all day.
type Directory struct {
	dir    string
	report func(error) // hears of files that cannot be used, once per reading

	mu      sync.Mutex
	members map[[ed25519.PublicKeySize]byte]member
	sites   int
	read    time.Time     // when the folder was read last
	pace    time.Duration // to the next reading, of many files
	changed time.Time     // modification time of the folder at the last reading
	settled bool          // the last reading was long enough after that time to have seen everything of that tick
}

type member struct {
	site Site
	node register.Set // {a} or {b}
}

// Open makes a Directory over the folder dir.
func Open(dir string, report func(error)) *Directory { return &Directory{dir: dir, report: report} }

// mtimeTick is longer than the tick of any file system's time stamps: a change within it after a reading may leave
// the folder's time as it was, so such a reading is not trusted for long.
const mtimeTick = 2 * time.Second

// A folder of manySites that changes is not read for every request: one part of the time in readShare goes into reading.
// A change is seen at once below that number, and within some two seconds among ten thousand.
const (
	manySites = 500
	readShare = 10
)

// Count says how many sites are enrolled.
func (d *Directory) Count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	return d.sites
}

// Find says whose key this is: the site, and {a} or {b}.
func (d *Directory) Find(key ed25519.PublicKey) (Site, register.Set, bool) {
	if len(key) != ed25519.PublicKeySize {
		return Site{}, register.Nobody, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	m, ok := d.members[[ed25519.PublicKeySize]byte(key)]
	return m.site, m.node, ok && m.node != register.Nobody
}

func (d *Directory) refresh() {
	info, err := os.Stat(d.dir)
	if err != nil {
		d.report(err)
		// No list, no sites: an unreadable folder enrols nobody. Until it can be read again, and not until the pace allows it.
		d.members, d.sites, d.settled, d.read = nil, 0, false, time.Time{}
		return
	}
	if (d.settled && info.ModTime().Equal(d.changed)) || time.Since(d.read) < d.pace {
		return
	}
	changed := !info.ModTime().Equal(d.changed)
	d.changed = info.ModTime()
	// Only compares two times of the file system's own clock family; a wrong wall clock costs readings, not truth.
	age := time.Since(info.ModTime())
	d.settled = age > mtimeTick || age < -mtimeTick
	began := time.Now()
	sites, faults := read(d.dir)
	d.read = time.Now()
	d.sites = len(sites)
	if d.pace = 0; d.sites >= manySites {
		d.pace = readShare * d.read.Sub(began)
	}
	if changed {
		for _, fault := range faults {
			d.report(fault)
		}
	}
	d.members = make(map[[ed25519.PublicKeySize]byte]member, 2*len(sites))
	for _, s := range sites {
		d.add(s.KeyA, member{s, register.OnlyA})
		d.add(s.KeyB, member{s, register.OnlyB})
	}
}

// add enters a key; one that is there already becomes nobody's.
func (d *Directory) add(key ed25519.PublicKey, m member) {
	k := [ed25519.PublicKeySize]byte(key)
	if _, twice := d.members[k]; twice {
		m = member{}
	}
	d.members[k] = m
}
