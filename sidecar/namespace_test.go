package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the test's own. Without the right to make one the test fails: a border that
// nobody tries is none.
type namespace struct {
	t      *testing.T
	handle netns.NsHandle
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	var handle netns.NsHandle
	var err error
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			handle, err = netns.Get()
		}
	})
	if err != nil {
		t.Fatalf("a network namespace cannot be made (%v); run the tests as root", err)
	}
	t.Cleanup(func() { handle.Close() })
	ns := &namespace{t, handle}
	ns.do(func() {
		lo, err := netlink.LinkByName("lo")
		ns.must(err)
		ns.must(netlink.LinkSetUp(lo))
	})
	return ns
}

// onThread runs f on a thread that is thrown away afterwards, since its namespace is.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// do runs f in the namespace. Sockets that f makes stay there.
func (n *namespace) do(f func()) {
	n.t.Helper()
	var err error
	onThread(func() {
		if err = netns.Set(n.handle); err == nil {
			f()
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *namespace) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Error(err)
		runtime.Goexit()
	}
}

// run executes a command in the namespace and returns what it printed.
func (n *namespace) run(name string, args ...string) string {
	n.t.Helper()
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// joinBy connects two namespaces with a pair of interfaces.
func joinBy(a *namespace, nameA string, addrsA []string, b *namespace, nameB string, addrsB []string) {
	a.t.Helper()
	a.do(func() {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle)}
		a.must(netlink.LinkAdd(pair))
	})
	a.configure(nameA, addrsA)
	b.configure(nameB, addrsB)
	a.carries(nameA)
	b.carries(nameB)
}

// carries waits until the kernel passes packets on: it takes note of a link's carrier up to a second late.
func (n *namespace) carries(name string) {
	n.t.Helper()
	n.do(func() {
		for range 500 {
			link, err := netlink.LinkByName(name)
			n.must(err)
			if link.Attrs().OperState == netlink.OperUp {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		n.t.Errorf("%s does not come up", name)
	})
}

func (n *namespace) configure(name string, addrs []string) {
	n.t.Helper()
	n.do(func() {
		link, err := netlink.LinkByName(name)
		n.must(err)
		for _, text := range addrs {
			prefix := netip.MustParsePrefix(text)
			n.must(netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD}))
		}
		n.must(netlink.LinkSetUp(link))
	})
}

// route sends a destination ("default" or a prefix) to a next hop.
func (n *namespace) route(destination, via string) {
	n.t.Helper()
	n.do(func() {
		route := &netlink.Route{Gw: net.ParseIP(via)}
		if destination != "default" {
			route.Dst = ipNet(netip.MustParsePrefix(destination))
		}
		n.must(netlink.RouteAdd(route))
	})
}

func (n *namespace) set(name, value string) {
	n.t.Helper()
	// /proc/sys/net shows the namespace of the thread that opens the file.
	n.do(func() { n.must(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)) })
}

// listen answers every TCP connection to the port by closing it.
func (n *namespace) listen(port string) {
	n.t.Helper()
	n.do(func() {
		listener, err := net.Listen("tcp", "0.0.0.0:"+port)
		n.must(err)
		n.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
	})
}

// dial tells how a TCP connection from an address of the namespace (or any, if "") ends: "open", "dropped" or
// "refused".
func (n *namespace) dial(from, to string) string {
	n.t.Helper()
	var err error
	n.do(func() {
		dialer := net.Dialer{Timeout: 400 * time.Millisecond}
		if from != "" {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		var conn net.Conn
		if conn, err = dialer.Dial("tcp", to); err == nil {
			conn.Close()
		}
	})
	var timeout net.Error
	switch {
	case err == nil:
		return "open"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "dropped"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "refused"
	default:
		n.t.Errorf("dialling %s: %v", to, err)
		return "failed"
	}
}

func mustAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
