package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	openCodePort = 4096
	openCodeUser = "opencode"

	// openCodeHome is where the workspace's own server listens. Nobody but the workspace reaches it there.
	openCodeHome = "127.0.0.1:4096"

	mostPasswordBytes = 256
	doorLook          = time.Second
)

// callersCredentials are what a browser keeps for other ports of the same host, or a person gave for another server.
// They are not for OpenCode.
var callersCredentials = []string{"Authorization", "Proxy-Authorization", "Cookie"}

// OpenCodeDoor leads owners' devices to the OpenCode server of a workspace, which asks for a password that no person
// has: the door knows who calls from the tailnet, and adds it.
type OpenCodeDoor struct {
	Keeper   Doorkeeper
	Hostname string // the workspace's name, which callers may use besides what the tailnet calls it
	Home     string // host:port of the server
	Password string // file with the server's password; read for each request
	Log      *slog.Logger
}

// serveOpenCode opens the door on port 4096 of the tailnet until the returned function is called.
func serveOpenCode(ctx context.Context, node *Node, door OpenCodeDoor) (func(), error) {
	server := &http.Server{
		Handler:           door.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(door.Log.Handler(), slog.LevelDebug),
	}
	connections := newBound(mostConnections, mostConnectionsOfOne)
	var running sync.WaitGroup
	serve := func(listener net.Listener) {
		running.Go(func() { _ = server.Serve(connections.around(listener)) })
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := func() {
		cancel()
		ending, done := context.WithTimeout(context.Background(), shutdownTimeout)
		defer done()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
		running.Wait()
	}
	if node.tun {
		holder := doorHolder{port: openCodePort, held: map[netip.Addr]net.Listener{}, serve: serve}
		running.Go(func() { holder.follow(ctx, node.report, door.Log) })
		return stop, nil
	}
	listener, err := node.server.Listen("tcp", fmt.Sprintf(":%d", openCodePort))
	if err != nil {
		stop()
		return nil, fmt.Errorf("The door to OpenCode cannot listen on the tailnet (%w); restart the workspace.", err)
	}
	serve(listener)
	return stop, nil
}

// --- where it listens

// doorHolder listens on the tailnet's addresses in the pod's own network, where the TUN device leads. There a program
// of the workspace may have the port already; it keeps it, and callers reach it as they reach every other port.
type doorHolder struct {
	port  uint16
	held  map[netip.Addr]net.Listener
	serve func(net.Listener)
}

func (h *doorHolder) follow(ctx context.Context, report *Reporter, log *slog.Logger) {
	ticker := time.NewTicker(doorLook)
	defer ticker.Stop()
	defer h.hold(nil)
	said := ""
	for {
		why := h.hold(report.Last().IPs)
		if why != said {
			said = why
			report.Update(func(snap *Snapshot) { snap.Door = why })
			if why != "" {
				log.Warn(why)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// hold listens on exactly these addresses, as far as they are to be had. It says why not.
func (h *doorHolder) hold(wanted []netip.Addr) string {
	for addr, listener := range h.held {
		if !slices.Contains(wanted, addr) {
			listener.Close()
			delete(h.held, addr)
		}
	}
	why := ""
	for _, addr := range wanted {
		if h.held[addr] != nil {
			continue
		}
		listener, err := net.Listen("tcp", netip.AddrPortFrom(addr, h.port).String())
		switch {
		case err == nil:
			h.held[addr] = listener
			h.serve(listener)
		case errors.Is(err, syscall.EADDRINUSE):
			why = fmt.Sprintf("A program in the workspace has port %d, so http://…:%d leads to it and not to OpenCode; have it listen on another port, or on 127.0.0.1 alone.", h.port, h.port)
		case addr.Is6():
			// A pod without IPv6.
		case why == "":
			why = fmt.Sprintf("The door to OpenCode cannot listen on %v (%s); restart the workspace.", addr, oneLine(err.Error()))
		}
	}
	return why
}

// --- what it does with a request

func (d OpenCodeDoor) handler() http.Handler {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: socketDial}
			return dialer.DialContext(ctx, "tcp", d.Home)
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           8,
		IdleConnTimeout:        keepAliveTimeout,
	}
	passing := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // what it says of its work, as it says it
		ErrorLog:      slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", d.Home
			r.Out.Host = d.Home
			if r.Out.Header.Get("Origin") != "" {
				r.Out.Header.Set("Origin", "http://"+d.Home) // it was checked here, against names that are not known there
			}
			for _, name := range callersCredentials {
				r.Out.Header.Del(name)
			}
			dropOwnHeaders(r.Out.Header)
			r.Out.SetBasicAuth(openCodeUser, r.In.Context().Value(passwordKey{}).(string))
		},
		ModifyResponse: func(response *http.Response) error {
			if response.StatusCode == http.StatusUnauthorized {
				return errWrongPassword // else a browser would ask its person for what nobody knows
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			switch {
			case r.Context().Err() != nil: // the caller went away
			case errors.Is(err, errWrongPassword):
				d.refuse(w, http.StatusBadGateway, fmt.Sprintf("What listens on port %d in %s takes another password than OpenCode's; end it, then `perry restart %s`.", openCodePort, d.Hostname, d.Hostname))
			default:
				d.Log.Debug("OpenCode does not answer", "error", err)
				d.refuse(w, http.StatusBadGateway, fmt.Sprintf("OpenCode's server does not answer in %s; `perry logs %s` may say why.", d.Hostname, d.Hostname))
			}
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		answer := &patient{ResponseWriter: w, control: control}
		defer func() { _ = control.SetWriteDeadline(time.Now().Add(stillTimeout)) }()
		if err := d.admit(r); err != nil {
			d.Log.Info("the door to OpenCode stays shut", "from", r.RemoteAddr, "reason", err.Error())
			d.refuse(answer, http.StatusForbidden, err.Error()+".")
			return
		}
		password, err := d.password()
		if err != nil {
			d.Log.Warn("OpenCode's password cannot be read", "error", err)
			d.refuse(answer, http.StatusBadGateway, fmt.Sprintf("This workspace has no password for OpenCode yet; `perry restart %s` gives it one.", d.Hostname))
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			body := &patientBody{ReadCloser: r.Body, control: control}
			r.Body = body
			defer body.linger()
		}
		passing.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), passwordKey{}, password)))
	})
}

