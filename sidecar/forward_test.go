package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestForwardTarget(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00::2")}
	for _, try := range []struct {
		own      []netip.Addr
		to, want string
	}{
		{own, "100.64.0.1:3000", "10.9.0.2:3000"},
		{own, "[fd7a:115c:a1e0::1]:3000", "[fd00::2]:3000"},
		{own[:1], "[fd7a:115c:a1e0::1]:3000", "10.9.0.2:3000"},
		{own, "100.64.0.1:7392", ""},
		{nil, "100.64.0.1:3000", ""},
	} {
		got, ok := forwardTarget(try.own, netip.MustParseAddrPort(try.to), 7392)
		if ok != (try.want != "") || ok && got.String() != try.want {
			t.Errorf("%s: %v, %v", try.to, got, ok)
		}
	}
}

func TestBridgeAddresses(t *testing.T) {
	ns := newNamespace(t)
	ns.do(func() {
		if _, err := bridgeAddresses(); err == nil {
			t.Error("there is no bridge")
		}
	})
	joinBy(ns, "eth0", []string{"10.9.0.2/28"}, newNamespace(t), "bridge0", nil)
	ns.do(func() {
		own, err := bridgeAddresses()
		if err != nil || len(own) != 1 || own[0] != netip.MustParseAddr("10.9.0.2") {
			t.Error(own, err)
		}
	})
}

func TestFlowsAreBounded(t *testing.T) {
	flows, from := newBound(2, 1), netip.MustParseAddr("100.64.0.9")
	serving, over := make(chan struct{}), make(chan struct{})
	here, there := net.Pipe()
	go func() {
		defer close(over)
		flows.within(from, here, func() { serving <- struct{}{}; <-serving })
	}()
	<-serving
	second, other := net.Pipe()
	_ = other.SetReadDeadline(time.Now().Add(5 * time.Second))
	flows.within(from, second, func() { t.Error("a second flow of one address is served") })
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a flow that is one too many is left open: %v", err)
	}
	served := false
	flows.within(netip.MustParseAddr("100.64.0.8"), second, func() { served = true })
	if !served {
		t.Error("another address has to wait for the first")
	}
	serving <- struct{}{}
	<-over
	served = false
	flows.within(from, there, func() { served = true })
	if !served {
		t.Error("a place is not given back")
	}
}

func TestPacketsPassUntilBothSidesAreQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, from := net.Pipe()
		program, there := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer close(over)
			passPackets(from, there)
		}()
		packet := make([]byte, 16)
		for range 10 { // one side speaks alone for longer than silence may last
			time.Sleep(udpIdleTimeout - time.Second)
			if _, err := peer.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if n, err := program.Read(packet); err != nil || string(packet[:n]) != "hello" {
				t.Fatalf("%q, %v", packet[:n], err)
			}
		}
		quiet := time.Now()
		if _, err := program.Read(packet); err != io.EOF {
			t.Error(err)
		}
		if _, err := peer.Read(packet); err != io.EOF {
			t.Error(err)
		}
		if took := time.Since(quiet); took > 30*time.Second {
			t.Errorf("a flow is kept for %v after its last packet", took)
		}
		<-over
	})
}

func TestProxiedConnectionsAreBounded(t *testing.T) {
	const address = "127.0.0.1:21056"
	stop, err := serveProxy(address, new(net.Dialer).DialContext, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	refused := func() bool {
		conn := dialProxy(t, address)
		fmt.Fprintf(conn, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err != nil
	}
	var held []net.Conn
	for range 128 {
		conn := dialProxy(t, address)
		_, _ = conn.Write([]byte{5, 1, 0})
		if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
			t.Fatalf("connection %d: %v", len(held)+1, err)
		}
		held = append(held, conn)
	}
	if !refused() {
		t.Error("there is no end to them")
	}
	held[0].Close()
	for deadline := time.Now().Add(10 * time.Second); refused(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a place that was given back is not taken")
		}
	}
}

func TestProxyIsAWayOut(t *testing.T) {
	port := echoTCP(t, "127.0.0.1:0")
	const address = "127.0.0.1:21055"
	stop, err := serveProxy(address, new(net.Dialer).DialContext, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()

	t.Run("CONNECT", func(t *testing.T) {
		conn := dialProxy(t, address)
		fmt.Fprintf(conn, "CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n", port)
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		echoed(t, conn, reader)
	})
	t.Run("SOCKS5", func(t *testing.T) {
		conn := dialProxy(t, address)
		fmt.Fprintf(conn, "\x05\x01\x00")
		answer := make([]byte, 2)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "\x05\x00" {
			t.Fatalf("%q, %v", answer, err)
		}
		_, _ = conn.Write([]byte{5, 1, 0, 1, 127, 0, 0, 1, byte(port >> 8)})
		_, _ = conn.Write([]byte{byte(port)})
		answer = make([]byte, 10)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[1] != 0 {
			t.Fatalf("%q, %v", answer, err)
		}
		echoed(t, conn, conn)
	})
	t.Run("neither", func(t *testing.T) {
		conn := dialProxy(t, address)
		fmt.Fprintf(conn, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != http.StatusMethodNotAllowed {
			t.Error(response, err)
		}
	})
}

func dialProxy(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func echoed(t *testing.T, to io.Writer, from io.Reader) {
	t.Helper()
	if _, err := to.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(from, answer); err != nil || string(answer) != "hello" {
		t.Errorf("%q, %v", answer, err)
	}
}
