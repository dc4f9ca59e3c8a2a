package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"tailscale.com/envknob"
	"tailscale.com/logtail"
)

// Settings of the modes with a tailnet node, read once from the environment. They hold no secret: the auth key comes otherwise (handover).
type Settings struct {
	Hostname      string       // PERRY_HOSTNAME: the workspace's name on the tailnet
	Join          bool         // PERRY_TAILNET: "join", or "none" for border and DNS stub alone
	ControlURL    string       // PERRY_CONTROL_URL: empty is Tailscale's own coordinator
	TailnetID     string       // PERRY_TAILNET_ID: tells tailnets apart; a place on another one is given up. Empty: there is one
	RequiredTag   string       // PERRY_REQUIRED_TAG: without it this node would act for a person, and leaves. Empty: none
	StateDir      string       // PERRY_STATE_DIR: node key and auth-key file; nobody else may mount it
	RunDir        string       // PERRY_RUN_DIR: the whois socket; the workspace mounts it read-only
	Owners        []string     // PERRY_OWNERS: login names whose devices may ssh without a key
	Refused       []netip.Addr // PERRY_REFUSED_ADDRESSES: never an identity (the agent machine's own node)
	WireGuardPort uint16       // PERRY_WIREGUARD_PORT: UDP, fixed so that border and host rules can name it
	WorkerPort    uint16       // PERRY_WORKER_PORT: TCP, for the bridge's gateway alone
	SSHPort       uint16       // PERRY_SSH_PORT: TCP, published
	TUN           bool         // PERRY_TUN: "auto", or "off" for the netstack fallback
	ProxyAddress  string       // fixed: the way out without TUN
	LogLevel      slog.Level   // PERRY_LOG: debug, info, warn or error
	Gateway       bool         // mode gateway
	Socket        string       // PERRY_SOCKET: the control plane's, in mode gateway
	WayOut        string       // PERRY_WAY_OUT: the socket by which it reaches gateways that are woken. Empty: it does not
	Places        string       // PERRY_PLACES: the file with the places that may be reached so
}

// what this node is, for people.
func (s Settings) what() string {
	if s.Gateway {
		return "gateway"
	}
	return "workspace"
}

// remedy is how this node gets another auth key, as the end of a sentence.
func (s Settings) remedy() string {
	if s.Gateway {
		return "the control plane gives the gateway another when it runs"
	}
	return "give the workspace a new one (perry restart mints it)"
}

// proxyAddress is the way out without TUN: ALL_PROXY=socks5h://127.0.0.1:1055, or HTTP CONNECT at the same port (the
// one that tailscaled's documentation uses).
const proxyAddress = "127.0.0.1:1055"

