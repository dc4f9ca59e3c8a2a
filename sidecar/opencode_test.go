package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const doorPassword = "a-password-that-nobody-has"

// openCode stands in for the workspace's server: it takes one password, and notes what comes.
type openCode struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
	next chan string // events that it sends as they come
}

func newOpenCode(t *testing.T) *openCode {
	t.Helper()
	o := &openCode{next: make(chan string)}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.last = r.Clone(context.Background())
		o.mu.Unlock()
		if user, password, ok := r.BasicAuth(); !ok || user != "opencode" || password != doorPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="opencode"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/event":
			w.Header().Set("Content-Type", "text/event-stream")
			for event := range o.next {
				fmt.Fprintf(w, "data: %s\n\n", event)
				_ = http.NewResponseController(w).Flush()
			}
		case "/pty":
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(conn, buffered)
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *openCode) seen() *http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func passwordFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "opencode-password")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// asked is what a device of this address is answered, without a network in between.
func asked(t *testing.T, door OpenCodeDoor, from string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(door.handler())
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	inner := server.Config.Handler
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = from
		inner.ServeHTTP(w, r)
	})
	server.Start()
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/session?directory=x", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "alpha:4096"
	if change != nil {
		change(request)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response, string(body)
}

func testDoor(t *testing.T, home, password string) OpenCodeDoor {
	status := runningStatus
	status.TUN, status.DNSName = false, "alpha.perry.internal"
	return OpenCodeDoor{
		Keeper: testKeeper(status), Hostname: "alpha", Home: home, Password: passwordFile(t, password),
		Log: slog.New(slog.DiscardHandler),
	}
}

func TestTheDoorAddsThePasswordAndTakesAwayWhatTheCallerSaid(t *testing.T) {
	server := newOpenCode(t)
	door := testDoor(t, server.Listener.Addr().String(), doorPassword+"\n")
	response, body := asked(t, door, "100.64.0.2:5", func(r *http.Request) {
		r.SetBasicAuth("opencode", "guessed")
		r.Header.Set("Cookie", "of=another port")
		r.Header.Set("Proxy-Authorization", "Basic x")
		r.Header.Set("Perry-Identity", "forged")
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		r.Header.Set("Origin", "http://alpha:4096")
	})
	if response.StatusCode != http.StatusOK || body != "hello" {
		t.Fatal(response.StatusCode, body)
	}
	seen := server.seen()
	if seen.URL.String() != "/session?directory=x" || seen.Host != door.Home || seen.Header.Get("Origin") != "http://"+door.Home {
		t.Error(seen.URL, seen.Host, seen.Header)
	}
	for _, name := range []string{"Cookie", "Proxy-Authorization", "Perry-Identity", "X-Forwarded-For"} {
		if seen.Header.Get(name) != "" {
			t.Errorf("%s came through: %q", name, seen.Header.Get(name))
		}
	}
}

func TestWhoStaysOutside(t *testing.T) {
	server := newOpenCode(t)
	door := testDoor(t, server.Listener.Addr().String(), doorPassword)
	for what, from := range map[string]string{
		"a tagged node": "100.64.0.3:5", "another user": "100.64.0.5:5", "the agent's machine": "100.64.0.7:5",
		"the workspace itself": "100.64.0.1:5", "an unknown node": "100.64.0.99:5", "the bridge": "10.9.0.1:5", "loopback": "127.0.0.1:5",
	} {
		if response, body := asked(t, door, from, nil); response.StatusCode != http.StatusForbidden || !strings.HasSuffix(body, ".\n") {
			t.Errorf("%s: %d %s", what, response.StatusCode, body)
		}
	}
	for what, change := range map[string]func(*http.Request){
		"a name that leads here":   func(r *http.Request) { r.Host = "evil.example:4096" },
		"another port":             func(r *http.Request) { r.Host = "alpha:3000" },
		"no port":                  func(r *http.Request) { r.Host = "alpha" },
		"another address":          func(r *http.Request) { r.Host = "100.64.0.9:4096" },
		"another page":             func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"a page of another port":   func(r *http.Request) { r.Header.Set("Origin", "http://alpha:3000") },
		"a page by https":          func(r *http.Request) { r.Header.Set("Origin", "https://alpha:4096") },
		"a page without an origin": func(r *http.Request) { r.Header.Set("Origin", "null") },
		"another site's request":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"another site's image": func(r *http.Request) {
			r.Method = http.MethodGet
			r.Header.Set("Sec-Fetch-Site", "same-site")
			r.Header.Set("Sec-Fetch-Mode", "no-cors")
		},
	} {
		if response, body := asked(t, door, "100.64.0.2:5", change); response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, response.StatusCode, body)
		}
	}
	if server.seen() != nil {
		t.Error("a refused request reached the server")
	}
	for what, change := range map[string]func(*http.Request){
		"its address":   func(r *http.Request) { r.Host = "100.64.0.1:4096" },
		"its full name": func(r *http.Request) { r.Host = "Alpha.perry.internal:4096" },
		"a link": func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		},
	} {
		if response, body := asked(t, door, "100.64.0.2:5", change); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", what, response.StatusCode, body)
		}
	}
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	server := newOpenCode(t)
	home := server.Listener.Addr().String()
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused.Close()
	missing := testDoor(t, home, "x")
	missing.Password += "-elsewhere"
	for what, try := range map[string]struct {
		door OpenCodeDoor
		says string
	}{
		"no server":        {testDoor(t, unused.Addr().String(), doorPassword), "OpenCode's server does not answer in alpha"},
		"another password": {testDoor(t, home, "old"), "takes another password"},
		"an empty file":    {testDoor(t, home, "\n"), "has no password for OpenCode yet"},
		"no file":          {missing, "has no password for OpenCode yet"},
	} {
		response, body := asked(t, try.door, "100.64.0.2:5", nil)
		if response.StatusCode != http.StatusBadGateway || !contains(body, try.says) || response.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %d %s", what, response.StatusCode, body)
		}
	}
}

