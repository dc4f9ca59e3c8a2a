package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/net/proxymux"
	"tailscale.com/net/socks5"
	"tailscale.com/types/nettype"
	"tailscale.com/wgengine/netstack"
)

const (
	dialTimeout = 10 * time.Second
	// What asks from a new port each time, as resolvers do, leaves one flow behind for each question.
	udpIdleTimeout = 30 * time.Second

	// Netstack keeps up to 1 MiB of a TCP connection in each direction where its reader is slow, and up to 8 MiB in and
	// 6 MiB out of one that was fast before (wgengine/netstack, setTCPBufSizes: nothing sets this from outside). A UDP
	// flow is 192 KiB: its queues and our buffers. At 1 MiB, all that other nodes may hold comes to 304 MiB, which the
	// container has beside the node; one node alone comes to 88. Who is above gets an end at once (a packet gets none),
	// and the node stays up for the others. A browser opens 6 connections to each port, npm 15.
	mostTCP     = 128
	mostTCPOf   = 32 // of one address
	mostUDP     = 256
	mostUDPOf   = 128 // of one address: four new ones a second
	mostProxied = 128 // connections of the workspace's programs to its way out: what they fill up is their own node

	proxyHeaders = 8 << 10
)

// forwardWithoutTUN makes the workspace reachable where there is no TUN device. Every port is forwarded to the pod's
// own address on the bridge, never to loopback: the wake door and local databases listen there and trust it. Source
// addresses are lost, so that no tailnet identity opens ssh; the worker's port, whose trust is in the address, is not
// forwarded.
func forwardWithoutTUN(node *Node, own []netip.Addr, s Settings, log *slog.Logger) (func(), error) {
	tcpFlows, udpFlows := newBound(mostTCP, mostTCPOf), newBound(mostUDP, mostUDPOf)
	target := func(dst netip.AddrPort) (netip.AddrPort, bool) {
		return forwardTarget(own, dst, s.WorkerPort)
	}
	unregister := node.server.RegisterFallbackTCPHandler(func(src, dst netip.AddrPort) (func(net.Conn), bool) {
		to, ok := target(dst)
		if !ok {
			return nil, true // refused
		}
		return func(conn net.Conn) { tcpFlows.within(src.Addr(), conn, func() { forwardTCP(conn, to) }) }, true
	})
	// tsnet has a fallback for TCP alone. This field is what it sets itself.
	if stack, ok := node.server.Sys().Netstack.Get().(*netstack.Impl); ok {
		earlier := stack.GetUDPHandlerForFlow
		stack.GetUDPHandlerForFlow = func(src, dst netip.AddrPort) (func(nettype.ConnPacketConn), bool) {
			if handler, intercept := earlier(src, dst); intercept && handler != nil {
				return handler, intercept
			}
			to, ok := target(dst)
			if !ok {
				return nil, true
			}
			return func(conn nettype.ConnPacketConn) {
				udpFlows.within(src.Addr(), conn, func() { forwardUDP(conn, to) })
			}, true
		}
	} else {
		log.Warn("UDP ports are not forwarded; this build's netstack is another one")
	}
	stopProxy, err := serveProxy(s.ProxyAddress, node.server.Dial, log)
	if err != nil {
		unregister()
		return nil, err
	}
	return func() {
		stopProxy()
		unregister()
	}, nil
}

// within serves a connection from an address, or closes it where there are too many.
func (b *bound) within(from netip.Addr, conn net.Conn, serve func()) {
	who := from.String()
	if !b.take(who) {
		conn.Close()
		return
	}
	defer b.give(who)
	serve()
}

// forwardTarget is where a flow to one of our tailnet addresses goes; false where it is refused.
func forwardTarget(own []netip.Addr, dst netip.AddrPort, workerPort uint16) (netip.AddrPort, bool) {
	if dst.Port() == workerPort {
		return netip.AddrPort{}, false
	}
	for _, addr := range own {
		if addr.Is4() == dst.Addr().Is4() {
			return netip.AddrPortFrom(addr, dst.Port()), true
		}
	}
	for _, addr := range own {
		return netip.AddrPortFrom(addr, dst.Port()), true
	}
	return netip.AddrPort{}, false
}

