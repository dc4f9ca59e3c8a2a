package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// iptablesIn runs the real programs in a namespace.
func iptablesIn(ns *namespace) iptablesCommand {
	return func(ctx context.Context, program, stdin string, args ...string) (out string, err error) {
		ns.do(func() { out, err = iptables(ctx, program, stdin, args...) })
		return out, err
	}
}

func hostNamespace(t *testing.T, flavour string) *namespace {
	ns := newNamespace(t)
	ns.run("iptables-"+flavour, "-N", "DOCKER-USER")
	ns.run("iptables-"+flavour, "-A", "DOCKER-USER", "-j", "RETURN")
	ns.run("iptables-"+flavour, "-A", "FORWARD", "-j", "DOCKER-USER")
	ns.run("iptables-"+flavour, "-A", "INPUT", "-p", "tcp", "--dport", "9", "-m", "comment", "--comment", "perry:other instance's", "-j", "DROP")
	return ns
}

var testRules = HostRules{
	Instance: "perry-test", WireGuardPort: 41641, Coordinator: netip.MustParseAddrPort("192.0.2.2:8080"),
	TailnetLinks: []string{"tailscale+"}, TailnetAddrs: []netip.Addr{netip.MustParseAddr("100.64.0.50"), netip.MustParseAddr("fd7a:115c:a1e0::50")},
}

func TestHostRulesComeAndGo(t *testing.T) {
	for _, flavour := range []string{"nft", "legacy"} {
		t.Run(flavour, func(t *testing.T) {
			ns := hostNamespace(t, flavour)
			program, run := "iptables-"+flavour, iptablesIn(ns)
			found, err := dockerFlavour(t.Context(), run)
			if err != nil || found != flavour {
				t.Fatalf("it found %q, %v", found, err)
			}
			before := ns.run(program, "-S")
			apply := func(rules HostRules, wanted []hostRule) string {
				t.Helper()
				if err := rules.apply(t.Context(), run, program, "DOCKER-USER", wanted); err != nil {
					t.Fatal(err)
				}
				return ns.run(program, "-S")
			}
			once := apply(testRules, testRules.lines(false, "DOCKER-USER"))
			for _, part := range []string{
				"-A DOCKER-USER -i perry-+ -o perry-+ -p udp -m udp --dport 41641",
				"--ctorigdst 192.0.2.2 --ctorigdstport 8080",
				"-A DOCKER-USER -i perry-+ -o tailscale+",
				"-A INPUT -d 100.64.0.50/32 -i perry-+",
			} {
				if !contains(once, part) {
					t.Errorf("%q is missing in\n%s", part, once)
				}
			}
			if lines := strings.Split(once, "\n"); slices.Index(lines, "-A DOCKER-USER -j RETURN") < slices.IndexFunc(lines, func(l string) bool { return contains(l, "tailscale+") }) {
				t.Error("the rules stand behind the chain's end")
			}
			if again := apply(testRules, testRules.lines(false, "DOCKER-USER")); again != once {
				t.Errorf("the second time changed\n%s\nto\n%s", once, again)
			}
			other := testRules
			other.Instance = "perry-test2"
			apply(other, other.lines(false, "DOCKER-USER"))
			apply(other, nil)
			if left := ns.run(program, "-S"); left != once {
				t.Errorf("another instance left\n%s\nof\n%s", left, once)
			}
			apply(testRules, nil)
			if after := apply(testRules, nil); after != before {
				t.Errorf("removed, it is\n%s\nnot\n%s", after, before)
			}
		})
	}
}

func TestHostRulesKeepPodsOffTheHostsTailnet(t *testing.T) {
	host, pod := hostNamespace(t, "nft"), newNamespace(t)
	joinBy(pod, "eth0", []string{"10.9.0.2/28"}, host, "perry-12345678", []string{"10.9.0.1/28", "100.64.0.50/32"})
	pod.route("default", "10.9.0.1")
	host.listen("8080")
	coordinated := testRules
	coordinated.Coordinator = netip.MustParseAddrPort("10.9.0.1:8080")
	if got := pod.dial("", "100.64.0.50:8080"); got != "open" {
		t.Fatalf("without rules it is %s", got)
	}
	if err := coordinated.apply(t.Context(), iptablesIn(host), "iptables-nft", "DOCKER-USER", coordinated.lines(false, "DOCKER-USER")); err != nil {
		t.Fatal(err)
	}
	if got := pod.dial("", "100.64.0.50:8080"); got != "dropped" {
		t.Errorf("the host's tailnet address is %s", got)
	}
	if got := pod.dial("", "10.9.0.1:8080"); got != "open" {
		t.Errorf("the coordinator is %s", got)
	}
}

func TestHostRulesForIPv6(t *testing.T) {
	var text strings.Builder
	for _, rule := range testRules.lines(true, "FORWARD") {
		text.WriteString(rule.chain + " " + strings.Join(rule.match, " ") + "\n")
	}
	if !contains(text.String(), "fd7a:115c:a1e0::50/128") || contains(text.String(), "192.0.2.2") || contains(text.String(), "DOCKER-USER") {
		t.Error(text.String())
	}
}

func TestHostRulesWithoutDocker(t *testing.T) {
	_, err := dockerFlavour(t.Context(), func(context.Context, string, string, ...string) (string, error) {
		return "", errors.New("no chain")
	})
	if err == nil || !contains(err.Error(), "DOCKER-USER") {
		t.Error(err)
	}
}

func TestWrongHostRules(t *testing.T) {
	for name, value := range map[string]string{"PERRY_INSTANCE": "a b", "PERRY_WIREGUARD_PORT": "x", "PERRY_COORDINATOR": "somewhere"} {
		if _, err := readHostRules(environment(map[string]string{name: value})); err == nil || !contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if err := runHostRules(t.Context(), []string{"--all"}, environment(nil), nil); err == nil {
		t.Error("an unknown flag was taken")
	}
}

func TestHostsOwnTailnetAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"100.64.0.50/32": true, "fd7a:115c:a1e0::50/128": true, "100.64.0.1/24": false, "10.0.0.1/32": false,
	} {
		if got := isTailnetAddress(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
