package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// process is a whole sidecar in a namespace of its own, as in a pod.
type process struct {
	t       *testing.T
	command *exec.Cmd
	errors  bytes.Buffer
	mu      sync.Mutex
	last    Snapshot
	lines   []string
	over    chan struct{}
}

func startProcess(t *testing.T, ns *namespace, settings map[string]string) *process {
	return startProcessWith(t, ns, settings, nil)
}

func startProcessWith(t *testing.T, ns *namespace, settings map[string]string, stdin io.Reader) *process {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, command: exec.Command(path, "workspace"), over: make(chan struct{})}
	p.command.Env = []string{asProgram + "=1"}
	for name, value := range settings {
		p.command.Env = append(p.command.Env, name+"="+value)
	}
	p.command.Stderr = &p.errors
	p.command.Stdin = stdin
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ns.do(func() { ns.must(p.command.Start()) })
	go p.follow(bufio.NewScanner(out))
	t.Cleanup(p.kill)
	return p
}

func (p *process) follow(lines *bufio.Scanner) {
	defer close(p.over)
	for lines.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		var snapshot Snapshot
		if err := json.Unmarshal(lines.Bytes(), &snapshot); err != nil {
			p.t.Errorf("standard output has %q", lines.Text())
		}
		p.last = snapshot
		p.mu.Unlock()
	}
}

func (p *process) until(what string, wanted func(Snapshot) bool) Snapshot {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		p.mu.Lock()
		last := p.last
		p.mu.Unlock()
		if wanted(last) {
			return last
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not %s: %+v", what, last)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.over
	_ = p.command.Wait()
}

func TestProcessWithoutTailnet(t *testing.T) {
	ns := newNamespace(t)
	joinBy(ns, "eth0", []string{"10.9.0.2/28"}, newNamespace(t), "bridge0", []string{"10.9.0.1/28"})
	ns.route("default", "10.9.0.1")
	dir := t.TempDir()
	p := startProcess(t, ns, map[string]string{
		"PERRY_HOSTNAME": "alpha", "PERRY_TAILNET": "none", "PERRY_STATE_DIR": dir, "PERRY_RUN_DIR": filepath.Join(dir, "run"),
	})
	p.until("disabled", func(s Snapshot) bool { return s.State == stateDisabled && s.Border })
	if rules := ns.run("nft", "list", "table", "inet", borderTable); !contains(rules, "7392") {
		t.Errorf("no border stands: %s", rules)
	}
	var answer dnsmessage.Message
	ns.do(func() { answer = ask(t, "udp", stubAddress, "example.com.") })
	if answer.RCode != dnsmessage.RCodeRefused {
		t.Errorf("the stub says %v", answer.RCode)
	}
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.over
	if err := p.command.Wait(); err != nil {
		t.Errorf("%v: %s", err, p.errors.String())
	}
	if rules := ns.run("nft", "list", "tables"); !contains(rules, borderTable) {
		t.Error("the border fell with its process")
	}
}

func TestProcessThatCannotGuard(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, newNamespace(t), map[string]string{"PERRY_HOSTNAME": "alpha", "PERRY_TAILNET": "none", "PERRY_STATE_DIR": file})
	<-p.over
	if p.last.State != stateFailed || p.last.Border || !contains(p.last.Error, "state folder") {
		t.Errorf("%+v", p.last)
	}
	if err := p.command.Wait(); err == nil {
		t.Error("it ended well")
	}
}

// landscape is two pods on bridges of a router that is also coordinator and relay: TUN devices, kernel sockets, all.
type landscape struct {
	alpha, beta *namespace
	url         string
}