func TestTheDoorOnTheTailnet(t *testing.T) {
	c := newCoordinator(t)
	alphaSettings, laptopSettings, guestSettings := c.settings("alpha"), c.settings("laptop"), c.settings("guest")
	giveKey(t, alphaSettings, "tskey-one")
	giveKey(t, laptopSettings, "tskey-two")
	giveKey(t, guestSettings, "tskey-three")
	alpha, laptop, guest := startSidecar(t, alphaSettings), startSidecar(t, laptopSettings), startSidecar(t, guestSettings)
	a, l, g := alpha.until("joined", joined), laptop.until("joined", joined), guest.until("joined", joined)
	for _, pair := range []struct {
		from *sidecar
		with netip.Addr
	}{{alpha, l.IPs[0]}, {alpha, g.IPs[0]}, {laptop, a.IPs[0]}, {guest, a.IPs[0]}} {
		pair.from.until("acquainted", func(Snapshot) bool {
			_, err := pair.from.node.WhoIs(t.Context(), pair.with)
			return err == nil
		})
	}
	owner, err := alpha.node.WhoIs(t.Context(), l.IPs[0])
	if err != nil {
		t.Fatal(err)
	}
	server := newOpenCode(t)
	door := testDoor(t, server.Listener.Addr().String(), doorPassword)
	door.Keeper = Doorkeeper{Owners: []string{owner.Login}, Names: alpha.node, Status: alpha.report.Last}
	stop, err := serveOpenCode(t.Context(), alpha.node, door)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	base := "http://" + netip.AddrPortFrom(a.IPs[0], openCodePort).String()

	if response, err := laptop.at("POST", base+"/session", "alpha:4096"); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	if response, err := guest.at("POST", base+"/session", "alpha:4096"); err != nil || response.StatusCode != http.StatusForbidden {
		t.Fatal(response, err)
	}

	dial := func() (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := laptop.node.server.Dial(t.Context(), "tcp", netip.AddrPortFrom(a.IPs[0], openCodePort).String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		return conn, bufio.NewReader(conn)
	}
	// Each event is there before the next is sent.
	conn, reader := dial()
	defer conn.Close()
	fmt.Fprint(conn, "GET /event HTTP/1.1\r\nHost: alpha:4096\r\n\r\n")
	for _, event := range []string{"one", "two"} {
		server.next <- event
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == "data: "+event+"\n" {
				break
			}
		}
	}
	close(server.next)

	socket, answers := dial()
	defer socket.Close()
	fmt.Fprint(socket, "GET /pty HTTP/1.1\r\nHost: alpha:4096\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://alpha:4096\r\n\r\n")
	response, err := http.ReadResponse(answers, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response, err)
	}
	fmt.Fprint(socket, "both ways")
	echo := make([]byte, len("both ways"))
	if _, err := io.ReadFull(answers, echo); err != nil || string(echo) != "both ways" {
		t.Fatalf("%q %v", echo, err)
	}
}

func TestAPortThatAProgramOfTheWorkspaceHas(t *testing.T) {
	theirs, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := theirs.Addr().(*net.TCPAddr).AddrPort().Port()
	first, second := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	absent := netip.MustParseAddr("fd7a:115c:a1e0::99")
	serving := map[string]bool{}
	holder := doorHolder{port: port, held: map[netip.Addr]net.Listener{}, serve: func(l net.Listener) { serving[l.Addr().String()] = true }}
	defer holder.hold(nil)
	if why := holder.hold([]netip.Addr{first, absent}); !contains(why, "has port") || len(serving) != 0 {
		t.Errorf("%q, %v", why, serving)
	}
	theirs.Close()
	if why := holder.hold([]netip.Addr{first, absent}); why != "" || !serving[netip.AddrPortFrom(first, port).String()] {
		t.Errorf("%q, %v", why, serving)
	}
	// The node has another address now: the old one is let go.
	if why := holder.hold([]netip.Addr{second}); why != "" || !serving[netip.AddrPortFrom(second, port).String()] {
		t.Errorf("%q, %v", why, serving)
	}
	again, err := net.Listen("tcp", netip.AddrPortFrom(first, port).String())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()

	// In the status, until it is over.
	report := newReporter(io.Discard, Snapshot{State: stateRunning, IPs: []netip.Addr{second}})
	holder.hold(nil)
	theirs, err = net.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { holder.follow(ctx, report, slog.New(slog.DiscardHandler)) })
	until := func(wanted bool) {
		t.Helper()
		for range 400 {
			if (report.Last().Door != "") == wanted {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		t.Fatalf("the status says %q", report.Last().Door)
	}
	until(true)
	theirs.Close()
	until(false)
	cancel()
	following.Wait()
}
