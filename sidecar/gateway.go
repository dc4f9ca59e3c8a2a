package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"tailscale.com/tailcfg"
)

const (
	gatewaySocket    = "/run/perry/control.sock"
	certificateEvery = 2 * time.Second

	mostConnections        = 512 // of everybody
	mostConnectionsOfOne   = 64  // of one address
	headerTimeout          = 10 * time.Second
	keepAliveTimeout       = 2 * time.Minute
	mostHeaderBytes        = 8 << 10
	mostCapabilitiesBytes  = 2 << 10
	shutdownTimeout        = time.Second
	whoisTimeout           = 2 * time.Second
	foreignCapabilityStart = "tailscale.com/" // of Tailscale's own features
)

// readGatewaySettings parses the environment of mode gateway, which has most variables in common with mode workspace.
func readGatewaySettings(getenv func(string) string) (Settings, error) {
	s, err := readSettings(func(name string) string {
		value := getenv(name)
		if name == "PERRY_HOSTNAME" && value == "" {
			return "perry"
		}
		return value
	})
	if err != nil {
		return s, err
	}
	s.Gateway, s.Join, s.Socket = true, true, getenv("PERRY_SOCKET")
	if s.Socket == "" {
		s.Socket = gatewaySocket
	}
	if !filepath.IsAbs(s.Socket) {
		return s, fmt.Errorf("PERRY_SOCKET is %q; give an absolute path.", s.Socket)
	}
	s.WayOut, s.Places = getenv("PERRY_WAY_OUT"), getenv("PERRY_PLACES")
	for name, path := range map[string]string{"PERRY_WAY_OUT": s.WayOut, "PERRY_PLACES": s.Places} {
		if path != "" && !filepath.IsAbs(path) {
			return s, fmt.Errorf("%s is %q; give an absolute path.", name, path)
		}
	}
	return s, nil
}

// runGateway is mode gateway: a node of the tailnet that needs no right on its machine (tsnet's own network stack), and
// three doors to the control plane, and a way out for it.
func runGateway(ctx context.Context, getenv func(string) string, stdout, stderr io.Writer) error {
	s, err := readGatewaySettings(getenv)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: s.LogLevel}))
	report := newReporter(stdout, Snapshot{State: stateStarting, Hostname: s.Hostname})
	if err := gatewayOnTailnet(ctx, s, report, log); err != nil {
		report.Update(func(snap *Snapshot) { snap.State, snap.Error = stateFailed, err.Error() })
		return err
	}
	return nil
}

