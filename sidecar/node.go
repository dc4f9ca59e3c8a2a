package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tailscale/wireguard-go/tun"
	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tsnet"
)

const (
	tickWhileJoining = 2 * time.Second
	tickWhileRunning = 10 * time.Second
	closeTimeout     = 800 * time.Millisecond
)

// Node is this workspace's place on the tailnet. It keeps name, key and address over restarts of the process, because
// they lie in the state folder; it joins anew when a key is given and the old place is gone, or when it is told to.
type Node struct {
	settings Settings
	report   *Reporter
	log      *slog.Logger
	server   *tsnet.Server
	client   *local.Client
	tun      bool
	zones    atomic.Pointer[[]string]
	closed   chan struct{} // after Close, however long it takes

	// Of the goroutine in Run alone:
	keyInUse bool         // the coordinator was given a key that it has not answered yet
	given    string       // that key
	starting bool         // told to start anew; what is heard until it does is of the time before
	refusal  string       // why it said no for good; only a signal or a restart makes us ask again
	trouble  string       // what it last said no to, while we go on asking
	applied  []netip.Addr // the addresses that the interface has
	unreach  string       // why the coordinator cannot be reached
}

// startNode starts to join and returns at once. With a nil device there is no TUN device: see forward.go.
func startNode(s Settings, device tun.Device, report *Reporter, log *slog.Logger) (*Node, error) {
	n := &Node{settings: s, report: report, log: log, tun: device != nil, closed: make(chan struct{})}
	n.server = &tsnet.Server{
		Dir:        s.nodeDir(),
		Hostname:   s.Hostname,
		ControlURL: s.ControlURL,
		Port:       s.WireGuardPort,
		Logf:       func(format string, args ...any) { log.Debug(oneLine(fmt.Sprintf(format, args...))) },
		// The URL at which a person could log this node in by hand is nothing for us.
		UserLogf: func(format string, args ...any) { log.Debug(oneLine(fmt.Sprintf(format, args...))) },
	}
	if device != nil {
		n.server.Tun = device
	}
	if err := n.leaveAnother(); err != nil {
		return nil, fmt.Errorf("The place on another tailnet could not be given up: %w.", err)
	}
	key := n.key()
	if !n.enrolled() {
		// A node with a state of its own starts without the key: a wrong one would make it fail.
		n.server.AuthKey, n.keyInUse, n.given = key, key != "", key
	}
	if !n.enrolled() && key == "" {
		report.Update(func(snap *Snapshot) { snap.State, snap.Error = stateNeedsKey, n.noKey() })
	} else {
		report.Update(func(snap *Snapshot) { snap.State = stateJoining })
	}
	if err := n.server.Start(); err != nil {
		return nil, fmt.Errorf("The tailnet node could not be started: %w.", err)
	}
	client, err := n.server.LocalClient()
	if err != nil {
		return nil, fmt.Errorf("The tailnet node could not be started: %w.", err)
	}
	n.client = client
	return n, nil
}

func (n *Node) noKey() string {
	return fmt.Sprintf("This %s has no place on the tailnet and no auth key; %s.", n.settings.what(), n.settings.remedy())
}

// key is the auth key that waits in its file, or "".
func (n *Node) key() string {
	text, err := os.ReadFile(n.settings.keyFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("the auth key cannot be read", "error", err)
	}
	return strings.TrimSpace(string(text))
}

func (n *Node) enrolled() bool {
	return exists(n.settings.enrolledFile())
}

// firstTailnet is what an empty note of an earlier version means: there was no other.
const firstTailnet = "embedded"

// notedTailnet is what the enrolled file says.
func notedTailnet(noted []byte) string {
	if len(noted) == 0 {
		return firstTailnet
	}
	return string(noted)
}

