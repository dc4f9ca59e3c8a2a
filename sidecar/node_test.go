package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/net/netns"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"
)

// coordinator is Tailscale's in-process control server, which can go away and come back at the same address.
type coordinator struct {
	t       *testing.T
	control *testcontrol.Server
	address string
	mu      sync.Mutex
	server  *httptest.Server
}

func newCoordinator(t *testing.T) *coordinator {
	t.Helper()
	netns.SetEnabled(false) // everything is on loopback, where marked sockets find no route
	t.Cleanup(func() { netns.SetEnabled(true) })
	c := &coordinator{t: t, control: &testcontrol.Server{
		DERPMap:        integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1"),
		DNSConfig:      &tailcfg.DNSConfig{Proxied: true},
		MagicDNSDomain: "perry.internal",
		Logf:           logger.Discard,
	}}
	c.appear()
	t.Cleanup(c.vanish)
	return c
}

func (c *coordinator) appear() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := "127.0.0.1:0"
	if c.address != "" {
		at = c.address
	}
	listener, err := net.Listen("tcp", at)
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = listener.Addr().String()
	c.server = httptest.NewUnstartedServer(c.control)
	c.server.Listener.Close()
	c.server.Listener = listener
	c.control.HTTPTestServer = c.server
	c.server.Start()
}

func (c *coordinator) vanish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		c.server.CloseClientConnections()
		c.server.Listener.Close()
		go c.server.Close() // it would wait for the nodes' long polls
		c.server = nil
	}
}

// sidecar is a node as mode workspace runs it, without a TUN device.
type sidecar struct {
	t        *testing.T
	settings Settings
	report   *Reporter
	node     *Node
	reenrol  chan os.Signal
	stop     func()
}

func (c *coordinator) settings(name string) Settings {
	dir := c.t.TempDir()
	return Settings{
		Hostname: name, Join: true, ControlURL: "http://" + c.address, StateDir: dir, RunDir: filepath.Join(dir, "run"),
		WorkerPort: 7392, SSHPort: 22, ProxyAddress: "127.0.0.1:0",
	}
}

func giveKey(t *testing.T, s Settings, key string) {
	t.Helper()
	if err := os.WriteFile(s.keyFile(), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func startSidecar(t *testing.T, s Settings) *sidecar {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := &sidecar{t: t, settings: s, reenrol: make(chan os.Signal, 1)}
	c.report = newReporter(&bytes.Buffer{}, Snapshot{State: stateStarting, Hostname: s.Hostname, Border: true})
	node, err := startNode(s, nil, c.report, log)
	if err != nil {
		t.Fatal(err)
	}
	c.node = node
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := node.Run(ctx, c.reenrol); err != nil {
			t.Error(err)
		}
	})
	c.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		node.Close()
		<-node.closed
	})
	t.Cleanup(c.stop)
	return c
}