func newLandscape(t *testing.T) landscape {
	t.Helper()
	router, alpha, beta := newNamespace(t), newNamespace(t), newNamespace(t)
	joinBy(alpha, "eth0", []string{"10.9.1.2/28"}, router, "bridge1", []string{"10.9.1.1/28"})
	joinBy(beta, "eth0", []string{"10.9.2.2/28"}, router, "bridge2", []string{"10.9.2.1/28"})
	alpha.route("default", "10.9.1.1")
	beta.route("default", "10.9.2.1")
	router.set("ipv4/ip_forward", "1")
	listen := func() (listener net.Listener) {
		router.do(func() {
			var err error
			listener, err = net.Listen("tcp", "10.9.1.1:0")
			router.must(err)
		})
		return listener
	}
	relay := derpserver.New(key.NewNode(), logger.Discard)
	relays := &httptest.Server{Listener: listen(), Config: &http.Server{Handler: derpserver.Handler(relay)}}
	relays.Start()
	control := &testcontrol.Server{
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {RegionID: 1, RegionCode: "test", Nodes: []*tailcfg.DERPNode{{
			Name: "t1", RegionID: 1, HostName: "10.9.1.1", IPv4: "10.9.1.1", IPv6: "none", STUNPort: -1,
			DERPPort: relays.Listener.Addr().(*net.TCPAddr).Port, InsecureForTests: true,
		}}}}},
		DNSConfig: &tailcfg.DNSConfig{Proxied: true}, MagicDNSDomain: "perry.internal", Logf: logger.Discard,
	}
	controls := httptest.NewUnstartedServer(control)
	controls.Listener.Close()
	controls.Listener = listen()
	control.HTTPTestServer = controls
	controls.Start()
	t.Cleanup(func() {
		controls.CloseClientConnections()
		controls.Listener.Close()
		go controls.Close()
		relays.CloseClientConnections()
		relay.Close()
		relays.Close()
	})
	return landscape{alpha: alpha, beta: beta, url: controls.URL}
}

func (l landscape) join(t *testing.T, ns *namespace, name, dir string) *process {
	t.Helper()
	return l.joinWith(t, ns, name, dir, nil)
}

func (l landscape) joinWith(t *testing.T, ns *namespace, name, dir string, stdin io.Reader) *process {
	t.Helper()
	return startProcessWith(t, ns, map[string]string{
		"PERRY_HOSTNAME": name, "PERRY_CONTROL_URL": l.url, "PERRY_STATE_DIR": dir, "PERRY_RUN_DIR": filepath.Join(dir, "run"),
	}, stdin)
}

func TestConnectionOutlivesTheSidecar(t *testing.T) {
	l := newLandscape(t)
	alphaDir, betaDir := t.TempDir(), t.TempDir()
	giveKey(t, Settings{StateDir: alphaDir}, "tskey-one")
	alpha := l.join(t, l.alpha, "alpha", alphaDir)
	beta := l.joinWith(t, l.beta, "beta", betaDir, strings.NewReader(`{"authKey": "tskey-two"}`+"\n"))
	alpha.until("joined with TUN", func(s Snapshot) bool { return joined(s) && s.TUN })
	to := beta.until("joined with TUN", func(s Snapshot) bool { return joined(s) && s.TUN }).IPs[0].String()

	// By its name, from inside alpha, once the two have heard of each other.
	var answer dnsmessage.Message
	for deadline := time.Now().Add(5 * time.Second); len(answer.Answers) == 0 && time.Now().Before(deadline); {
		l.alpha.do(func() { answer = ask(t, "udp", stubAddress, "beta.") })
	}
	if len(answer.Answers) != 1 || !contains(answer.Answers[0].GoString(), strings.ReplaceAll(to, ".", ", ")) {
		t.Errorf("beta is %v, not %s", answer.Answers, to)
	}

	var listener net.Listener
	l.beta.do(func() {
		var err error
		listener, err = net.Listen("tcp", "0.0.0.0:3000")
		l.beta.must(err)
	})
	defer listener.Close()
	served := make(chan net.Conn, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			served <- conn
		}
	}()
	var here net.Conn
	l.alpha.do(func() {
		var err error
		here, err = net.DialTimeout("tcp", to+":3000", 10*time.Second)
		l.alpha.must(err)
	})
	defer here.Close()
	there := <-served
	defer there.Close()
	if from := there.RemoteAddr().(*net.TCPAddr).IP; !tailnetPrefixes[0].Contains(mustAddr(from)) {
		t.Errorf("beta sees %v, no address of the tailnet", from)
	}
	said := func(text string) {
		t.Helper()
		_ = there.SetReadDeadline(time.Now().Add(15 * time.Second))
		buffer := make([]byte, len(text))
		if _, err := there.Read(buffer); err != nil || string(buffer) != text {
			t.Fatalf("%q, %v", buffer, err)
		}
	}
	write := func(text string) {
		t.Helper()
		if _, err := here.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	said("one")
	alpha.kill()
	write("two") // into the interface that nobody serves
	again := l.join(t, l.alpha, "alpha", alphaDir)
	again.until("joined again", joined)
	said("two")

	before := time.Now()
	if err := again.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-again.over
	if err := again.command.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if took := time.Since(before); took > 4*time.Second { // 0.2 s on an idle machine
		t.Errorf("the end took %v", took)
	}
}
