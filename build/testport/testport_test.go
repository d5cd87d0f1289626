package testport

import (
	"fmt"
	"net"
	"testing"
)

// A port is claimed once until its test ends, and never one that somebody listens on at whatever address.
func TestClaim(t *testing.T) {
	t.Parallel()
	var port int
	t.Run("holder", func(t *testing.T) {
		port = New(t)
		if claim(t, port) {
			t.Errorf("port %d was given twice", port)
		}
	})
	t.Run("after it", func(t *testing.T) {
		if !claim(t, port) {
			t.Errorf("port %d was not given back", port)
		}
	})
	tcp, err := net.Listen("tcp4", Address(t, "127.0.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", Address(t, "127.0.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, taken := range []int{tcp.Addr().(*net.TCPAddr).Port, udp.LocalAddr().(*net.UDPAddr).Port} {
		if free(taken) {
			t.Errorf("port %d is listened on and counts as free", taken)
		}
	}
}

// The kernel gives away no port of ours by itself: what it gives lies above.
func TestOutsideTheKernelsRange(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if port := ln.Addr().(*net.TCPAddr).Port; port >= first && port <= last {
		t.Error(fmt.Errorf("the kernel gave port %d, which lies within %d to %d: net.ipv4.ip_local_port_range was changed", port, first, last))
	}
}