// leaveAnother forgets a place on another tailnet than this one. Its node key is nothing here, and its cached network
// map would make this node believe itself at home.
func (n *Node) leaveAnother() error {
	noted, err := os.ReadFile(n.settings.enrolledFile())
	if errors.Is(err, os.ErrNotExist) || n.settings.TailnetID == "" {
		return nil
	}
	if err != nil {
		return err
	}
	was := notedTailnet(noted)
	if was == n.settings.TailnetID {
		return nil
	}
	n.log.Info("joining another tailnet than before", "before", was, "now", n.settings.TailnetID)
	if err := os.RemoveAll(n.settings.nodeDir()); err != nil {
		return err
	}
	return os.Remove(n.settings.enrolledFile())
}

// Run follows the tailnet until the context ends, and joins anew whenever reenrol says so.
func (n *Node) Run(ctx context.Context, reenrol <-chan os.Signal) error {
	notes := make(chan ipn.Notify)
	go n.watch(ctx, notes)
	ticker := time.NewTicker(tickWhileJoining)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reenrol:
			n.enrol(ctx)
		case note := <-notes:
			n.take(ctx, note)
		case <-ticker.C:
			n.unreach = ""
			if n.report.Last().State != stateRunning && n.refusal == "" {
				n.unreach = n.probe(ctx)
			}
		}
		n.publish(ctx)
		if last := n.report.Last(); last.State == stateRunning && last.Online {
			ticker.Reset(tickWhileRunning)
		} else {
			ticker.Reset(tickWhileJoining)
		}
	}
}

