package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// controlPlane stands in for the control plane: it listens on a socket, and notes what comes.
type controlPlane struct {
	t      *testing.T
	socket string
	server *http.Server
	mu     sync.Mutex
	heads  []*http.Request
	over   chan struct{}
}

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	c := &controlPlane{t: t, socket: filepath.Join(t.TempDir(), "control.sock")}
	c.appear()
	t.Cleanup(c.vanish)
	return c
}

func (c *controlPlane) appear() {
	c.t.Helper()
	listener, err := net.Listen("unix", c.socket)
	if err != nil {
		c.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.note(r)
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { // chunk by chunk, while it is sent
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		buffer := make([]byte, 1024)
		for {
			n, err := r.Body.Read(buffer)
			_, _ = w.Write(buffer[:n])
			_ = control.Flush()
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		c.note(r)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	mux.HandleFunc("/broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	c.server = &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	server, over := c.server, make(chan struct{})
	c.over = over
	go func() {
		defer close(over)
		_ = server.Serve(listener)
	}()
}

func (c *controlPlane) vanish() {
	c.server.Close()
	<-c.over
}

func (c *controlPlane) note(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads = append(c.heads, r)
}

// last is the request that came last.
func (c *controlPlane) last() *http.Request {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heads) == 0 {
		c.t.Fatal("nothing came")
	}
	return c.heads[len(c.heads)-1]
}

func (c *controlPlane) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.heads)
}

// said is who the gateway says it was.
func said(t *testing.T, r *http.Request) Caller {
	t.Helper()
	values := r.Header.Values(identityHeader)
	if len(values) != 1 {
		t.Fatalf("%s stands there %d times: %v", identityHeader, len(values), r.Header)
	}
	text, err := base64.RawURLEncoding.DecodeString(values[0])
	if err != nil {
		t.Fatal(err)
	}
	var caller Caller
	if err := json.Unmarshal(text, &caller); err != nil {
		t.Fatal(err)
	}
	return caller
}

type callers struct {
	caller Caller
	err    error
}

func (c callers) Caller(context.Context, string) (Caller, error) { return c.caller, c.err }

var ownersLaptop = Caller{Login: "öwner@example.com", Node: "laptop.perry.internal", NodeID: "7", Tags: []string{}}

// door is a gateway's on loopback.
func door(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func proxied(t *testing.T, c *controlPlane) string {
	t.Helper()
	return door(t, newProxy(callers{caller: ownersLaptop}, c.socket, slog.New(slog.DiscardHandler)))
}

// exchange sends bytes as they are, and reads one answer.
func exchange(t *testing.T, address, request string) *http.Response {
	t.Helper()
	return exchangeAt(t, "tcp", address, request)
}

func exchangeAt(t *testing.T, network, address, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func TestIdentityComesFromTheTailnetAlone(t *testing.T) {
	c := newControlPlane(t)
	address := proxied(t, c)
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"login":"forged","nodeId":"1"}`))
	for what, lines := range map[string]string{
		"none":                          "",
		"plain":                         "Perry-Identity: " + forged + "\r\n",
		"doubled":                       "Perry-Identity: " + forged + "\r\nPerry-Identity: " + forged + "\r\n",
		"odd case":                      "pErRy-IDENTITY: " + forged + "\r\n",
		"underscores":                   "Perry_Identity: " + forged + "\r\nperry_identity: " + forged + "\r\n",
		"another of ours":               "Perry-Login: owner\r\nPERRY_NODE: x\r\n",
		"hop by hop":                    "Connection: Perry-Identity\r\n",
		"hop by hop, forged":            "Perry-Identity: " + forged + "\r\nConnection: close, perry-identity\r\n",
		"hop by hop, with an upgrade":   "Connection: Upgrade, Perry-Identity\r\nUpgrade: websocket\r\nPerry-Identity: " + forged + "\r\n",
		"as a trailer that is promised": "Trailer: Perry-Identity\r\n",
		"forwarded":                     "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
	} {
		path := "/"
		if strings.Contains(lines, "Upgrade:") {
			path = "/upgrade"
		}
		exchange(t, address, "GET "+path+" HTTP/1.1\r\nHost: perry\r\n"+lines+"\r\n")
		came := c.last()
		if caller := said(t, came); caller.Login != ownersLaptop.Login || caller.NodeID != "7" {
			t.Errorf("%s: it was said to be %+v", what, caller)
		}
		for name := range came.Header {
			lower := strings.ToLower(name)
			if name != identityHeader && (strings.HasPrefix(lower, "perry") || strings.HasPrefix(lower, "x-forwarded") || lower == "forwarded") {
				t.Errorf("%s: %s came through", what, name)
			}
		}
		if came.Host != "perry" {
			t.Errorf("%s: the Host became %q", what, came.Host)
		}
	}
}

func TestATrailerIsNoHeader(t *testing.T) {
	c := newControlPlane(t)
	exchange(t, proxied(t, c), "POST / HTTP/1.1\r\nHost: perry\r\nTransfer-Encoding: chunked\r\nTrailer: Perry-Identity\r\n\r\n"+
		"2\r\n{}\r\n0\r\nPerry-Identity: forged\r\n\r\n")
	came := c.last()
	if came.Trailer.Get(identityHeader) != "" || said(t, came).Login != ownersLaptop.Login {
		t.Errorf("%v, %v", came.Header, came.Trailer)
	}
}

func TestSmuggledRequestsAreRefused(t *testing.T) {
	c := newControlPlane(t)
	address := proxied(t, c)
	for what, head := range map[string]string{
		"two lengths":           "Content-Length: 2\r\nContent-Length: 60\r\n",
		"a space in the name":   "Perry-Identity : x\r\n",
		"a folded line":         "X: y\r\n Perry-Identity: x\r\nContent-Length : 3\r\n",
		"no host":               "",
		"two hosts":             "Host: perry\r\nHost: evil\r\n",
		"length and odd coding": "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
	} {
		host := "Host: perry\r\n"
		if strings.Contains(what, "host") {
			host = ""
		}
		before := c.count()
		response := exchange(t, address, "POST / HTTP/1.1\r\n"+host+head+"\r\n{}")
		if response.StatusCode < 400 || c.count() != before {
			t.Errorf("%s: %d", what, response.StatusCode)
		}
	}
	if response := exchange(t, address, "CONNECT perry:80 HTTP/1.1\r\nHost: perry\r\n\r\n"); response.StatusCode != http.StatusBadRequest {
		t.Errorf("CONNECT: %d", response.StatusCode)
	}
}

func TestACallerThatTheTailnetDoesNotKnow(t *testing.T) {
	c := newControlPlane(t)
	address := door(t, newProxy(callers{err: errors.New("peer not found")}, c.socket, slog.New(slog.DiscardHandler)))
	response := exchange(t, address, "GET /health HTTP/1.1\r\nHost: perry\r\n\r\n")
	if sentence := sentenceOf(t, response); response.StatusCode != http.StatusForbidden || sentence != foreignCaller {
		t.Errorf("%d %s", response.StatusCode, sentence)
	}
	if c.count() != 0 {
		t.Error("it came through")
	}
}

func sentenceOf(t *testing.T, response *http.Response) string {
	t.Helper()
	var envelope struct {
		JSON struct {
			Code, Message string
			Status        int
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil || envelope.JSON.Status != response.StatusCode || envelope.JSON.Code == "" {
		t.Errorf("no error of the API: %v, %+v", err, envelope)
	}
	return envelope.JSON.Message
}

func TestTheControlPlaneIsAwayAndComesBack(t *testing.T) {
	c := newControlPlane(t)
	address := proxied(t, c)
	ask := func() *http.Response { return exchange(t, address, "GET /health HTTP/1.1\r\nHost: perry\r\n\r\n") }
	for range 2 {
		if response := ask(); response.StatusCode != http.StatusOK {
			t.Fatal(response.StatusCode)
		}
		c.vanish()
		response := ask()
		if sentence := sentenceOf(t, response); response.StatusCode != http.StatusBadGateway || sentence != awaySentence {
			t.Errorf("%d %s", response.StatusCode, sentence)
		}
		c.appear()
	}
	response := exchange(t, address, "POST /broken HTTP/1.1\r\nHost: perry\r\nContent-Length: 0\r\n\r\n")
	if sentence := sentenceOf(t, response); response.StatusCode != http.StatusBadGateway || sentence != brokenSentence {
		t.Errorf("%d %s", response.StatusCode, sentence)
	}
}

func TestUpgradesPass(t *testing.T) {
	c := newControlPlane(t)
	conn, err := net.Dial("tcp", proxied(t, c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: perry\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(err, response)
	}
	for _, word := range []string{"one", "two"} {
		_, _ = io.WriteString(conn, word)
		buffer := make([]byte, 3)
		if _, err := io.ReadFull(reader, buffer); err != nil || string(buffer) != word {
			t.Fatalf("%q, %v", buffer, err)
		}
	}
	if said(t, c.last()).NodeID != "7" {
		t.Error("an upgrade says nothing of who")
	}
}

func TestBodiesStreamBothWays(t *testing.T) {
	c := newControlPlane(t)
	conn, err := net.Dial("tcp", proxied(t, c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: perry\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 3)
	if _, err := io.ReadFull(response.Body, buffer); err != nil || string(buffer) != "one" {
		t.Fatalf("the first half does not come before the second is sent: %q, %v", buffer, err)
	}
	_, _ = io.WriteString(conn, "3\r\ntwo\r\n0\r\n\r\n")
	rest, err := io.ReadAll(response.Body)
	if err != nil || string(rest) != "two" {
		t.Fatalf("%q, %v", rest, err)
	}
}

func TestALargeBodyArrivesWhole(t *testing.T) {
	c := newControlPlane(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	response, err := http.Post("http://"+proxied(t, c)+"/", "application/octet-stream", bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
}

func TestARefusalArrivesAlthoughTheBodyWasNotRead(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	defer func() { listener.Close(); <-over }()
	go func() { // reads the head, answers and closes, as uvicorn does
		defer close(over)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			head := bufio.NewReaderSize(conn, 16)
			for line, _ := head.ReadString('\n'); line != "\r\n" && line != ""; line, _ = head.ReadString('\n') {
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			conn.Close()
		}
	}()
	address := door(t, newProxy(callers{caller: ownersLaptop}, socket, slog.New(slog.DiscardHandler)))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, size := range []int{2, 1 << 20, 16 << 20} {
		for range 20 {
			response, err := client.Post("http://"+address+"/", "application/octet-stream", bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusForbidden || string(body) != "no" {
				t.Fatalf("%d bytes: %d %s", size, response.StatusCode, body)
			}
		}
	}
}

func TestARefusalArrivesBeforeTheBodyIsTouched(t *testing.T) {
	address := door(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		body := &patientBody{ReadCloser: r.Body, control: control}
		defer body.linger()
		w.WriteHeader(http.StatusForbidden)
	}))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		response, err := client.Post("http://"+address+"/", "application/octet-stream", bytes.NewReader(make([]byte, 4<<20)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Fatal(response.Status)
		}
	}
}

func TestOnlyWakesPassAtTheirPort(t *testing.T) {
	c := newControlPlane(t)
	address := door(t, wakesOnly(newProxy(callers{caller: ownersLaptop}, c.socket, slog.New(slog.DiscardHandler))))
	for _, try := range []struct {
		line   string
		status int
	}{
		{"POST /hooks/wake", http.StatusOK},
		{"POST /hooks/wake?x=1", http.StatusOK},
		{"GET /hooks/wake", http.StatusMethodNotAllowed},
		{"POST /rpc/workspaces/list", http.StatusNotFound},
		{"POST /hooks/wake/../../rpc/workspaces/list", http.StatusNotFound},
		{"POST /hooks/wake/", http.StatusNotFound},
		{"POST //hooks/wake", http.StatusNotFound},
		{"GET /", http.StatusNotFound},
	} {
		response := exchange(t, address, try.line+" HTTP/1.1\r\nHost: perry\r\nContent-Length: 0\r\n\r\n")
		if response.StatusCode != try.status {
			t.Errorf("%s: %d", try.line, response.StatusCode)
		}
		if try.status != http.StatusOK && sentenceOf(t, response) != wakesSentence {
			t.Errorf("%s: no sentence", try.line)
		}
	}
	if c.count() != 2 {
		t.Errorf("%d came through", c.count())
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBound(3, 2)
	server := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(b.around(listener))
	}()
	defer func() { server.Close(); <-done }()
	open := func(from string) (net.Conn, bool) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: perry\r\n\r\n")
		_, err = http.ReadResponse(bufio.NewReader(conn), nil)
		return conn, err == nil
	}
	first, served := open("127.0.0.2")
	_, second := open("127.0.0.2")
	_, third := open("127.0.0.2")
	_, other := open("127.0.0.3")
	_, all := open("127.0.0.4")
	if got := []bool{served, second, third, other, all}; !slices.Equal(got, []bool{true, true, false, true, false}) {
		t.Errorf("served: %v", got)
	}
	first.Close()
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, again := open("127.0.0.4"); again {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a place that was given back is not taken")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
