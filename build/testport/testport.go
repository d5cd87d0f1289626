// Package testport gives tests ports that stay theirs.
//
// A test that asks the kernel for any free port, closes it and has a program listen there loses it now and then: the
// kernel gives the same port to somebody's connection. The same befalls a server that a test stops and starts again.
// Ports from here lie below those that Linux gives away by itself (net.ipv4.ip_local_port_range, from 32768), and no
// other process that asks here gets one before its test has ended, however long it is not listened on.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

const (
	first = 20000
	last  = 32767
	tries = 1000
)

// New returns a port that nobody listens on, TCP or UDP, at any address. It is the test's until the test ends.
func New(t testing.TB) int {
	t.Helper()
	for range tries {
		port := first + rand.IntN(last-first+1)
		if claim(t, port) {
			return port
		}
	}
	t.Fatalf("testport: no free port in %d tries between %d and %d", tries, first, last)
	return 0
}

// Address is New at an address of IPv4, as host:port.
func Address(t testing.TB, host string) string {
	t.Helper()
	return fmt.Sprintf("%s:%d", host, New(t))
}

// claim keeps a socket of the network namespace whose name says the port; the kernel frees it with the process.
func claim(t testing.TB, port int) bool {
	held, err := net.Listen("unix", fmt.Sprintf("@duet-test-port-%d", port))
	if err != nil {
		return false
	}
	if !free(port) {
		held.Close()
		return false
	}
	t.Cleanup(func() { held.Close() })
	return true
}

func free(port int) bool {
	tcp, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return false
	}
	udp.Close()
	return true
}