type passwordKey struct{}

var errWrongPassword = errors.New("the server takes another password")

// admit returns nil for an owner's device that means this workspace, and no web page of another place.
func (d OpenCodeDoor) admit(r *http.Request) error {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return errors.New("The caller has no address")
	}
	ctx, cancel := context.WithTimeout(r.Context(), whoisTimeout)
	defer cancel()
	if _, err := d.Keeper.Vouch(ctx, from.Addr()); err != nil {
		return err
	}
	if r.Method == http.MethodConnect || !strings.HasPrefix(r.URL.Path, "/") {
		return errors.New("This is no proxy; ask for a path of OpenCode's")
	}
	if !d.isOurs(r.Host) {
		return fmt.Errorf("This is %s, and another name was asked for", d.Hostname)
	}
	for _, origin := range r.Header["Origin"] {
		page, err := url.Parse(origin)
		if err != nil || page.Scheme != "http" || page.Host != r.Host {
			return errors.New("A web page of another place may not ask this")
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		if r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return errors.New("A web page of another place may not ask this")
		}
	}
	return nil
}

// isOurs tells whether a Host is this workspace's at the door's port.
func (d OpenCodeDoor) isOurs(asked string) bool {
	host, port, err := net.SplitHostPort(asked)
	if err != nil || port != strconv.Itoa(openCodePort) {
		return false
	}
	status := d.Keeper.Status()
	if addr, err := netip.ParseAddr(host); err == nil {
		return slices.Contains(status.IPs, addr)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" {
		return false
	}
	first, _, _ := strings.Cut(status.DNSName, ".")
	return host == d.Hostname || host == strings.ToLower(status.DNSName) || host == strings.ToLower(first)
}

func (d OpenCodeDoor) password() (string, error) {
	file, err := os.Open(d.Password)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, mostPasswordBytes))
	if err != nil {
		return "", err
	}
	password := strings.TrimSpace(string(text))
	if password == "" {
		return "", errors.New("it is empty")
	}
	return password, nil
}

// refuse answers a person, in their browser or their terminal.
func (d OpenCodeDoor) refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, sentence+"\n")
}

// openCodePassword is where the control plane puts the password of the workspace's OpenCode server.
func (s Settings) openCodePassword() string { return filepath.Join(s.StateDir, "opencode-password") }
