package addresses

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

var (
	mine   = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}
	theirs = net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
	four   = netip.MustParseAddr("10.9.0.100")
	six    = netip.MustParseAddr("2001:db8::64")
)

// The bytes of RFC 826, RFC 5227, RFC 4861. The checksum of IPv6 is judged by a kernel in TestAnnounced.
func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"probe 4", probe(mine, four), "ffffffffffff02000000000a0806" + "0001080006040001" + "02000000000a00000000" + "0000000000000a090064"},
		{"request", announcements(mine, four)[0], "ffffffffffff02000000000a0806" + "0001080006040001" + "02000000000a0a090064" + "0000000000000a090064"},
		{"reply", announcements(mine, four)[1], "ffffffffffff02000000000a0806" + "0001080006040002" + "02000000000a0a090064" + "ffffffffffff0a090064"},
		{"probe 6", probe(mine, six)[:54], "3333ff00006402000000000a86dd" + "6000000000183aff" + "00000000000000000000000000000000" + "ff0200000000000000000001ff000064"},
		{"advertisement", announcements(mine, six)[0][:54], "33330000000102000000000a86dd" + "6000000000203aff" + "20010db8000000000000000000000064" + "ff020000000000000000000000000001"},
		{"advertised", announcements(mine, six)[0][58:], "20000000" + "20010db8000000000000000000000064" + "020102000000000a"},
	} {
		if got := hex.EncodeToString(c.frame); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// Who holds an address is read from what its holder says, and from nothing else; no frame is too short to be read.
func TestClaims(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame []byte
		want  net.HardwareAddr
	}{
		{"reply of another", announcements(theirs, four)[1], theirs},
		{"request of another", announcements(theirs, four)[0], theirs},
		{"own", announcements(mine, four)[0], nil},
		{"probe of another", probe(theirs, four), nil},
		{"other address", announcements(theirs, netip.MustParseAddr("10.9.0.101"))[1], nil},
	} {
		if got := claims(c.frame, mine, four); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if got := claims(announcements(theirs, six)[0], mine, six); !bytes.Equal(got, theirs) {
		t.Errorf("advertisement of another: %v", got)
	}
	if got := claims(probe(theirs, six), mine, six); got != nil {
		t.Errorf("solicitation of another: %v", got)
	}
	for _, whole := range [][]byte{announcements(theirs, four)[0], announcements(theirs, six)[0][:78]} {
		for n := range len(whole) {
			if got := claims(whole[:n], mine, four); got != nil {
				t.Errorf("%d bytes claim", n)
			}
			if got := claims(whole[:n], mine, six); got != nil {
				t.Errorf("%d bytes claim", n)
			}
		}
	}
}
