package main

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	borderTable = "perry"
	tunName     = "tailscale0"
	// bridgePrefix covers every interface that Docker puts into the pod. Those of a Docker inside the workspace
	// (docker0, br-…, veth…) have other names, and belong to the pod.
	bridgePrefix = "eth"
	// Tailscale marks its own sockets so (tailscale.com/net/netns); their packets never go through the tailnet.
	bypassMark     = 0x80000
	bypassMarkMask = 0xff0000
)

// tailnetPrefixes are the addresses that only the tailnet may use (Tailscale's and headscale's defaults).
var tailnetPrefixes = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fd7a:115c:a1e0::/48"),
}

// Border is what may enter a pod, as one nftables table of its own. Whoever is inside stays free to send, and a Docker
// inside keeps its own tables: a packet must pass them all, so ours only ever takes away.
//
//   - A tailnet source address is believed on the TUN alone: sshd trusts such addresses.
//   - From the bridge come answers, ICMP, WireGuard, published ssh, and, from the bridge's gateway alone (the agent
//     machine), the worker, which the tailnet does not reach either. What a nested container's published port would
//     take is held back too (forward).
//   - A packet to a tailnet address does not leave by the bridge, where the host might send it on under its own name.
type Border struct {
	Gateways      []netip.Addr
	WireGuardPort uint16
	WorkerPort    uint16
	SSHPort       uint16
}

// Raise puts the border up, replacing an earlier one in the same instant. It outlives this process.
func (b Border) Raise() error {
	conn, err := nftables.New()
	if err != nil {
		return borderError(err)
	}
	// Adding before deleting makes the deletion succeed on the first time too; the kernel takes all of it at once.
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: borderTable})
	conn.DelTable(table)
	table = conn.AddTable(table)
	b.addPrerouting(conn, table)
	b.addInput(conn, table)
	b.addForward(conn, table)
	b.addOutput(conn, table)
	if err := conn.Flush(); err != nil {
		return borderError(err)
	}
	return nil
}

func borderError(err error) error {
	return fmt.Errorf("The border could not be raised (%w); the sidecar needs NET_ADMIN and a kernel with nf_tables.", err)
}

// addPrerouting drops forged tailnet sources, before connection tracking and before any DNAT.
func (b Border) addPrerouting(conn *nftables.Conn, table *nftables.Table) {
	chain := baseChain(conn, table, "prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, prefix := range tailnetPrefixes {
		addRule(conn, chain, notFrom(tunName), notFrom("lo"), address(prefix, sourceAddress), verdict(expr.VerdictDrop))
	}
}

func (b Border) addInput(conn *nftables.Conn, table *nftables.Table) {
	chain := baseChain(conn, table, "input", nftables.ChainHookInput, nftables.ChainPriorityFilter)
	accept := verdict(expr.VerdictAccept)
	addRule(conn, chain, from(tunName), protocol(unix.IPPROTO_TCP), toPort(b.WorkerPort), verdict(expr.VerdictDrop))
	addRule(conn, chain, notFromBridge(), accept)
	addRule(conn, chain, answers(), accept)
	addRule(conn, chain, protocol(unix.IPPROTO_ICMP), accept)
	addRule(conn, chain, protocol(unix.IPPROTO_ICMPV6), accept)
	addRule(conn, chain, protocol(unix.IPPROTO_UDP), toPort(b.WireGuardPort), accept)
	addRule(conn, chain, protocol(unix.IPPROTO_TCP), toPort(b.SSHPort), accept)
	for _, gateway := range b.Gateways {
		only := netip.PrefixFrom(gateway, gateway.BitLen())
		addRule(conn, chain, address(only, sourceAddress), protocol(unix.IPPROTO_TCP), toPort(b.WorkerPort), accept)
	}
	addRule(conn, chain, verdict(expr.VerdictDrop))
}

func (b Border) addForward(conn *nftables.Conn, table *nftables.Table) {
	chain := baseChain(conn, table, "forward", nftables.ChainHookForward, nftables.ChainPriorityFilter)
	addTailnetStays(conn, chain)
	addRule(conn, chain, notFromBridge(), verdict(expr.VerdictAccept))
	addRule(conn, chain, answers(), verdict(expr.VerdictAccept))
	addRule(conn, chain, verdict(expr.VerdictDrop))
}

func (b Border) addOutput(conn *nftables.Conn, table *nftables.Table) {
	chain := baseChain(conn, table, "output", nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	addTailnetStays(conn, chain)
}

// addTailnetStays refuses, rather than drops, so that a program finds out at once. A peer or coordinator that has an
// address of this kind outside of the tailnet (carrier-grade NAT) is reached by the sidecar's own marked sockets.
func addTailnetStays(conn *nftables.Conn, chain *nftables.Chain) {
	refuse := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_HOST_UNREACH}}
	for _, prefix := range tailnetPrefixes {
		addRule(conn, chain, toBridge(), unmarked(), address(prefix, destinationAddress), refuse)
	}
}

func baseChain(conn *nftables.Conn, table *nftables.Table, name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority})
}

func addRule(conn *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	var exprs []expr.Any
	for _, part := range parts {
		exprs = append(exprs, part...)
	}
	conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: exprs})
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func from(name string) []expr.Any { return fromCompared(name, expr.CmpOpEq) }

func notFrom(name string) []expr.Any { return fromCompared(name, expr.CmpOpNeq) }

func fromCompared(name string, how expr.CmpOp) []expr.Any {
	whole := make([]byte, unix.IFNAMSIZ)
	copy(whole, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: how, Register: 1, Data: whole},
	}
}

// notFromBridge and toBridge compare a prefix of the interface's name, as nft does for "eth*".
func notFromBridge() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(bridgePrefix)},
	}
}

func toBridge() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(bridgePrefix)},
	}
}

func unmarked() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bypassMarkMask), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(bypassMark)},
	}
}

func answers() []expr.Any {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

type addressField int

const (
	sourceAddress addressField = iota
	destinationAddress
)

// address matches packets of the prefix's family whose field lies within it.
func address(prefix netip.Prefix, field addressField) []expr.Any {
	family, length, offset := byte(unix.NFPROTO_IPV4), uint32(4), uint32(12)
	if prefix.Addr().Is6() {
		family, length, offset = unix.NFPROTO_IPV6, 16, 8
	}
	if field == destinationAddress {
		offset += length
	}
	mask := make([]byte, length)
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: prefix.Masked().Addr().AsSlice()},
	}
}

// bridgeGateways are the next hops of the default routes: the agent machine, as the pod sees it.
func bridgeGateways() ([]netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("The pod's routes could not be read: %w.", err)
	}
	var gateways []netip.Addr
	for _, route := range routes {
		everything := route.Dst == nil || route.Dst.IP.IsUnspecified()
		if addr, ok := netip.AddrFromSlice(route.Gw); ok && everything {
			gateways = append(gateways, addr.Unmap())
		}
	}
	return gateways, nil
}
