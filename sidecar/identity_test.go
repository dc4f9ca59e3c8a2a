package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type peers map[string]Peer

func (p peers) WhoIs(_ context.Context, addr netip.Addr) (Peer, error) {
	if peer, ok := p[addr.String()]; ok {
		return peer, nil
	}
	return Peer{}, errors.New("unknown")
}

func testKeeper(status Snapshot) Doorkeeper {
	return Doorkeeper{
		Owners:  []string{"owner"},
		Refused: []netip.Addr{netip.MustParseAddr("100.64.0.7")},
		Names: peers{
			"100.64.0.1":        {Login: "owner", Node: "me"},
			"100.64.0.2":        {Login: "owner", Node: "laptop.perry.internal"},
			"fd7a:115c:a1e0::2": {Login: "owner", Node: "laptop.perry.internal"},
			"100.64.0.3":        {Login: "tagged-devices", Node: "beta", Tagged: true},
			"100.64.0.4":        {Login: "owner", Node: "tagged-by-owner", Tagged: true},
			"100.64.0.5":        {Login: "guest", Node: "phone"},
			"100.64.0.6":        {Node: "nobody"},
			"100.64.0.7":        {Login: "owner", Node: "agent-machine"},
			"10.9.0.1":          {Login: "owner", Node: "bridge"},
		},
		Status: func() Snapshot { return status },
	}
}

var runningStatus = Snapshot{Border: true, TUN: true, State: stateRunning, IPs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}}

func TestWhoMaySSHWithoutAKey(t *testing.T) {
	keeper := testKeeper(runningStatus)
	for _, addr := range []string{"100.64.0.2", "fd7a:115c:a1e0::2", "::ffff:100.64.0.2"} {
		if peer, err := keeper.Admit(t.Context(), addr, "workspace"); err != nil || peer.Login != "owner" || peer.Node != "laptop.perry.internal" {
			t.Errorf("the owner's device %s: %v, %v", addr, peer, err)
		}
	}
	for what, try := range map[string]struct{ addr, user string }{
		"root":                 {"100.64.0.2", "root"},
		"no user":              {"100.64.0.2", ""},
		"a tagged node":        {"100.64.0.3", "workspace"},
		"an owner's tagged":    {"100.64.0.4", "workspace"},
		"another user":         {"100.64.0.5", "workspace"},
		"a node of nobody":     {"100.64.0.6", "workspace"},
		"the agent machine":    {"100.64.0.7", "workspace"},
		"an unknown node":      {"100.64.0.99", "workspace"},
		"the workspace itself": {"100.64.0.1", "workspace"},
		"the bridge":           {"10.9.0.1", "workspace"},
		"loopback":             {"127.0.0.1", "workspace"},
		"a host name":          {"laptop", "workspace"},
		"a zone":               {"fd7a:115c:a1e0::2%eth0", "workspace"},
		"nothing":              {"", "workspace"},
	} {
		if peer, err := keeper.Admit(t.Context(), try.addr, try.user); err == nil {
			t.Errorf("%s was let in as %v", what, peer)
		}
	}
}

func TestNobodyIsVouchedForInDoubt(t *testing.T) {
	for what, change := range map[string]func(*Snapshot){
		"without TUN":     func(s *Snapshot) { s.TUN = false },
		"without border":  func(s *Snapshot) { s.Border = false },
		"while joining":   func(s *Snapshot) { s.State = stateJoining },
		"after a failure": func(s *Snapshot) { s.State = stateFailed },
	} {
		status := runningStatus
		change(&status)
		if _, err := testKeeper(status).Admit(t.Context(), "100.64.0.2", "workspace"); err == nil {
			t.Errorf("%s the owner was let in", what)
		}
	}
}

func TestWhoisSocket(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	for range 2 { // the second time over what the first left
		stop, err := serveWhois(folder, testKeeper(runningStatus), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	path := filepath.Join(folder, "whois.sock")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	for _, try := range []struct {
		method, path, addr, user string
		status                   int
		body                     string
	}{
		{http.MethodGet, "/ssh", "100.64.0.2", "workspace", http.StatusOK, `{"login":"owner","node":"laptop.perry.internal"}`},
		{http.MethodGet, "/ssh", "100.64.0.3", "workspace", http.StatusForbidden, `"reason"`},
		{http.MethodGet, "/ssh", "", "", http.StatusForbidden, `"reason"`},
		{http.MethodPost, "/ssh", "100.64.0.2", "workspace", http.StatusNotFound, ""},
		{http.MethodGet, "/localapi/v0/status", "", "", http.StatusNotFound, ""},
		{http.MethodGet, "/", "", "", http.StatusNotFound, ""},
	} {
		query := url.Values{"addr": {try.addr}, "user": {try.user}}
		request, err := http.NewRequestWithContext(t.Context(), try.method, "http://whois"+try.path+"?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != try.status || !contains(string(body), try.body) {
			t.Errorf("%+v: %d %s", try, response.StatusCode, body)
		}
	}
}

// waitingPeers knows everybody, once it is told to answer.
type waitingPeers struct {
	asked  chan struct{}
	answer chan struct{}
}

func (p waitingPeers) WhoIs(context.Context, netip.Addr) (Peer, error) {
	p.asked <- struct{}{}
	<-p.answer
	return Peer{Login: "owner", Node: "laptop"}, nil
}

// A program of the workspace may open as many connections as it likes; those above the bound cost the sidecar nothing.
func TestWhoisSocketIsBounded(t *testing.T) {
	folder := t.TempDir()
	names := waitingPeers{make(chan struct{}, mostAskers+2), make(chan struct{})}
	keeper := testKeeper(runningStatus)
	keeper.Names = names
	stop, err := serveWhois(folder, keeper, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ask := func() net.Conn {
		conn, err := net.Dial("unix", filepath.Join(folder, "whois.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET /ssh?addr=100.64.0.2&user=workspace HTTP/1.0\r\n\r\n")
		return conn
	}
	answer := func(conn net.Conn) string {
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		text, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "no answer, and no end"
		}
		return string(text)
	}
	var held []net.Conn
	for range mostAskers {
		held = append(held, ask())
		<-names.asked
	}
	if said := answer(ask()); said != "" {
		t.Errorf("one more was answered %q", said)
	}
	close(names.answer)
	for _, conn := range held {
		if said := answer(conn); !contains(said, "200 OK") {
			t.Errorf("one that waited was answered %q", said)
		}
	}
	last := make(chan string)
	go func() { last <- answer(ask()) }()
	<-names.asked
	if said := <-last; !contains(said, "200 OK") {
		t.Errorf("the next one was answered %q", said)
	}
}
