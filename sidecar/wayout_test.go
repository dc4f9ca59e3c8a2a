package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/ipn/ipnstate"
	"tailscale.com/types/key"
	"tailscale.com/types/views"
)

// exchanges are what the control plane asks and is answered. Its own test reads the same file.
type exchanges struct {
	Suffix    string
	Self      device
	Devices   []device
	Exchanges []struct {
		Place   string
		Allowed *[]string
		Away    bool
		Status  int
		Code    string
		Says    string
		Reached string
	}
}

type device struct {
	Name    string
	IPs     []netip.Addr
	Tags    []string
	Does    string
	Offline bool
}

// devices stand in for a tailnet. Whoever takes a connection says to which address it came.
type devices struct {
	of   exchanges
	away bool
}

func (d *devices) Everybody(context.Context) (*ipnstate.Status, error) {
	status := &ipnstate.Status{
		BackendState: "Running", CurrentTailnet: &ipnstate.TailnetStatus{MagicDNSSuffix: d.of.Suffix},
		Peer: map[key.NodePublic]*ipnstate.PeerStatus{},
	}
	if d.away {
		status.BackendState = "Starting"
	}
	peer := func(one device) *ipnstate.PeerStatus {
		tags := views.SliceOf(one.Tags)
		return &ipnstate.PeerStatus{DNSName: one.Name + ".", TailscaleIPs: one.IPs, Tags: &tags, Online: !one.Offline}
	}
	status.Self = peer(d.of.Self)
	for _, one := range d.of.Devices {
		status.Peer[key.NewNode().Public()] = peer(one)
	}
	return status, nil
}

func (d *devices) DialTailnet(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	at := slices.IndexFunc(d.of.Devices, func(one device) bool { return slices.Contains(one.IPs, to.Addr()) })
	switch d.of.Devices[at].Does {
	case "nothing":
		<-ctx.Done()
		return nil, ctx.Err()
	case "refuses":
		return nil, errors.New("connection was refused")
	}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_, _ = fmt.Fprintf(there, "%s\n", to)
		_, _ = io.Copy(there, there)
	}()
	return here, nil
}

