package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/tailscale/wireguard-go/tun"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"tailscale.com/net/netmon"
)

const (
	tunMTU = 1280
	// Routes into the tailnet stand in a table of their own, as tailscaled has it (wgengine/router/osrouter), so that
	// the sidecar's marked sockets can be kept off them: a tunnel's packets inside the tunnel would loop.
	tunTable          = 52
	rulePriorityMain  = 5210
	rulePriorityTable = 5270
)

// openTUN opens the interface, and makes it persistent: when this process dies, addresses, routes and the connections
// on them stay, packets wait for the next process or are lost, and none takes the bridge instead.
func openTUN() (tun.Device, error) {
	var device tun.Device
	var err error
	// The process before us may still be going away, and the interface has room for one.
	for range 50 {
		if device, err = tun.CreateTUN(tunName, tunMTU); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", tunName, err)
	}
	if err := persist(device); err != nil {
		device.Close()
		return nil, fmt.Errorf("keeping %s: %w", tunName, err)
	}
	// Else its addresses count as a new network under us, upon which every socket and relay connection is made anew.
	if link, err := netlink.LinkByName(tunName); err == nil {
		netmon.SetTailscaleInterfaceProps(tunName, link.Attrs().Index)
	}
	return device, nil
}

// persist goes through SyscallConn, because File.Fd would make the file blocking.
func persist(device tun.Device) error {
	raw, err := device.File().SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }); err != nil {
		return err
	}
	return failed
}

// removeTUN takes away what an earlier process with a TUN left here. What goes to the tailnet would vanish in it.
func removeTUN() error {
	link, err := netlink.LinkByName(tunName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	} else if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// configureTUN gives the interface exactly these addresses, brings it up and leads the tailnet's traffic to it. Safe to
// repeat; to be repeated when the addresses change (a node that was deleted and joined again has others). IPv6 is done
// without where the pod has none.
func configureTUN(addrs []netip.Addr) error {
	link, err := netlink.LinkByName(tunName)
	if err != nil {
		return fmt.Errorf("finding %s: %w", tunName, err)
	}
	var failures []error
	// Up comes first: without it the kernel takes no route.
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", tunName, err)
	}
	if err := removeOtherAddresses(link, addrs); err != nil {
		failures = append(failures, err)
	}
	for _, addr := range addrs {
		err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Flags: unix.IFA_F_NODAD})
		if err != nil && !(addr.Is6() && withoutIPv6(err)) {
			failures = append(failures, fmt.Errorf("adding %v: %w", addr, err))
		}
	}
	for _, prefix := range tailnetPrefixes {
		if err := lead(link, prefix); err != nil && !(prefix.Addr().Is6() && withoutIPv6(err)) {
			failures = append(failures, fmt.Errorf("leading %v to %s: %w", prefix, tunName, err))
		}
	}
	return errors.Join(failures...)
}

// withoutIPv6 tells whether an error is how a kernel says that IPv6 is switched off (net.ipv6.conf.*.disable_ipv6=1,
// or no IPv6 at all).
func withoutIPv6(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH)
}

func removeOtherAddresses(link netlink.Link, keep []netip.Addr) error {
	present, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("reading the addresses of %s: %w", tunName, err)
	}
	wanted := map[netip.Addr]bool{}
	for _, addr := range keep {
		wanted[addr] = true
	}
	for _, one := range present {
		addr, ok := netip.AddrFromSlice(one.IP)
		if !ok || wanted[addr.Unmap()] || addr.IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &one); err != nil {
			return fmt.Errorf("removing %v: %w", addr, err)
		}
	}
	return nil
}

// lead sends what goes to the prefix into the interface, unless it is marked as the sidecar's own.
func lead(link netlink.Link, prefix netip.Prefix) error {
	family := netlink.FAMILY_V4
	if prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(prefix), Table: tunTable, Scope: netlink.SCOPE_LINK}
	if family == netlink.FAMILY_V6 {
		route.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := netlink.RouteReplace(route); err != nil {
		return err
	}
	mask := uint32(bypassMarkMask)
	own := netlink.NewRule()
	own.Family, own.Priority, own.Table, own.Mark, own.Mask = family, rulePriorityMain, unix.RT_TABLE_MAIN, bypassMark, &mask
	others := netlink.NewRule()
	others.Family, others.Priority, others.Table = family, rulePriorityTable, tunTable
	for _, rule := range []*netlink.Rule{own, others} {
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
