package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// sshUser is the one account that a tailnet identity opens.
const sshUser = "workspace"

// Peer is who holds a tailnet address.
type Peer struct {
	Login  string
	Node   string
	Tagged bool // a tagged node acts for no person
}

// Identities answers who holds an address, as WireGuard's keys prove it.
type Identities interface {
	WhoIs(ctx context.Context, addr netip.Addr) (Peer, error)
}

// Doorkeeper decides whether a peer may ssh without a key. Whenever it is in doubt it says no.
type Doorkeeper struct {
	Owners  []string
	Refused []netip.Addr
	Names   Identities
	Status  func() Snapshot
}

// Admit returns the peer, or an error with the reason for the refusal.
func (k Doorkeeper) Admit(ctx context.Context, address, user string) (Peer, error) {
	if user != sshUser {
		return Peer{}, fmt.Errorf("Only the user %s may be reached without a key.", sshUser)
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return Peer{}, errors.New("The caller's address is no IP address.")
	}
	if !k.Status().TUN {
		return Peer{}, errors.New("Without a TUN device nobody here sees where a caller comes from; use a key.")
	}
	peer, err := k.Vouch(ctx, addr)
	if err != nil {
		return Peer{}, fmt.Errorf("%w; use a key.", err)
	}
	return peer, nil
}

// Vouch returns the owner whose device has the address, or an error with the reason for the refusal, without a full
// stop. Who asks has to know that packets from that address came by the tailnet.
func (k Doorkeeper) Vouch(ctx context.Context, addr netip.Addr) (Peer, error) {
	if addr.Zone() != "" {
		return Peer{}, errors.New("The caller's address is of one link alone")
	}
	addr = addr.Unmap()
	status := k.Status()
	switch {
	case !slices.ContainsFunc(tailnetPrefixes, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return Peer{}, errors.New("The caller does not come from the tailnet")
	case !status.Border || status.State != stateRunning:
		return Peer{}, errors.New("This workspace's tailnet connection does not vouch for callers now")
	case slices.Contains(status.IPs, addr):
		return Peer{}, errors.New("The caller is this workspace itself")
	case slices.Contains(k.Refused, addr):
		return Peer{}, errors.New("The caller is the agent's machine, which other workspaces could speak through")
	}
	peer, err := k.Names.WhoIs(ctx, addr)
	switch {
	case err != nil:
		return Peer{}, errors.New("The tailnet does not know the caller")
	case peer.Tagged:
		return Peer{}, errors.New("The caller is a tagged device, which acts for no person")
	case peer.Login == "" || !slices.Contains(k.Owners, peer.Login):
		return Peer{}, errors.New("The caller's user is not among the owners (auth.owners)")
	}
	return peer, nil
}

// ServeHTTP answers GET /ssh?addr=…&user=… with 200 or 403, and nothing else.
func (k Doorkeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != "/ssh" {
		http.Error(w, "Only GET /ssh?addr=&user= is served here.", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	peer, err := k.Admit(ctx, r.URL.Query().Get("addr"), r.URL.Query().Get("user"))
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"reason": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"login": peer.Login, "node": peer.Node})
}

// mostAskers are connections to the whois socket at one time. sshd's helper makes one for each log-in; what a program
// of the workspace opens beyond that would be memory of the sidecar's.
const mostAskers = 64

// serveWhois listens on whois.sock in the folder until the returned function is called. Everybody in the workspace may
// connect (sshd's helper has no account of its own); all they learn is who may come in.
func serveWhois(folder string, handler http.Handler, log *slog.Logger) (func(), error) {
	refuse := func(err error) (func(), error) {
		return nil, fmt.Errorf("The whois socket cannot be made in %s (%w); is the volume mounted writable?", folder, err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return refuse(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return refuse(err)
	}
	path := filepath.Join(folder, "whois.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return refuse(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return refuse(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return refuse(err)
	}
	server := &http.Server{
		Handler: handler, ReadTimeout: 3 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second,
		MaxHeaderBytes: 4096, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(newBound(mostAskers, mostAskers).around(listener))
	}()
	return func() {
		server.Close()
		<-done
	}, nil
}