func readExchanges(t *testing.T) exchanges {
	t.Helper()
	text, err := os.ReadFile("../tests/contract/wayout/exchanges.json")
	if err != nil {
		t.Fatal(err)
	}
	var found exchanges
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// outDoor is a way out that is open until the test ends.
type outDoor struct {
	t            *testing.T
	socket, list string
	shut         func()
}

func openWayOut(t *testing.T, node tailnetWay) *outDoor {
	t.Helper()
	dir := t.TempDir()
	d := &outDoor{t: t, socket: filepath.Join(dir, "forward.sock"), list: filepath.Join(dir, "places.json")}
	stop, err := serveWayOut(t.Context(), node, d.socket, d.list, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.shut = sync.OnceFunc(stop)
	t.Cleanup(d.shut)
	return d
}

func (d *outDoor) allow(places ...string) {
	d.t.Helper()
	text, err := json.Marshal(places)
	if err == nil {
		err = os.WriteFile(d.list+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(d.list+".new", d.list)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// ask is what the control plane sends, as the contract has it.
func (d *outDoor) ask(place string) (*http.Response, *bufio.Reader, net.Conn) {
	d.t.Helper()
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", place, place); err != nil {
		d.t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		d.t.Fatal(err)
	}
	return response, reader, conn
}

func TestWayOutAnswersAsTheControlPlaneExpects(t *testing.T) {
	contract := readExchanges(t)
	for _, one := range contract.Exchanges {
		t.Run(fmt.Sprintf("%s %d", one.Place, one.Status), func(t *testing.T) {
			way := &wayOut{
				node: &devices{of: contract, away: one.Away}, list: filepath.Join(t.TempDir(), "places.json"),
				log: slog.New(slog.DiscardHandler), dial: 50 * time.Millisecond,
			}
			allowed := []string{one.Place}
			if one.Allowed != nil {
				allowed = *one.Allowed
			}
			(&outDoor{t: t, list: way.list}).allow(allowed...)
			conn, no := way.connect(t.Context(), one.Place)
			if one.Status == http.StatusOK {
				if no != nil {
					t.Fatal(no.sentence)
				}
				defer conn.Close()
				if line, _ := bufio.NewReader(conn).ReadString('\n'); strings.TrimSpace(line) != one.Reached {
					t.Errorf("it reached %q", line)
				}
				return
			}
			if no == nil || no.status != one.Status || no.code != one.Code || no.sentence != one.Says {
				t.Errorf("%+v", no)
			}
		})
	}
}

func TestWayOutIsATunnelToWhatIsListedNow(t *testing.T) {
	d := openWayOut(t, &devices{of: readExchanges(t)})
	response, _, _ := d.ask("assistant:18789")
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("with no list at all: %d", response.StatusCode)
	}
	d.allow("assistant:18789")
	response, reader, conn := d.ask("assistant:18789")
	if response.StatusCode != http.StatusOK || len(response.Header) != 0 {
		t.Fatal(response)
	}
	if line, _ := reader.ReadString('\n'); line != "100.64.0.7:18789\n" {
		t.Error(line)
	}
	if _, err := io.WriteString(conn, "there and back\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := reader.ReadString('\n'); line != "there and back\n" {
		t.Error(line, err)
	}
	d.allow("closed:18789")
	for _, place := range []string{"assistant:18789", "ASSISTANT:18789", "assistant.:18789", "closed:018789", "closed", "http://closed:18789/"} {
		response, _, _ = d.ask(place)
		if response.StatusCode != http.StatusForbidden && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s, which is not listed (any more): %d", place, response.StatusCode)
		}
	}
	response, _, _ = d.ask("closed:18789")
	if sentence := sentenceOf(t, response); response.StatusCode != http.StatusBadGateway || !contains(sentence, "see that the gateway runs there") {
		t.Error(response.StatusCode, sentence)
	}
	if err := os.WriteFile(d.list, []byte(`["closed:18789"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if response, _, _ = d.ask("closed:18789"); response.StatusCode != http.StatusForbidden {
		t.Errorf("with half a list: %d", response.StatusCode)
	}
	answer := exchangeAt(t, "unix", d.socket, "GET http://closed:18789/ HTTP/1.1\r\nHost: closed\r\n\r\n")
	if answer.StatusCode != http.StatusMethodNotAllowed {
		t.Error(answer.StatusCode)
	}
}

func TestWayOutEndsWithWhatGoesThroughIt(t *testing.T) {
	d := openWayOut(t, &devices{of: readExchanges(t)})
	d.allow("assistant:18789")
	_, reader, _ := d.ask("assistant:18789")
	if line, _ := reader.ReadString('\n'); line != "100.64.0.7:18789\n" {
		t.Fatal(line)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		d.shut()
	}()
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on: %v", err)
	}
	<-over
	if _, err := os.Stat(d.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestWayOutHasABound(t *testing.T) {
	d := openWayOut(t, &devices{of: readExchanges(t)})
	d.allow("assistant:18789")
	var open []net.Conn
	for range mostWaysOut {
		response, _, conn := d.ask("assistant:18789")
		if response.StatusCode != http.StatusOK {
			t.Fatal(response.StatusCode)
		}
		open = append(open, conn)
	}
	if response, _, _ := d.ask("assistant:18789"); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", response.StatusCode)
	}
	open[0].Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if response, _, _ := d.ask("assistant:18789"); response.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a place that was given back is not had again")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A control plane that was given to another user than root owns the folder; that user and root may connect.
func TestWayOutIsTheOwnersAlone(t *testing.T) {
	folder := t.TempDir()
	for _, each := range []string{filepath.Dir(folder), folder} {
		if err := os.Chmod(each, 0o755); err != nil { // so that the socket itself is all that is in the way
			t.Fatal(err)
		}
	}
	const owner = 4711
	if err := os.Chown(folder, owner, owner); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "forward.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // left by an earlier process
		t.Fatal(err)
	}
	stop, err := serveWayOut(t.Context(), &devices{}, socket, filepath.Join(folder, "none"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reachable := filepath.Join(folder, "test")
	whole, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(reachable, whole, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for uid, wanted := range map[uint32]string{owner: "answered", 0: "answered", owner + 1: "closed"} {
		command := exec.Command(reachable)
		command.Env = []string{asCaller + "=" + socket}
		command.Dir = "/"
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		said, err := command.CombinedOutput()
		if err != nil || string(said) != wanted {
			t.Errorf("user %d: %v, %q", uid, err, said)
		}
	}
}

// asCaller has the test program ask at a way out, and say whether there was an answer.
const asCaller = "PERRY_TEST_AS_CALLER"

func callWayOut(socket string) string {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
	if _, err := bufio.NewReader(conn).ReadByte(); err != nil {
		return "closed"
	}
	return "answered"
}

func TestWayOutOnTheTailnet(t *testing.T) {
	c := newCoordinator(t)
	nodes := map[string]*sidecar{}
	for _, name := range []string{"perry", "assistant", "alpha"} {
		settings := c.settings(name)
		giveKey(t, settings, "tskey-"+name)
		nodes[name] = startSidecar(t, settings)
	}
	gateway, assistant := nodes["perry"], nodes["assistant"]
	for _, node := range nodes {
		node.until("joined", joined)
	}
	for _, node := range c.control.AllNodes() {
		if node.Hostinfo.Hostname() == "alpha" {
			node.Tags = []string{workspaceTag}
			c.control.UpdateNode(node)
		}
	}
	at := assistant.until("joined", joined).IPs
	gateway.until("acquainted", func(Snapshot) bool {
		status, err := gateway.node.Everybody(t.Context())
		if err != nil {
			return false
		}
		_, one := peerOf(status, "assistant")
		_, two := peerOf(status, "alpha")
		return one == nil && two != nil && two.code == "FORBIDDEN"
	})
	listener, err := assistant.node.server.Listen("tcp", ":18789")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "woken at "+r.Host)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	defer func() {
		server.Close()
		<-served
	}()
	d := openWayOut(t, gateway.node)
	reached := []string{"assistant:18789", "assistant.perry.internal:18789", net.JoinHostPort(at[0].String(), "18789"), net.JoinHostPort(at[1].String(), "18789")}
	d.allow(append(reached, "assistant:18790", "alpha:18789", "nobody:18789", "perry:18789")...)
	for _, place := range reached {
		response, reader, conn := d.ask(place)
		if response.StatusCode != http.StatusOK {
			t.Fatal(place, sentenceOf(t, response))
		}
		if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(place, err)
		}
		if body, _ := io.ReadAll(answer.Body); string(body) != "woken at x" {
			t.Errorf("%s: %q", place, body)
		}
	}
	for place, status := range map[string]int{
		"assistant:18790": http.StatusBadGateway, "alpha:18789": http.StatusForbidden, "nobody:18789": http.StatusNotFound, "perry:18789": http.StatusForbidden,
		"assistant:22": http.StatusForbidden,
	} {
		if response, _, _ := d.ask(place); response.StatusCode != status {
			t.Errorf("%s: %d, %s", place, response.StatusCode, sentenceOf(t, response))
		}
	}
	// Past the tailnet there is a listener too; nobody there is a device.
	past, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer past.Close()
	if conn, err := gateway.node.DialTailnet(t.Context(), past.Addr().(*net.TCPAddr).AddrPort()); err == nil {
		conn.Close()
		t.Error("it went past the tailnet")
	}
}