// watch passes on what the backend says, and subscribes again where that ends.
func (n *Node) watch(ctx context.Context, notes chan<- ipn.Notify) {
	for ctx.Err() == nil {
		watcher, err := n.client.WatchIPNBus(ctx, ipn.NotifyInitialState|ipn.NotifyInitialHealthState)
		if err == nil {
			for {
				note, err := watcher.Next()
				if err != nil {
					break
				}
				select {
				case notes <- note:
				case <-ctx.Done():
				}
			}
			watcher.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// take reacts to what cannot be read from the status afterwards.
func (n *Node) take(ctx context.Context, note ipn.Notify) {
	if note.SelfChange != nil {
		n.applied = nil
	}
	if note.Prefs != nil && note.Prefs.Valid() && note.Prefs.WantRunning() {
		n.starting = false // the backend says so whenever it starts (ipn/ipnlocal, startLocked)
	}
	if note.ErrMessage == nil || n.starting {
		return
	}
	n.log.Warn("the coordinator refused", "said", oneLine(*note.ErrMessage))
	sentence, permanent := explainRefusal(*note.ErrMessage, n.settings.remedy())
	if !n.keyInUse && n.key() != "" {
		n.enrol(ctx) // our old place is gone, and there is a key for a new one
		return
	}
	if !permanent || !n.keyInUse {
		n.trouble = sentence
		return
	}
	n.refusal, n.keyInUse = sentence, false
	// The backend would ask again and again.
	if _, err := n.client.EditPrefs(ctx, &ipn.MaskedPrefs{WantRunningSet: true}); err != nil {
		n.log.Warn("the node could not be paused", "error", err)
	}
}

// enrol joins with the key in the file, in this process: same name, and the same address where the node still exists.
func (n *Node) enrol(ctx context.Context) {
	key := n.key()
	if key == "" {
		n.log.Warn("told to enrol again, but there is no auth key", "file", n.settings.keyFile())
		return
	}
	if n.keyInUse && key == n.given {
		return // a one-off key must not be used twice
	}
	prefs := ipn.NewPrefs()
	prefs.Hostname = n.settings.Hostname
	prefs.ControlURL = n.settings.ControlURL
	prefs.WantRunning = true
	n.refusal, n.trouble, n.keyInUse, n.given, n.starting = "", "", true, key, true
	err := n.client.Start(ctx, ipn.Options{AuthKey: key, UpdatePrefs: prefs})
	if err == nil {
		err = n.loginWithoutNodeKey(ctx)
	}
	if err != nil {
		n.trouble = fmt.Sprintf("The tailnet node could not be enrolled again (%s); restart the %s.", oneLine(err.Error()), n.settings.what())
	}
}

// loginWithoutNodeKey asks for what Start does by itself for a node that was on the tailnet before
// (ipn/ipnlocal, startLocked). For such a node it must not be asked: a one-off key would be used twice.
func (n *Node) loginWithoutNodeKey(ctx context.Context) error {
	status, err := n.client.StatusWithoutPeers(ctx)
	if err != nil || status.HaveNodeKey {
		return err
	}
	return n.client.StartLoginInteractive(ctx)
}

// publish brings interface, names and snapshot in line with the backend's status.
func (n *Node) publish(ctx context.Context) {
	status, err := n.client.StatusWithoutPeers(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("the node's status could not be read", "error", err)
		}
		return
	}
	if n.actsForPerson(status) {
		n.leave(ctx)
	}
	state, sentence := n.judge(status)
	if state == stateRunning {
		if err := n.settle(status); err != nil {
			state, sentence = stateFailed, fmt.Sprintf("The tailnet interface could not be set up (%s); restart the %s.", oneLine(err.Error()), n.settings.what())
		}
	} else if state == stateNeedsKey && !n.keyInUse && n.key() != "" {
		n.enrol(ctx)
		state, sentence = stateJoining, ""
	}
	n.report.Update(func(snap *Snapshot) {
		snap.State, snap.Error, snap.TUN = state, sentence, n.tun
		snap.Health = healthWithout(status.Health)
		snap.Online = state == stateRunning && status.Self != nil && status.Self.Online
		snap.IPs, snap.DNSName, snap.NodeID = nil, "", ""
		if status.Self != nil && state == stateRunning {
			snap.IPs = slices.Clone(status.TailscaleIPs)
			snap.DNSName = strings.TrimSuffix(status.Self.DNSName, ".")
			snap.NodeID = string(status.Self.ID)
		}
	})
}

// actsForPerson tells whether this node came with a key that lacks the tag, and so has become a device of a person: it
// would be let in wherever that person is.
func (n *Node) actsForPerson(status *ipnstate.Status) bool {
	tag := n.settings.RequiredTag
	if tag == "" || n.refusal != "" || status.BackendState != ipn.Running.String() || status.Self == nil {
		return false
	}
	return status.Self.Tags == nil || !slices.Contains(status.Self.Tags.AsSlice(), tag)
}

// leave gives up a place that this node must not have. The device stays listed, expired, for its owner to remove.
func (n *Node) leave(ctx context.Context) {
	n.refusal = fmt.Sprintf("The auth key does not carry %s, so this %s would have become a device of a person; make a key with that tag, and remove the device %s from the tailnet.",
		n.settings.RequiredTag, n.settings.what(), n.settings.Hostname)
	n.keyInUse = false
	n.log.Warn(n.refusal)
	if err := n.client.Logout(ctx); err != nil {
		n.log.Warn("the place without the tag could not be given up", "error", err)
	}
	for _, file := range []string{n.settings.enrolledFile(), n.settings.keyFile()} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.log.Warn("what belongs to the place without the tag could not be removed", "error", err)
		}
	}
}

// judge names the state and, where there is something to do or to wait for, says it.
func (n *Node) judge(status *ipnstate.Status) (state, sentence string) {
	switch {
	case n.refusal != "":
		return stateFailed, n.refusal
	case status.BackendState == ipn.Running.String() && len(status.TailscaleIPs) > 0:
		if status.Self == nil || !status.Self.Online {
			return stateRunning, n.awaySentence("connections go on, and changes wait until it is back")
		}
		return stateRunning, ""
	case status.BackendState == ipn.NeedsLogin.String() && status.AuthURL != "":
		return stateNeedsKey, n.noKey()
	case status.BackendState == ipn.NeedsLogin.String() && !n.keyInUse && !n.enrolled() && n.unreach == "":
		return stateNeedsKey, n.noKey()
	case status.BackendState == ipn.NeedsMachineAuth.String():
		return stateFailed, "The coordinator wants this node approved; approve it there, or give keys that are pre-approved."
	case n.unreach != "":
		return stateOffline, n.awaySentence("it is tried on and on (" + n.unreach + ")")
	default:
		return stateJoining, n.trouble
	}
}