func gatewayOnTailnet(ctx context.Context, s Settings, report *Reporter, log *slog.Logger) error {
	reenrol := make(chan os.Signal, 1)
	signal.Notify(reenrol, syscall.SIGHUP)
	defer signal.Stop(reenrol)
	lock, err := lockState(s.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	s.prepareEnvironment()
	node, err := startNode(s, nil, report, log)
	if err != nil {
		return err
	}
	defer node.Close()
	stop, err := serveGateway(ctx, node, s.Socket, log)
	if err != nil {
		return err
	}
	defer stop()
	if s.WayOut != "" {
		shut, err := serveWayOut(ctx, node, s.WayOut, s.Places, log)
		if err != nil {
			// The doors matter more.
			log.Warn(err.Error())
			report.Update(func(snap *Snapshot) { snap.Door = err.Error() })
		} else {
			defer shut()
		}
	}
	go giveMemoryBack(ctx)
	if err := node.Run(ctx, reenrol); err != nil {
		return fmt.Errorf("The gateway's tailnet node ended: %w.", err)
	}
	return nil
}

// serveGateway opens the doors: 80 and 7391 for everything, 443 as soon as the tailnet has a certificate for this node,
// 18789 for wakes alone. The returned function ends all of it.
func serveGateway(ctx context.Context, node *Node, socket string, log *slog.Logger) (func(), error) {
	proxy := newProxy(node, socket, log)
	connections := newBound(mostConnections, mostConnectionsOfOne)
	var servers []*http.Server
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	stop := func() {
		cancel()
		ending, done := context.WithTimeout(context.Background(), shutdownTimeout)
		defer done()
		for _, server := range servers {
			if server.Shutdown(ending) != nil {
				server.Close()
			}
		}
		running.Wait()
	}
	serve := func(handler http.Handler) *http.Server {
		server := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       keepAliveTimeout,
			MaxHeaderBytes:    mostHeaderBytes,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
		servers = append(servers, server)
		return server
	}
	everything, secure := serve(proxy), serve(proxy)
	for port, server := range map[string]*http.Server{":80": everything, ":7391": everything, ":18789": serve(wakesOnly(proxy))} {
		listener, err := node.server.Listen("tcp", port)
		if err != nil {
			stop()
			return nil, fmt.Errorf("The gateway cannot listen on port %s of the tailnet (%w); restart it.", port[1:], err)
		}
		running.Go(func() { _ = server.Serve(connections.around(listener)) })
	}
	running.Go(func() {
		listener := listenWithCertificate(ctx, node, log)
		if listener != nil {
			_ = secure.Serve(tls.NewListener(connections.around(listener), &tls.Config{
				MinVersion:     tls.VersionTLS12,
				NextProtos:     []string{"http/1.1"}, // WebSockets are not passed on over HTTP/2
				GetCertificate: node.client.GetCertificate,
			}))
		}
	})
	return stop, nil
}

// listenWithCertificate waits until the tailnet has certificates for this node, and returns a listener on 443; nil when
// the context ends before.
func listenWithCertificate(ctx context.Context, node *Node, log *slog.Logger) net.Listener {
	ticker := time.NewTicker(certificateEvery)
	defer ticker.Stop()
	for {
		if domains := node.server.CertDomains(); len(domains) > 0 {
			listener, err := node.server.Listen("tcp", ":443")
			if err == nil {
				log.Info("serving https", "domains", domains)
				return listener
			}
			log.Warn("port 443 cannot be listened on", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Caller is all that the tailnet knows of who sent a request, as the control plane reads it.
type Caller struct {
	Login        string                       `json:"login"`  // empty for a tagged node, which acts for no person
	Node         string                       `json:"node"`   // full name without the last dot
	NodeID       string                       `json:"nodeId"` // the coordinator's stable id
	Tags         []string                     `json:"tags"`
	Addresses    []netip.Addr                 `json:"addresses"` // all that the node has; WireGuard proves the sender has one
	Capabilities map[string][]json.RawMessage `json:"capabilities"`
}

// Caller asks who holds the address that a connection came from.
func (n *Node) Caller(ctx context.Context, from string) (Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, whoisTimeout)
	defer cancel()
	who, err := n.client.WhoIs(ctx, from)
	if err != nil {
		return Caller{}, err
	}
	if who.Node == nil || who.UserProfile == nil {
		return Caller{}, errors.New("no node")
	}
	caller := Caller{
		Node:         strings.TrimSuffix(who.Node.Name, "."),
		NodeID:       string(who.Node.StableID),
		Tags:         append([]string{}, who.Node.Tags...),
		Addresses:    []netip.Addr{},
		Capabilities: ownCapabilities(who.CapMap),
	}
	if !who.Node.IsTagged() {
		caller.Login = who.UserProfile.LoginName
	}
	for _, prefix := range who.Node.Addresses {
		caller.Addresses = append(caller.Addresses, prefix.Addr())
	}
	return caller, nil
}

// ownCapabilities are those that a policy gives for programs like ours, if they are not too many for a header.
func ownCapabilities(granted tailcfg.PeerCapMap) map[string][]json.RawMessage {
	kept := map[string][]json.RawMessage{}
	size := 0
	for name, values := range granted {
		text := strings.TrimPrefix(strings.TrimPrefix(string(name), "https://"), "http://")
		if strings.HasPrefix(text, foreignCapabilityStart) {
			continue
		}
		size += len(name)
		kept[string(name)] = []json.RawMessage{}
		for _, value := range values {
			size += len(value)
			kept[string(name)] = append(kept[string(name)], json.RawMessage(value))
		}
	}
	if size > mostCapabilitiesBytes {
		return map[string][]json.RawMessage{}
	}
	return kept
}