var hostnamePattern = regexp.MustCompile(`^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// readSettings parses the environment. Its error is one sentence that names the variable.
func readSettings(getenv func(string) string) (Settings, error) {
	or := func(name, otherwise string) string {
		if value := getenv(name); value != "" {
			return value
		}
		return otherwise
	}
	s := Settings{
		Hostname:     getenv("PERRY_HOSTNAME"),
		ControlURL:   strings.TrimRight(getenv("PERRY_CONTROL_URL"), "/"),
		TailnetID:    getenv("PERRY_TAILNET_ID"),
		RequiredTag:  getenv("PERRY_REQUIRED_TAG"),
		StateDir:     or("PERRY_STATE_DIR", "/var/lib/perry"),
		RunDir:       or("PERRY_RUN_DIR", "/run/perry"),
		Owners:       list(getenv("PERRY_OWNERS")),
		ProxyAddress: proxyAddress,
	}
	if !hostnamePattern.MatchString(s.Hostname) {
		return s, fmt.Errorf("PERRY_HOSTNAME is %q; give a workspace name of lower-case letters, digits and hyphens.", s.Hostname)
	}
	switch mode := or("PERRY_TAILNET", "join"); mode {
	case "join":
		s.Join = true
	case "none":
	default:
		return s, fmt.Errorf("PERRY_TAILNET is %q; it may be join or none.", mode)
	}
	switch mode := or("PERRY_TUN", "auto"); mode {
	case "auto":
		s.TUN = true
	case "off":
	default:
		return s, fmt.Errorf("PERRY_TUN is %q; it may be auto or off.", mode)
	}
	if s.ControlURL != "" {
		if at, err := url.Parse(s.ControlURL); err != nil || at.Host == "" || (at.Scheme != "http" && at.Scheme != "https") {
			return s, fmt.Errorf("PERRY_CONTROL_URL is %q; give an http or https address of the coordinator.", s.ControlURL)
		}
	}
	for _, dir := range []struct{ name, value string }{{"PERRY_STATE_DIR", s.StateDir}, {"PERRY_RUN_DIR", s.RunDir}} {
		if !filepath.IsAbs(dir.value) {
			return s, fmt.Errorf("%s is %q; give an absolute path.", dir.name, dir.value)
		}
	}
	for _, text := range list(getenv("PERRY_REFUSED_ADDRESSES")) {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return s, fmt.Errorf("PERRY_REFUSED_ADDRESSES has %q; give IP addresses, separated by commas.", text)
		}
		s.Refused = append(s.Refused, addr.Unmap())
	}
	border, err := readBorder(getenv)
	if err != nil {
		return s, err
	}
	s.WireGuardPort, s.WorkerPort, s.SSHPort = border.WireGuardPort, border.WorkerPort, border.SSHPort
	if err := s.LogLevel.UnmarshalText([]byte(or("PERRY_LOG", "info"))); err != nil {
		return s, fmt.Errorf("PERRY_LOG is %q; it may be debug, info, warn or error.", getenv("PERRY_LOG"))
	}
	return s, nil
}

// readBorder parses the ports that the border lets through.
func readBorder(getenv func(string) string) (b Border, err error) {
	for _, port := range []struct {
		name, otherwise string
		into            *uint16
	}{
		{"PERRY_WIREGUARD_PORT", "41641", &b.WireGuardPort},
		{"PERRY_WORKER_PORT", "7392", &b.WorkerPort},
		{"PERRY_SSH_PORT", "22", &b.SSHPort},
	} {
		text := getenv(port.name)
		if text == "" {
			text = port.otherwise
		}
		if err := parsePort(port.name, text, port.into); err != nil {
			return b, err
		}
	}
	return b, nil
}

func parsePort(name, text string, into *uint16) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%s is %q; give a port from 1 to 65535.", name, text)
	}
	*into = uint16(port)
	return nil
}

func list(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// nodeDir is tsnet's own folder. Two processes on one of these would share a node key and take each other's traffic.
func (s Settings) nodeDir() string { return filepath.Join(s.StateDir, "node") }

// keyFile is where an auth key waits to be used.
func (s Settings) keyFile() string { return filepath.Join(s.StateDir, "auth-key") }

// enrolledFile says which tailnet this node has a place on.
func (s Settings) enrolledFile() string { return filepath.Join(s.StateDir, "enrolled") }

// tailscalesOwn tells whether the coordinator is Tailscale's service.
func (s Settings) tailscalesOwn() bool {
	at, err := url.Parse(s.ControlURL)
	return s.ControlURL == "" || err == nil && strings.HasSuffix("."+at.Hostname(), ".tailscale.com")
}

// staysAway tells whether this node would not come back by itself after the coordinator was away: towards an http
// coordinator the Tailscale client tries https alone after a failure in the last two minutes, each try counting as one,
// unless the coordinator's host is a private address (control/ts2021, NewClient; controlhttp, forceNoise443; tried).
func (s Settings) staysAway() bool {
	at, err := url.Parse(s.ControlURL)
	if err != nil || at.Scheme != "http" || at.Hostname() == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(at.Hostname())
	return err != nil || !addr.IsPrivate() && !addr.IsLoopback()
}

// prepareEnvironment sets what the Tailscale libraries read from the environment alone, before their first use.
func (s Settings) prepareEnvironment() {
	set := map[string]string{
		// Behind Docker's bridge no router hears a request for a port mapping (UPnP, NAT-PMP), and the first network
		// check would wait 230 ms of the join for the answer.
		"TS_DISABLE_PORTMAPPER": "true",
	}
	if !s.tailscalesOwn() {
		// A coordinator of one's own: nothing is uploaded to Tailscale's log servers.
		set["TS_NO_LOGS_NO_SUPPORT"] = "true"
		logtail.Disable() // else they are gathered and compressed all the same, and then dropped
	}
	if strings.HasPrefix(s.ControlURL, "http://") {
		// headscale's embedded relay then speaks http too; without this there is no path but a direct one.
		set["TS_DEBUG_USE_DERP_HTTP"] = "1"
	}
	for name, value := range set {
		// Not os.Setenv: the libraries read some of these before main.
		envknob.Setenv(name, value)
	}
}