func (n *Node) awaySentence(consequence string) string {
	return fmt.Sprintf("The coordinator at %s does not answer; %s.", n.coordinator(), consequence)
}

func (n *Node) coordinator() string {
	if n.settings.ControlURL == "" {
		return ipn.DefaultControlURL
	}
	return n.settings.ControlURL
}

// settle does what joining means here: addresses on the interface, zones in the stub, no key left behind.
func (n *Node) settle(status *ipnstate.Status) error {
	if n.tun && !slices.Equal(n.applied, status.TailscaleIPs) {
		if err := configureTUN(status.TailscaleIPs); err != nil {
			return err
		}
		n.applied = slices.Clone(status.TailscaleIPs)
	}
	zones := reverseZones()
	if status.CurrentTailnet != nil && status.CurrentTailnet.MagicDNSSuffix != "" {
		zones = append(zones, strings.ToLower(strings.Trim(status.CurrentTailnet.MagicDNSSuffix, ".")))
	}
	n.zones.Store(&zones)
	n.trouble = ""
	if !status.Self.Online {
		return nil // from the cached network map: the coordinator has not seen us yet
	}
	n.keyInUse = false
	if !n.enrolled() {
		if err := os.WriteFile(n.settings.enrolledFile(), []byte(n.settings.TailnetID), 0o600); err != nil {
			return err
		}
	}
	if err := os.Remove(n.settings.keyFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("the used auth key could not be removed", "error", err)
	}
	return nil
}

// probe tells why the coordinator cannot be reached, or "". Any answer to its public /key is an answer.
func (n *Node) probe(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.coordinator()+"/key?v=1", nil)
	if err != nil {
		return oneLine(err.Error())
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return oneLine(err.Error())
	}
	response.Body.Close()
	return ""
}

// healthWithout leaves out complaints about what the sidecar does itself, in its own way.
func healthWithout(texts []string) []string {
	var kept []string
	for _, text := range texts {
		if strings.Contains(text, "log uploading") || strings.Contains(text, "logs") && strings.Contains(text, "disabled") {
			continue
		}
		kept = append(kept, oneLine(text))
	}
	slices.Sort(kept)
	return kept
}

// Zones implements [TailnetNames].
func (n *Node) Zones() []string {
	if zones := n.zones.Load(); zones != nil {
		return *zones
	}
	return nil
}

// Query implements [TailnetNames]: what 100.100.100.100 would say, with TUN and without.
func (n *Node) Query(ctx context.Context, name string, kind dnsmessage.Type) ([]byte, error) {
	answer, _, err := n.client.QueryDNS(ctx, name, strings.TrimPrefix(kind.String(), "Type"))
	return answer, err
}

// WhoIs implements [Identities].
func (n *Node) WhoIs(ctx context.Context, addr netip.Addr) (Peer, error) {
	who, err := n.client.WhoIs(ctx, netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		return Peer{}, err
	}
	if who.Node == nil || who.UserProfile == nil {
		return Peer{}, errors.New("no node")
	}
	return Peer{
		Login:  who.UserProfile.LoginName,
		Node:   strings.TrimSuffix(who.Node.Name, "."),
		Tagged: who.Node.IsTagged(),
	}, nil
}

// Close leaves the tailnet's connections, not its place there, and takes no longer than closeTimeout. Run has to be
// over: an open watcher holds it up.
func (n *Node) Close() {
	go func() {
		defer close(n.closed)
		_ = n.server.Close()
	}()
	select {
	case <-n.closed:
	case <-time.After(closeTimeout):
	}
}
