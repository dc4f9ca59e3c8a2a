package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// identityHeader carries a Caller as JSON in base64url. The control plane believes it on its socket alone.
	identityHeader = "Perry-Identity"
	// ownHeaders are for the gateway to say. What a caller says under such a name is taken away.
	ownHeaders = "perry-"

	wakePath = "/hooks/wake"

	// A body that stands still for so long, in either direction, ends its connection. There is no bound on how long a
	// request may take otherwise: a start takes minutes, and an upload what the line takes.
	stillTimeout = time.Minute
	socketDial   = 5 * time.Second

	// What a caller whose upload was refused still sends is read for so long, so that the refusal reaches it.
	lingerTimeout = time.Second
)

const (
	awaySentence   = "The gateway is there, but the control plane behind it does not answer; start it on its machine with `perry agent run`."
	brokenSentence = "The control plane went away while it answered; what was asked for may have happened: look with `perry list`."
	foreignCaller  = "The tailnet does not know who you are, so this Perry does not answer you."
	wakesSentence  = "This port is for POST /hooks/wake alone; the API is at port 80."
)

// Callers answers who is at the other end of a connection from the tailnet.
type Callers interface {
	Caller(ctx context.Context, from string) (Caller, error)
}

// newProxy passes requests on to the control plane's socket, each with who sent it.
func newProxy(callers Callers, socket string, log *slog.Logger) http.Handler {
	dialer := net.Dialer{Timeout: socketDial}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, err
			}
			return &listening{Conn: conn}, nil
		},
		// Dialling a socket costs nothing, and one that is kept open may be closed by the other side just when a request
		// that must not be sent twice is on its way.
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	passing := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		// Headers that hold for one connection are gone before this is called, so that no `Connection: Perry-Identity`
		// takes away what it sets.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "control-plane"
			r.Out.Host = r.In.Host // which the control plane checks
			dropOwnHeaders(r.Out.Header)
			r.Out.Header[identityHeader] = r.In.Context().Value(callerKey{}).([]string)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var dial *net.OpError
			switch {
			case r.Context().Err() != nil: // the caller went away
			case errors.As(err, &dial) && dial.Op == "dial":
				log.Debug("the control plane is away", "error", err)
				refuse(w, http.StatusBadGateway, "BAD_GATEWAY", awaySentence)
			default:
				log.Warn("the control plane broke off", "path", r.URL.Path, "error", err)
				refuse(w, http.StatusBadGateway, "BAD_GATEWAY", brokenSentence)
			}
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		// An answer may begin before the body has ended; Go's server waits for it otherwise.
		_ = control.EnableFullDuplex()
		answer := &patient{ResponseWriter: w, control: control}
		// What the server itself still writes after this is bounded too.
		defer func() { _ = control.SetWriteDeadline(time.Now().Add(stillTimeout)) }()
		caller, err := callers.Caller(r.Context(), r.RemoteAddr)
		if err != nil {
			log.Warn("a caller that the tailnet does not know", "from", r.RemoteAddr, "error", err)
			refuse(answer, http.StatusForbidden, "FORBIDDEN", foreignCaller)
			return
		}
		if r.Method == http.MethodConnect || !strings.HasPrefix(r.URL.Path, "/") {
			refuse(answer, http.StatusBadRequest, "BAD_REQUEST", "This is no proxy; ask for a path of Perry's.")
			return
		}
		said, err := json.Marshal(caller)
		if err != nil {
			refuse(answer, http.StatusInternalServerError, "INTERNAL_SERVER_ERROR", foreignCaller)
			return
		}
		header := []string{base64.RawURLEncoding.EncodeToString(said)}
		// The server's own request keeps its body: what is left of it decides whether the connection is used again.
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, header))
		if r.Body != nil && r.Body != http.NoBody {
			body := &patientBody{ReadCloser: r.Body, control: control, waits: r.Header.Get("Expect") != ""}
			r.Body = body
			defer body.linger()
		}
		passing.ServeHTTP(answer, r)
	})
}

type callerKey struct{}

// dropOwnHeaders takes away every header that could be read as one of ours, in whatever case, with underscores as well.
func dropOwnHeaders(headers http.Header) {
	for name := range headers {
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), ownHeaders) {
			delete(headers, name)
		}
	}
}

