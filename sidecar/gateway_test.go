package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

func TestGatewaySettings(t *testing.T) {
	s, err := readGatewaySettings(environment(nil))
	if err != nil || s.Hostname != "perry" || s.Socket != gatewaySocket || !s.Join || !s.Gateway {
		t.Errorf("%+v, %v", s, err)
	}
	for name, value := range map[string]string{"PERRY_SOCKET": "control.sock", "PERRY_HOSTNAME": "-", "PERRY_CONTROL_URL": "x", "PERRY_WAY_OUT": "x", "PERRY_PLACES": "x"} {
		if _, err := readGatewaySettings(environment(map[string]string{name: value})); err == nil || !contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if contains(s.remedy(), "perry restart") || !contains(Settings{}.remedy(), "perry restart") {
		t.Error("the remedy is the other's")
	}
}

func TestCapabilitiesOfOthersStayOutside(t *testing.T) {
	value := []tailcfg.RawMessage{`{"role":"admin"}`}
	kept := ownCapabilities(tailcfg.PeerCapMap{
		"example.com/cap/perry": value, "tailscale.com/cap/drive": value, "https://tailscale.com/cap/is-admin": value,
	})
	if len(kept) != 1 || string(kept["example.com/cap/perry"][0]) != `{"role":"admin"}` {
		t.Errorf("%v", kept)
	}
	long := []tailcfg.RawMessage{tailcfg.RawMessage(`"` + strings.Repeat("x", mostCapabilitiesBytes) + `"`)}
	if kept := ownCapabilities(tailcfg.PeerCapMap{"example.com/cap/perry": long}); len(kept) != 0 {
		t.Error("they are too many for a header, and kept")
	}
}

// at asks a gateway on the tailnet.
func (c *sidecar) at(method, url, host string) (*http.Response, error) {
	client := http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.node.server.Dial(ctx, network, address)
		},
	}}
	request, err := http.NewRequest(method, url, strings.NewReader("{}"))
	if err != nil {
		c.t.Fatal(err)
	}
	request.Host = host
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	whole, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(whole))
	return response, err
}

func TestGatewayOnTheTailnet(t *testing.T) {
	c := newCoordinator(t)
	c.control.SetGlobalAppCaps(tailcfg.PeerCapMap{"example.com/cap/perry": {`{"role":"admin"}`}})
	settings := c.settings("perry")
	settings.Gateway = true
	settings.Socket = filepath.Join(t.TempDir(), "control.sock")
	giveKey(t, settings, "tskey-one")
	gateway := startSidecar(t, settings)
	stop, err := serveGateway(t.Context(), gateway.node, settings.Socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	laptopSettings, ciSettings := c.settings("laptop"), c.settings("ci")
	giveKey(t, laptopSettings, "tskey-two")
	giveKey(t, ciSettings, "tskey-three")
	laptop, ci := startSidecar(t, laptopSettings), startSidecar(t, ciSettings)
	g, l, other := gateway.until("joined", joined), laptop.until("joined", joined), ci.until("joined", joined)
	for _, node := range c.control.AllNodes() {
		if node.Hostinfo.Hostname() == "ci" {
			node.Tags = []string{"tag:ci"}
			c.control.UpdateNode(node)
		}
	}
	acquainted := func(from *sidecar, with netip.Addr, wanted func(Peer) bool) {
		from.until("acquainted", func(Snapshot) bool {
			peer, err := from.node.WhoIs(t.Context(), with)
			return err == nil && wanted(peer)
		})
	}
	anyone := func(Peer) bool { return true }
	acquainted(gateway, l.IPs[0], anyone)
	acquainted(gateway, other.IPs[0], func(peer Peer) bool { return peer.Tagged })
	acquainted(laptop, g.IPs[0], anyone)
	acquainted(ci, g.IPs[0], anyone)
	base := "http://" + g.IPs[0].String()

	response, err := laptop.at("GET", base+"/health", "perry")
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusBadGateway || sentenceOf(t, response) != awaySentence {
		t.Errorf("with nobody behind it: %d", response.StatusCode)
	}
	plane := &controlPlane{t: t, socket: settings.Socket}
	plane.appear()
	defer plane.vanish()

	for _, port := range []string{"80", "7391"} {
		response, err := laptop.at("POST", base+":"+port+"/rpc/auth/whoami", "perry")
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(port, err, response)
		}
		caller := said(t, plane.last())
		if caller.Node != "laptop.perry.internal" || caller.NodeID != l.NodeID || !contains(caller.Login, "@") || len(caller.Tags) != 0 {
			t.Errorf("the laptop is said to be %+v", caller)
		}
		if !slices.Equal(caller.Addresses, l.IPs) || len(caller.Capabilities["example.com/cap/perry"]) != 1 {
			t.Errorf("the laptop is said to be %+v", caller)
		}
	}
	if _, err := ci.at("POST", base+"/", "perry"); err != nil {
		t.Fatal(err)
	}
	if caller := said(t, plane.last()); caller.Login != "" || !slices.Equal(caller.Tags, []string{"tag:ci"}) || caller.NodeID != other.NodeID {
		t.Errorf("a tagged node is said to be %+v", caller)
	}

	if response, err := laptop.at("POST", base+":18789/hooks/wake", "perry"); err != nil || response.StatusCode != http.StatusOK {
		t.Error(response, err)
	}
	if response, err := laptop.at("POST", base+":18789/rpc/workspaces/list", "perry"); err != nil || response.StatusCode != http.StatusNotFound {
		t.Error(response, err)
	}
	if _, err := laptop.at("GET", base+":22/", "perry"); err == nil {
		t.Error("a port that nobody opened answers")
	}
	// testcontrol says that there are certificates for every node.
	gateway.until("serving https", func(Snapshot) bool {
		conn, err := laptop.node.server.Dial(t.Context(), "tcp", net.JoinHostPort(g.IPs[0].String(), "443"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func TestGatewayEndsWhereItsStateIsTaken(t *testing.T) {
	s := Settings{Hostname: "perry", StateDir: t.TempDir(), Gateway: true}
	lock, err := lockState(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	err = gatewayOnTailnet(t.Context(), s, newReporter(io.Discard, Snapshot{}), slog.New(slog.DiscardHandler))
	if err == nil || !contains(err.Error(), "Another sidecar") {
		t.Error(err)
	}
	if _, err := os.Stat(s.nodeDir()); err == nil {
		t.Error("it began all the same")
	}
}