// until waits for a snapshot.
func (c *sidecar) until(what string, wanted func(Snapshot) bool) Snapshot {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		last := c.report.Last()
		if wanted(last) {
			return last
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not %s: %+v", what, last)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func joined(s Snapshot) bool { return s.State == stateRunning && s.Online }

func TestJoinAndStay(t *testing.T) {
	c := newCoordinator(t)
	c.control.RequireAuthKey = "tskey-good"
	settings := c.settings("alpha")
	giveKey(t, settings, "tskey-good")
	first := startSidecar(t, settings)
	was := first.until("joined", joined)
	if was.DNSName != "alpha.perry.internal" || len(was.IPs) != 2 || was.NodeID == "" || was.TUN || was.Error != "" {
		t.Errorf("%+v", was)
	}
	if _, err := os.Stat(settings.keyFile()); !os.IsNotExist(err) {
		t.Error("the used key is still there")
	}
	first.stop()

	c.control.RequireAuthKey = "" // else testcontrol wants it from known nodes too
	// No key is left, and none is needed. A wrong one that came meanwhile does no harm.
	giveKey(t, settings, "tskey-wrong")
	again := startSidecar(t, settings).until("joined again", joined)
	if again.NodeID != was.NodeID || again.IPs[0] != was.IPs[0] {
		t.Errorf("it was %s with %v, and is %s with %v", was.NodeID, was.IPs, again.NodeID, again.IPs)
	}
	if n := c.control.NumNodes(); n != 1 {
		t.Errorf("there are %d nodes", n)
	}
}

func TestWrongKeyThenRightKey(t *testing.T) {
	c := newCoordinator(t)
	c.control.RequireAuthKey = "tskey-good"
	settings := c.settings("alpha")
	giveKey(t, settings, "tskey-wrong")
	s := startSidecar(t, settings)
	failed := s.until("refused", func(s Snapshot) bool { return s.State == stateFailed })
	if !contains(failed.Error, "does not know the auth key") || contains(failed.Error, "tskey-") {
		t.Error(failed.Error)
	}
	giveKey(t, settings, "tskey-good")
	s.reenrol <- syscall.SIGHUP
	s.until("joined", joined)
}

func TestNoKey(t *testing.T) {
	c := newCoordinator(t)
	c.control.RequireAuth = true
	settings := c.settings("alpha")
	s := startSidecar(t, settings)
	waits := s.until("waiting for a key", func(s Snapshot) bool { return s.State == stateNeedsKey })
	if waits.Error == "" {
		t.Error("it does not say what to do")
	}
	if zones := s.node.Zones(); zones != nil {
		t.Errorf("it answers for %v already", zones)
	}
	s.reenrol <- syscall.SIGHUP // without a key: nothing happens
	time.Sleep(100 * time.Millisecond)
	if last := s.report.Last(); last.State != stateNeedsKey {
		t.Errorf("%+v", last)
	}
}

func TestEnrolAgainInProcess(t *testing.T) {
	c := newCoordinator(t)
	settings := c.settings("alpha")
	giveKey(t, settings, "tskey-one")
	s := startSidecar(t, settings)
	was := s.until("joined", joined)
	giveKey(t, settings, "tskey-two")
	s.reenrol <- syscall.SIGHUP
	s.until("joined with the new key", func(now Snapshot) bool {
		_, err := os.Stat(settings.keyFile())
		return joined(now) && os.IsNotExist(err)
	})
	if now := s.report.Last(); now.NodeID != was.NodeID || now.IPs[0] != was.IPs[0] {
		t.Errorf("it was %s with %v, and is %s with %v", was.NodeID, was.IPs, now.NodeID, now.IPs)
	}
}

func TestCoordinatorAwayAtFirst(t *testing.T) {
	c := newCoordinator(t)
	settings := c.settings("alpha")
	giveKey(t, settings, "tskey-one")
	c.vanish()
	s := startSidecar(t, settings)
	waits := s.until("offline", func(s Snapshot) bool { return s.State == stateOffline })
	if !contains(waits.Error, settings.ControlURL) {
		t.Error(waits.Error)
	}
	if _, err := os.Stat(settings.keyFile()); err != nil {
		t.Error("the key is gone before its use:", err)
	}
	c.appear()
	s.until("joined", joined)
}

func TestTwoSidecars(t *testing.T) {
	c := newCoordinator(t)
	alphaSettings, betaSettings := c.settings("alpha"), c.settings("beta")
	giveKey(t, alphaSettings, "tskey-one")
	giveKey(t, betaSettings, "tskey-two")
	alpha, beta := startSidecar(t, alphaSettings), startSidecar(t, betaSettings)
	a := alpha.until("joined", joined)
	b := beta.until("joined", joined)
	alpha.until("acquainted", func(Snapshot) bool {
		peer, err := alpha.node.WhoIs(t.Context(), b.IPs[0])
		return err == nil && peer.Node == "beta.perry.internal" && peer.Login != "" && !peer.Tagged
	})
	// Else a first handshake is dropped, and WireGuard waits 5 s for the next.
	beta.until("acquainted", func(Snapshot) bool {
		_, err := beta.node.WhoIs(t.Context(), a.IPs[0])
		return err == nil
	})
	if _, err := alpha.node.WhoIs(t.Context(), netip.MustParseAddr("100.99.99.99")); err == nil {
		t.Error("it knows an address that nobody has")
	}

	t.Run("names", func(t *testing.T) {
		for name, want := range map[string]int{"beta": 1, "beta.perry.internal": 1, "gamma.perry.internal": 0} {
			packed, err := alpha.node.Query(t.Context(), name, dnsmessage.TypeA)
			if err != nil {
				t.Fatal(err)
			}
			var answer dnsmessage.Message
			if err := answer.Unpack(packed); err != nil || len(answer.Answers) != want {
				t.Errorf("%s: %v, %+v", name, err, answer)
			}
		}
		if within, _ := placeOf("beta.perry.internal", alpha.node.Zones()); !within {
			t.Errorf("the tailnet's suffix is not among %v", alpha.node.Zones())
		}
	})

	t.Run("ports without TUN", func(t *testing.T) {
		// 127.0.0.2 plays beta's address on its bridge, 127.0.0.1 is loopback.
		stop, err := forwardWithoutTUN(beta.node, []netip.Addr{netip.MustParseAddr("127.0.0.2")}, betaSettings, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		tcp := echoTCP(t, "127.0.0.2:0")
		loopback := echoTCP(t, "127.0.0.1:0")
		udp := echoUDP(t, "127.0.0.2:0")
		if got := converse(t, alpha, "tcp", netip.AddrPortFrom(b.IPs[0], tcp)); got != "hello" {
			t.Errorf("TCP: %q", got)
		}
		if got := converse(t, alpha, "udp", netip.AddrPortFrom(b.IPs[0], udp)); got != "hello" {
			t.Errorf("UDP: %q", got)
		}
		if got := converse(t, alpha, "tcp", netip.AddrPortFrom(b.IPs[0], loopback)); got != "" {
			t.Errorf("loopback was reached: %q", got)
		}
		if got := converse(t, alpha, "tcp", netip.AddrPortFrom(b.IPs[0], betaSettings.WorkerPort)); got != "" {
			t.Errorf("the worker was reached: %q", got)
		}
		// The earlier conversations give their places back a moment after they are over.
		for range mostTCPOf {
			for deadline := time.Now().Add(20 * time.Second); !held(t, alpha, "tcp", netip.AddrPortFrom(b.IPs[0], tcp)); {
				if time.Now().After(deadline) {
					t.Fatal("ordinary use is refused")
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		if held(t, alpha, "tcp", netip.AddrPortFrom(b.IPs[0], tcp)) {
			t.Error("one node may hold any number of connections")
		}
		if got := converse(t, alpha, "udp", netip.AddrPortFrom(b.IPs[0], udp)); got != "hello" {
			t.Errorf("UDP beside as much TCP as there may be: %q", got)
		}
	})
}

func echoTCP(t *testing.T, address string) uint16 {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

func echoUDP(t *testing.T, address string) uint16 {
	t.Helper()
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	go func() {
		defer close(done)
		buffer := make([]byte, 2048)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(buffer[:n], from)
		}
	}()
	return uint16(socket.LocalAddr().(*net.UDPAddr).Port)
}

// converse says hello over the tailnet, and returns what comes back, or "".
func converse(t *testing.T, from *sidecar, network string, to netip.AddrPort) string {
	t.Helper()
	conn, said := hello(t, from, network, to)
	if conn != nil {
		conn.Close()
	}
	return said
}

// held is converse with a connection that is kept until the test is over; false where it is refused.
func held(t *testing.T, from *sidecar, network string, to netip.AddrPort) bool {
	t.Helper()
	conn, said := hello(t, from, network, to)
	if conn != nil {
		t.Cleanup(func() { conn.Close() })
	}
	return said == "hello"
}

func hello(t *testing.T, from *sidecar, network string, to netip.AddrPort) (net.Conn, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	conn, err := from.node.server.Dial(ctx, network, to.String())
	if err != nil {
		return nil, ""
	}
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return conn, ""
	}
	buffer := make([]byte, 16)
	n, err := conn.Read(buffer)
	if err != nil {
		return conn, ""
	}
	return conn, string(buffer[:n])
}

func TestProbe(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	n := &Node{settings: Settings{ControlURL: server.URL}}
	if why := n.probe(t.Context()); why != "" {
		t.Errorf("any answer is an answer, not %q", why)
	}
	server.Close()
	if why := n.probe(t.Context()); !contains(why, "refused") {
		t.Errorf("nobody is there: %q", why)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAPlaceOnAnotherTailnetIsGivenUp(t *testing.T) {
	first, second := newCoordinator(t), newCoordinator(t)
	settings := first.settings("alpha")
	settings.TailnetID = firstTailnet
	c := startSidecar(t, settings)
	was := c.until("joined", joined)
	c.stop()
	// As a version left it that knew of one tailnet alone.
	if err := os.WriteFile(filepath.Join(settings.StateDir, "enrolled"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	key := nodeKeys(first)

	again := startSidecar(t, settings)
	if now := again.until("joined again", joined); now.NodeID != was.NodeID {
		t.Errorf("the same tailnet, and another place: %s, was %s", now.NodeID, was.NodeID)
	}
	again.stop()

	settings.TailnetID, settings.ControlURL = "headscale", "http://"+second.address
	other := startSidecar(t, settings)
	other.until("joined elsewhere", joined)
	if now := nodeKeys(second); now[0] == key[0] {
		t.Error("it came with the key of the tailnet before")
	}
	other.stop()
	if noted, _ := os.ReadFile(filepath.Join(settings.StateDir, "enrolled")); string(noted) != "headscale" {
		t.Errorf("noted %q", noted)
	}
}

func nodeKeys(c *coordinator) []string {
	var keys []string
	for _, node := range c.control.AllNodes() {
		keys = append(keys, node.Key.String())
	}
	return keys
}

func TestANodeWithoutItsTagLeaves(t *testing.T) {
	c := newCoordinator(t)
	settings := c.settings("alpha")
	settings.RequiredTag = "tag:perry-workspace"
	giveKey(t, settings, "tskey-of-a-person")
	s := startSidecar(t, settings)
	last := s.until("failed", func(s Snapshot) bool { return s.State == stateFailed })
	if !contains(last.Error, "does not carry tag:perry-workspace") || len(last.IPs) != 0 || last.NodeID != "" {
		t.Errorf("%+v", last)
	}
	for _, name := range []string{"auth-key", "enrolled"} {
		if _, err := os.Stat(filepath.Join(settings.StateDir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there", name)
		}
	}
	time.Sleep(3 * tickWhileJoining / 2)
	if now := s.report.Last(); now.State != stateFailed {
		t.Errorf("it came back: %+v", now)
	}
}