// bridgeAddresses are the pod's own addresses on its bridge.
func bridgeAddresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, one := range interfaces {
		if len(one.Name) < len(bridgePrefix) || one.Name[:len(bridgePrefix)] != bridgePrefix {
			continue
		}
		addrs, err := one.Addrs()
		if err != nil {
			return nil, err
		}
		for _, text := range addrs {
			prefix, err := netip.ParsePrefix(text.String())
			if err == nil && prefix.Addr().IsGlobalUnicast() {
				found = append(found, prefix.Addr().Unmap())
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("The pod has no address on a bridge; restart the workspace, so that Docker gives it one.")
	}
	return found, nil
}

func forwardTCP(from net.Conn, to netip.AddrPort) {
	defer from.Close()
	there, err := net.DialTimeout("tcp", to.String(), dialTimeout)
	if err != nil {
		return
	}
	defer there.Close()
	splice(from, there)
}

// splice copies both ways until both are done, passing on that one side has said all it has to say.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			to.Close()
		}
	}
	both.Go(func() { oneWay(a, b) })
	both.Go(func() { oneWay(b, a) })
	both.Wait()
}

func forwardUDP(from net.Conn, to netip.AddrPort) {
	defer from.Close()
	there, err := net.Dial("udp", to.String())
	if err != nil {
		return
	}
	passPackets(from, there)
}

// passPackets passes packets both ways until none has come from either side for udpIdleTimeout. Both are closed then.
func passPackets(a, b net.Conn) {
	began := time.Now()
	var last atomic.Int64 // when a packet came, as time since we began
	quiet := func() bool { return time.Since(began)-time.Duration(last.Load()) >= udpIdleTimeout }
	oneWay := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buffer := make([]byte, 64<<10)
		for {
			_ = from.SetReadDeadline(time.Now().Add(udpIdleTimeout))
			n, err := from.Read(buffer)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() && !quiet() {
				continue // the other side speaks alone
			}
			if err != nil {
				return
			}
			last.Store(int64(time.Since(began)))
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { oneWay(b, a) })
	both.Go(func() { oneWay(a, b) })
	both.Wait()
}

// serveProxy serves SOCKS5 and HTTP CONNECT on one port until the returned function is called.
func serveProxy(address string, dial func(ctx context.Context, network, address string) (net.Conn, error), log *slog.Logger) (func(), error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errors.New("The way out to the tailnet cannot listen on " + address + "; end what listens there.")
	}
	socks, plain := proxymux.SplitSOCKSAndHTTP(newBound(mostProxied, mostProxied).around(listener))
	debugf := func(format string, args ...any) { log.Debug("proxy", "said", format) }
	go func() { _ = (&socks5.Server{Logf: debugf, Dialer: dial}).Serve(socks) }()
	server := &http.Server{
		Handler: connectProxy(dial), ReadHeaderTimeout: dialTimeout, IdleTimeout: dialTimeout, MaxHeaderBytes: proxyHeaders,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { _ = server.Serve(plain) }()
	return func() {
		server.Close()
		socks.Close()
		listener.Close()
	}, nil
}

func connectProxy(dial func(ctx context.Context, network, address string) (net.Conn, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "This proxy knows CONNECT alone; use it as socks5h:// instead.", http.StatusMethodNotAllowed)
			return
		}
		there, err := dial(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, "The tailnet did not connect to "+r.Host+".", http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			return
		}
		if n := buffered.Reader.Buffered(); n > 0 {
			if _, err := io.CopyN(there, buffered.Reader, int64(n)); err != nil {
				return
			}
		}
		splice(here, there)
	}
}
