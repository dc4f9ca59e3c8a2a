package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func addressesOfTUN(ns *namespace) (found []string) {
	ns.do(func() {
		link, err := netlink.LinkByName(tunName)
		ns.must(err)
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		ns.must(err)
		for _, addr := range addrs {
			if !addr.IP.IsLinkLocalUnicast() {
				found = append(found, addr.IPNet.String())
			}
		}
	})
	slices.Sort(found)
	return found
}

// The life of an interface over a crash: the second process finds addresses and routes in place.
func TestTUNOutlivesItsProcess(t *testing.T) {
	ns := newNamespace(t)
	want := []string{"100.64.0.5/32", "fd7a:115c:a1e0::5/128"}
	ns.do(func() {
		device, err := openTUN()
		ns.must(err)
		ns.must(configureTUN([]netip.Addr{netip.MustParseAddr("100.64.0.5"), netip.MustParseAddr("fd7a:115c:a1e0::5")}))
		ns.must(device.Close())
	})
	if got := addressesOfTUN(ns); !slices.Equal(got, want) {
		t.Errorf("after the end of a process the addresses are %v, not %v", got, want)
	}
	if got := ns.dial("", "100.64.0.9:80"); got != "dropped" {
		t.Errorf("meanwhile a packet to the tailnet is %s", got)
	}
	ns.do(func() {
		device, err := openTUN()
		ns.must(err)
		defer device.Close()
		ns.must(configureTUN([]netip.Addr{netip.MustParseAddr("100.64.0.6")}))
	})
	if got := addressesOfTUN(ns); !slices.Equal(got, []string{"100.64.0.6/32"}) {
		t.Errorf("after a change of address there are %v", got)
	}
	ns.do(func() {
		ns.must(removeTUN())
		ns.must(removeTUN())
		if _, err := netlink.LinkByName(tunName); err == nil {
			t.Error("the interface is still there")
		}
	})
}

func TestTUNWithoutIPv6(t *testing.T) {
	ns := newNamespace(t)
	ns.set("ipv6/conf/all/disable_ipv6", "1")
	ns.set("ipv6/conf/default/disable_ipv6", "1")
	ns.do(func() {
		device, err := openTUN()
		ns.must(err)
		defer device.Close()
		ns.must(configureTUN([]netip.Addr{netip.MustParseAddr("100.64.0.5"), netip.MustParseAddr("fd7a:115c:a1e0::5")}))
	})
	if got := addressesOfTUN(ns); !slices.Equal(got, []string{"100.64.0.5/32"}) {
		t.Errorf("the addresses are %v", got)
	}
}

func TestMarkedPacketsStayOutOfTheTUN(t *testing.T) {
	ns := newNamespace(t)
	ns.do(func() {
		device, err := openTUN()
		ns.must(err)
		defer device.Close()
		ns.must(configureTUN([]netip.Addr{netip.MustParseAddr("100.64.0.5")}))
	})
	if out := ns.run("ip", "route", "get", "100.64.0.9"); !contains(out, tunName) {
		t.Errorf("a packet to the tailnet takes %s", out)
	}
	joinBy(ns, "eth0", []string{"10.9.0.2/24"}, newNamespace(t), "bridge0", nil)
	ns.route("default", "10.9.0.1")
	if out := ns.run("ip", "route", "get", "100.64.0.9", "mark", "0x80000"); !contains(out, "eth0") {
		t.Errorf("the sidecar's own packet takes %s", out)
	}
}
