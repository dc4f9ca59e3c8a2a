package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// podBridges matches the bridges of all pods (iptables' spelling of a prefix). Docker's other bridges are not ours.
	podBridges       = "perry-+"
	hostRulesTimeout = 20 * time.Second
)

// HostRules are what pods need of, and may not have from, the machine they run on:
//
//   - WireGuard between the bridges, which Docker keeps apart otherwise, so that workspaces reach each other directly;
//   - the coordinator, where it is a container or a service of this machine;
//   - nothing towards the machine's own tailnet: there the traffic would leave under the machine's identity.
//
// They are rules with an instance's comment in the chains DOCKER-USER and INPUT; all else there stays.
type HostRules struct {
	Instance      string         // one control plane never touches the rules of another
	WireGuardPort uint16         // UDP
	Coordinator   netip.AddrPort // the zero value: elsewhere
	TailnetLinks  []string       // the host's own tailnet interfaces
	TailnetAddrs  []netip.Addr   // the host's own tailnet addresses
}

// hostRule is one line. A pod's packet meets the chain's rules from the first on.
type hostRule struct {
	chain string
	match []string
}

var instancePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// runHostRules is mode host-rules. It finds the iptables flavours whose rules the kernel asks: Docker's chains stand in
// one of them, and the same rules in the other would be met as well, or not at all.
func runHostRules(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	remove := slices.Equal(args, []string{"--remove"})
	if len(args) > 0 && !remove {
		return fmt.Errorf("host-rules knows --remove alone, not %q.", strings.Join(args, " "))
	}
	rules, err := readHostRules(getenv)
	if err != nil {
		return err
	}
	if rules.TailnetLinks, rules.TailnetAddrs, err = hostTailnet(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, hostRulesTimeout)
	defer cancel()
	flavour, err := dockerFlavour(ctx, iptables)
	if err != nil {
		return err
	}
	for _, family := range []struct {
		program string
		is6     bool
	}{{"iptables-" + flavour, false}, {"ip6tables-" + flavour, true}} {
		forward := "DOCKER-USER"
		if family.is6 && !hasChain(ctx, iptables, family.program, forward) {
			forward = "FORWARD" // Docker leaves IPv6 alone unless told otherwise
		}
		wanted := rules.lines(family.is6, forward)
		if remove {
			wanted = nil
		}
		if err := rules.apply(ctx, iptables, family.program, forward, wanted); err != nil {
			if family.is6 {
				fmt.Fprintln(stderr, "IPv6 rules were not set; this host may have no IPv6:", oneLine(err.Error()))
				continue
			}
			return err
		}
	}
	return nil
}

func hasChain(ctx context.Context, run iptablesCommand, program, chain string) bool {
	_, err := run(ctx, program, "", "-w", "5", "-t", "filter", "-S", chain)
	return err == nil
}

func readHostRules(getenv func(string) string) (HostRules, error) {
	rules := HostRules{Instance: getenv("PERRY_INSTANCE")}
	if rules.Instance == "" {
		rules.Instance = "perry"
	}
	if !instancePattern.MatchString(rules.Instance) {
		return rules, fmt.Errorf("PERRY_INSTANCE is %q; give letters, digits, dots, hyphens and underscores.", rules.Instance)
	}
	port := getenv("PERRY_WIREGUARD_PORT")
	if port == "" {
		port = "41641"
	}
	if err := parsePort("PERRY_WIREGUARD_PORT", port, &rules.WireGuardPort); err != nil {
		return rules, err
	}
	if text := getenv("PERRY_COORDINATOR"); text != "" {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			return rules, fmt.Errorf("PERRY_COORDINATOR is %q; give ip:port, or nothing.", text)
		}
		rules.Coordinator = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return rules, nil
}

// lines are the rules of one family, in the order of the chain. Accepting comes first: the coordinator may have an
// address of the tailnet's range.
func (h HostRules) lines(is6 bool, forward string) []hostRule {
	var rules []hostRule
	port := fmt.Sprint(h.WireGuardPort)
	from := []string{"-i", podBridges}
	add := func(chain string, match ...string) {
		rules = append(rules, hostRule{chain, slices.Concat(from, match)})
	}
	add(forward, "-o", podBridges, "-p", "udp", "-m", "udp", "--dport", port, "-j", "ACCEPT")
	add(forward, "-o", podBridges, "-p", "udp", "-m", "udp", "--sport", port, "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
	coordinator := h.Coordinator
	known := coordinator.IsValid() && coordinator.Addr().Is6() == is6
	coordinatorPort := fmt.Sprint(coordinator.Port())
	if known {
		// After DNAT, where it is a container that publishes a port; both ways.
		dialled := []string{"-m", "conntrack", "--ctorigdst", coordinator.Addr().String(), "--ctorigdstport", coordinatorPort}
		add(forward, append(dialled, "-j", "ACCEPT")...)
		answers := slices.Concat([]string{"-o", podBridges}, dialled, []string{"-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"})
		rules = append(rules, hostRule{forward, answers})
		add("INPUT", "-d", hostPrefix(coordinator.Addr()), "-p", "tcp", "-m", "tcp", "--dport", coordinatorPort, "-j", "ACCEPT")
	}
	for _, link := range h.TailnetLinks {
		add(forward, "-o", link, "-j", "DROP")
	}
	for _, addr := range h.TailnetAddrs {
		if addr.Is6() == is6 {
			add("INPUT", "-d", hostPrefix(addr), "-j", "DROP")
		}
	}
	if known {
		// A pod may dial it at its bridge's gateway as well, which is this machine.
		add("INPUT", "-p", "tcp", "-m", "tcp", "--dport", coordinatorPort, "-j", "ACCEPT")
	}
	return rules
}

func hostPrefix(addr netip.Addr) string { return netip.PrefixFrom(addr, addr.BitLen()).String() }

// comment marks our rules, so that they are found again and nothing else is touched.
func (h HostRules) comment() string { return "perry:" + h.Instance }

// iptablesCommand runs one command, and fails with what the program said.
type iptablesCommand func(ctx context.Context, program string, stdin string, args ...string) (string, error)

func iptables(ctx context.Context, program, stdin string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, program, args...)
	var out, failed bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &failed
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, oneLine(failed.String()))
	}
	return out.String(), nil
}