// wakesOnly lets wakes through, and nothing else.
func wakesOnly(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != wakePath:
			refuse(w, http.StatusNotFound, "NOT_FOUND", wakesSentence)
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			refuse(w, http.StatusMethodNotAllowed, "METHOD_NOT_SUPPORTED", wakesSentence)
		default:
			proxy.ServeHTTP(w, r)
		}
	})
}

// refuse answers with an error as the control plane's API has them.
func refuse(w http.ResponseWriter, status int, code, sentence string) {
	body, err := json.Marshal(map[string]any{"json": map[string]any{
		"defined": false, "code": code, "status": status, "message": sentence,
	}})
	if err != nil {
		panic(err) // strings
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// patient is an answer whose every write may take stillTimeout.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(stillTimeout))
	return p.ResponseWriter.Write(b)
}

func (p *patient) FlushError() error {
	_ = p.control.SetWriteDeadline(time.Now().Add(stillTimeout))
	return p.control.Flush()
}

// Unwrap lets an upgrade take over the connection.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// listening is a connection on which an answer is awaited also when nobody reads the rest of the request: who refuses an
// upload answers and closes before it is over, and Go's client would report the broken pipe in place of the answer.
type listening struct {
	net.Conn
	deaf atomic.Bool
}

func (l *listening) Write(b []byte) (int, error) {
	if l.deaf.Load() {
		return len(b), nil
	}
	n, err := l.Conn.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		l.deaf.Store(true)
		return len(b), nil
	}
	return n, err
}

// CloseWrite says that the request is over.
func (l *listening) CloseWrite() error { return l.Conn.(*net.UnixConn).CloseWrite() }

// patientBody is a request's body whose every read may take stillTimeout.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
	waits   bool       // nothing is sent before we read (Expect: 100-continue)
	mu      sync.Mutex // for who reads
	closed  atomic.Bool
	began   bool
	ended   bool
}

func (p *patientBody) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	p.began = true
	_ = p.control.SetReadDeadline(time.Now().Add(stillTimeout))
	// Taken back: the server goes on reading, to see whether the caller is still there, for as long as the answer takes.
	defer func() { _ = p.control.SetReadDeadline(time.Time{}) }()
	n, err := p.ReadCloser.Read(b)
	p.ended = p.ended || err != nil
	return n, err
}

// Close ends the passing on. The rest is linger's.
func (p *patientBody) Close() error {
	p.closed.Store(true)
	return nil
}

// linger sends what there is of an answer, and reads on for a moment: a connection that is closed under somebody who is
// sending is reset, and what was answered may be lost.
func (p *patientBody) linger() {
	p.closed.Store(true)
	end := time.Now().Add(lingerTimeout)
	_ = p.control.SetReadDeadline(end) // wakes who still waits for more
	p.mu.Lock()
	defer p.mu.Unlock()
	// An answer may be faster than who passes the body on, and then nobody has begun.
	if p.waits && !p.began || p.ended {
		_ = p.control.SetReadDeadline(time.Time{})
		return
	}
	_ = p.control.Flush()
	_ = p.control.SetReadDeadline(end)
	_, _ = io.Copy(io.Discard, p.ReadCloser)
	_ = p.control.SetReadDeadline(time.Time{})
}

// bound counts connections, of everybody and of each address.
type bound struct {
	mu             sync.Mutex
	most, mostEach int
	all            int
	of             map[string]int
}

func newBound(most, mostEach int) *bound {
	return &bound{most: most, mostEach: mostEach, of: map[string]int{}}
}

// around closes at once what is above the bounds.
func (b *bound) around(listener net.Listener) net.Listener { return &boundListener{listener, b} }

func (b *bound) take(who string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.most || b.of[who] >= b.mostEach {
		return false
	}
	b.all++
	b.of[who]++
	return true
}

func (b *bound) give(who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.of[who]--; b.of[who] == 0 {
		delete(b.of, who)
	}
}

type boundListener struct {
	net.Listener
	bound *bound
}

func (l *boundListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who, _, err := net.SplitHostPort(conn.RemoteAddr().String())
		if err != nil {
			who = conn.RemoteAddr().String()
		}
		if l.bound.take(who) {
			return &boundConn{Conn: conn, give: sync.OnceFunc(func() { l.bound.give(who) })}, nil
		}
		conn.Close()
	}
}

// boundConn gives its place back when it is closed.
type boundConn struct {
	net.Conn
	give func()
}

func (c *boundConn) Close() error {
	defer c.give()
	return c.Conn.Close()
}

// CloseWrite lets the server end an answer gracefully.
func (c *boundConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
