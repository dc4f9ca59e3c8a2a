package main

import (
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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/ipn/ipnstate"
)

const (
	mostWaysOut   = 64
	wayOutDial    = 10 * time.Second
	wayOutTimeout = 3 * time.Minute // of a whole connection: a gateway that is woken has two to answer
	mostListBytes = 64 << 10

	workspaceTag = "tag:perry-workspace"
)

// refusal is why nothing is connected to, for the control plane (code) and for people.
type refusal struct {
	status   int
	code     string
	sentence string
}

func refused(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// tailnetWay is what the way out needs of a node.
type tailnetWay interface {
	// Everybody is this node and all that it knows.
	Everybody(ctx context.Context) (*ipnstate.Status, error)
	// DialTailnet connects to a device's address, and never by another way than the tailnet.
	DialTailnet(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// wayOut connects the control plane to the gateways that it wakes, where only the tailnet reaches them: HTTP CONNECT to
// exactly the places that stand in a file. The control plane writes that file anew whenever it has to; it is read with
// each request. What is connected to is an address of the device that the tailnet knows by that name.
type wayOut struct {
	node  tailnetWay
	list  string
	log   *slog.Logger
	dial  time.Duration
	ended context.Context
	taken chan struct{} // one for each connection
}

// serveWayOut listens on a unix socket until the returned function is called. Only root and whoever owns the socket's
// folder may use it: the control plane.
func serveWayOut(ctx context.Context, node tailnetWay, socket, list string, log *slog.Logger) (func(), error) {
	listener, err := listenForOwner(socket, log)
	if err != nil {
		return nil, fmt.Errorf("The socket %s, by which gateways on the tailnet are woken, cannot be made (%w); end the gateway's container, and it is made anew.", socket, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	way := &wayOut{node: node, list: list, log: log, dial: wayOutDial, ended: ctx, taken: make(chan struct{}, mostWaysOut)}
	server := &http.Server{
		Handler:           way,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       headerTimeout,
		MaxHeaderBytes:    mostHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return func() {
		cancel()
		server.Close()
		serving.Wait()
		for range mostWaysOut {
			way.taken <- struct{}{} // connections that were taken over from the server
		}
	}, nil
}

// listenForOwner replaces a socket that an earlier process left.
func listenForOwner(socket string, log *slog.Logger) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var folder syscall.Stat_t
	if err := syscall.Stat(filepath.Dir(socket), &folder); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	// To connect takes the right to write, and this process may not give its socket to the folder's owner. Who may enter
	// the folder, and who is at the other end, decide.
	if err := os.Chmod(socket, 0o666); err != nil {
		listener.Close()
		return nil, err
	}
	return &ownersListener{listener.(*net.UnixListener), folder.Uid, log}, nil
}

// ownersListener closes connections of everybody but root and the owner.
type ownersListener struct {
	*net.UnixListener
	owner uint32
	log   *slog.Logger
}

func (l *ownersListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := userOf(conn)
		if err == nil && (uid == 0 || uid == l.owner) {
			return conn, nil
		}
		l.log.Warn("somebody else's connection to the way out was closed", "uid", uid, "error", err)
		conn.Close()
	}
}

// userOf is who opened a connection, as the kernel says.
func userOf(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return peer.Uid, nil
}

func (w *wayOut) ServeHTTP(answer http.ResponseWriter, r *http.Request) {
	answer.Header().Set("Connection", "close")
	if r.Method != http.MethodConnect {
		w.refuse(answer, refused(http.StatusMethodNotAllowed, "METHOD_NOT_SUPPORTED", "CONNECT alone is served here."))
		return
	}
	select {
	case w.taken <- struct{}{}:
		defer func() { <-w.taken }()
	default:
		w.refuse(answer, refused(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", "Too many gateways are being woken at once; it is tried again."))
		return
	}
	there, no := w.connect(r.Context(), r.RequestURI)
	if no != nil {
		w.refuse(answer, no)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(answer).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	end := time.Now().Add(wayOutTimeout)
	_, _ = here.SetDeadline(end), there.SetDeadline(end)
	stop := context.AfterFunc(w.ended, func() {
		here.Close()
		there.Close()
	})
	defer stop()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connected\r\n\r\n"); err != nil {
		return
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		if _, err := io.CopyN(there, buffered.Reader, int64(n)); err != nil {
			return
		}
	}
	splice(here, there)
}

func (w *wayOut) refuse(answer http.ResponseWriter, no *refusal) {
	w.log.Debug("refused a way out", "code", no.code, "why", no.sentence)
	refuse(answer, no.status, no.code, no.sentence)
}

// connect goes to a place of the list, by the tailnet.
func (w *wayOut) connect(ctx context.Context, place string) (net.Conn, *refusal) {
	allowed, err := readPlaces(w.list)
	if err != nil {
		w.log.Warn("the list of places cannot be read", "error", err)
	}
	if !slices.Contains(allowed, place) {
		return nil, refused(http.StatusForbidden, "FORBIDDEN", "%s is no gateway of hooks.gateways, so nothing is connected to there.", place)
	}
	host, text, err := net.SplitHostPort(place)
	port, wrong := strconv.ParseUint(text, 10, 16)
	if err != nil || wrong != nil || port == 0 {
		return nil, refused(http.StatusForbidden, "FORBIDDEN", "%s is no name or address with a port.", place)
	}
	ctx, cancel := context.WithTimeout(ctx, w.dial)
	defer cancel()
	status, err := w.node.Everybody(ctx)
	if err != nil || status.BackendState != "Running" || status.Self == nil {
		return nil, refused(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE", "Perry's node is not on the tailnet now; `perry tailnet status` says why.")
	}
	peer, no := peerOf(status, host)
	if no != nil {
		return nil, no
	}
	to := netip.AddrPortFrom(addressOf(peer, host), uint16(port))
	conn, err := w.node.DialTailnet(ctx, to)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() == nil:
		return nil, refused(http.StatusBadGateway, "BAD_GATEWAY", "%s is on the tailnet, at %s, and takes no connection at port %d (%s); see that the gateway runs there, and listens on that address.",
			host, to.Addr(), port, oneLine(err.Error()))
	case !peer.Online:
		return nil, refused(http.StatusGatewayTimeout, "GATEWAY_TIMEOUT", "%s does not answer; the tailnet says that it is offline.", host)
	default:
		return nil, refused(http.StatusGatewayTimeout, "GATEWAY_TIMEOUT", "%s does not answer at %s, port %d; see that the tailnet's policy lets tag:perry-gateway in there (docs/howto/your-own-tailnet.md), and no firewall keeps it out.",
			host, to.Addr(), port)
	}
}

// readPlaces are the places, as CONNECT names them. Without a file there is none.
func readPlaces(file string) ([]string, error) {
	opened, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	var places []string
	if err := json.NewDecoder(io.LimitReader(opened, mostListBytes)).Decode(&places); err != nil {
		return nil, err
	}
	return places, nil
}

// peerOf is the one device of that name or address. Names are those that the coordinator gives, never what a device calls
// itself.
func peerOf(status *ipnstate.Status, host string) (*ipnstate.PeerStatus, *refusal) {
	addr, err := netip.ParseAddr(host)
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if !strings.Contains(name, ".") && status.CurrentTailnet != nil {
		name += "." + strings.ToLower(strings.Trim(status.CurrentTailnet.MagicDNSSuffix, "."))
	}
	is := func(peer *ipnstate.PeerStatus) bool {
		if err == nil {
			return slices.Contains(peer.TailscaleIPs, addr.Unmap())
		}
		return strings.ToLower(strings.TrimSuffix(peer.DNSName, ".")) == name
	}
	if is(status.Self) {
		return nil, refused(http.StatusForbidden, "FORBIDDEN", "%s is Perry itself; give the gateway's name in hooks.gateways.", host)
	}
	for _, peer := range status.Peer {
		if !is(peer) || len(peer.TailscaleIPs) == 0 {
			continue
		}
		if peer.Tags != nil && slices.Contains(peer.Tags.AsSlice(), workspaceTag) {
			return nil, refused(http.StatusForbidden, "FORBIDDEN", "%s is a workspace, and no gateway is woken there; give another in hooks.gateways.", host)
		}
		return peer, nil
	}
	return nil, refused(http.StatusNotFound, "NOT_FOUND", "The tailnet has no device %s that Perry's node can see.", host)
}

// addressOf is the address that was asked for, or else the device's first.
func addressOf(peer *ipnstate.PeerStatus, host string) netip.Addr {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap()
	}
	return peer.TailscaleIPs[0]
}

// Everybody implements [tailnetWay].
func (n *Node) Everybody(ctx context.Context) (*ipnstate.Status, error) { return n.client.Status(ctx) }

// DialTailnet implements [tailnetWay].
func (n *Node) DialTailnet(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	conn, err := n.server.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	// Addresses that no device has (any more) are dialled past the tailnet (tsdial, dialOneUser).
	own4, own6 := n.server.TailscaleIPs()
	if from, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil && (from.Addr() == own4 || from.Addr() == own6) {
		return conn, nil
	}
	conn.Close()
	return nil, errors.New("the device has just left the tailnet")
}