// dockerFlavour is "nft" or "legacy", wherever Docker has its chain.
func dockerFlavour(ctx context.Context, run iptablesCommand) (string, error) {
	var failures []error
	for _, flavour := range []string{"nft", "legacy"} {
		_, err := run(ctx, "iptables-"+flavour, "", "-w", "5", "-t", "filter", "-S", "DOCKER-USER")
		if err == nil {
			return flavour, nil
		}
		failures = append(failures, err)
	}
	return "", fmt.Errorf("No iptables flavour has Docker's chain DOCKER-USER, so the host rules were not set (%s); is Docker's \"iptables\" setting off?", oneLine(errors.Join(failures...).Error()))
}

// apply makes our rules be exactly the wanted ones, first in their chains, in one transaction of iptables-restore: at
// no moment is a rule away that was there before and stays. Doing it twice changes nothing.
func (h HostRules) apply(ctx context.Context, run iptablesCommand, program, forward string, wanted []hostRule) error {
	var script strings.Builder
	script.WriteString("*filter\n")
	present := false
	for _, chain := range []string{forward, "INPUT"} {
		listed, err := run(ctx, program, "", "-w", "5", "-t", "filter", "-S", chain)
		if err != nil {
			return fmt.Errorf("The host's firewall rules could not be read (%w); host-rules needs NET_ADMIN in the host's network namespace.", err)
		}
		for _, line := range ownLines(listed, chain, h.comment()) {
			present = true
			script.WriteString("-D " + line + "\n")
		}
	}
	at := map[string]int{}
	for _, rule := range wanted {
		at[rule.chain]++
		fmt.Fprintf(&script, "-I %s %d %s\n", rule.chain, at[rule.chain], strings.Join(withComment(rule.match, h.comment()), " "))
	}
	script.WriteString("COMMIT\n")
	if !present && len(wanted) == 0 {
		return nil
	}
	restore := program + "-restore"
	if _, err := run(ctx, restore, script.String(), "-w", "5", "--noflush"); err != nil {
		return fmt.Errorf("The host's firewall rules could not be set (%w); host-rules needs NET_ADMIN in the host's network namespace.", err)
	}
	return nil
}

func withComment(match []string, comment string) []string {
	jump := slices.Index(match, "-j")
	return slices.Concat(match[:jump], []string{"-m", "comment", "--comment", comment}, match[jump:])
}

// ownLines are the rules of a chain, as iptables -S prints them without "-A", that carry our comment.
func ownLines(listed, chain, comment string) []string {
	var own []string
	for line := range strings.Lines(listed) {
		rule, found := strings.CutPrefix(strings.TrimSpace(line), "-A ")
		if !found || !strings.HasPrefix(rule, chain+" ") {
			continue
		}
		fields := strings.Fields(rule)
		at := slices.Index(fields, "--comment")
		if at >= 0 && at+1 < len(fields) && strings.Trim(fields[at+1], `"`) == comment {
			own = append(own, rule)
		}
	}
	return own
}

// hostTailnet finds the host's own tailnet: interfaces that Tailscale names so, and those that have a tailnet address.
func hostTailnet() ([]string, []netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("The host's interfaces could not be read: %w.", err)
	}
	// A tailscaled that starts later is covered too.
	links := []string{"tailscale+"}
	var own []netip.Addr
	for _, one := range interfaces {
		addrs, err := one.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, text := range addrs {
			prefix, err := netip.ParsePrefix(text.String())
			if err != nil || !isTailnetAddress(prefix) {
				continue
			}
			own = append(own, prefix.Addr())
			if !strings.HasPrefix(one.Name, "tailscale") && !slices.Contains(links, one.Name) {
				links = append(links, one.Name)
			}
		}
	}
	return links, own, nil
}

// isTailnetAddress tells a node's own address (a single one) from a bridge or a provider's network in the same range.
func isTailnetAddress(prefix netip.Prefix) bool {
	return prefix.IsSingleIP() && slices.ContainsFunc(tailnetPrefixes, func(p netip.Prefix) bool { return p.Contains(prefix.Addr()) })
}
