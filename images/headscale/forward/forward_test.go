package forward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for what never comes.
const patience = 20 * time.Second

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// serving passes connections on to an address, and says where.
func serving(t *testing.T, to string) string {
	t.Helper()
	listener := listen(t)
	ended := make(chan struct{})
	go func() { Serve(listener, to); close(ended) }()
	t.Cleanup(func() {
		listener.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("it goes on although its listener is closed")
		}
	})
	return listener.Addr().String()
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	connection, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	connection.SetDeadline(time.Now().Add(patience))
	return connection.(*net.TCPConn)
}

// answering reads each connection to its end, and only then says it back.
func answering(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				said, _ := io.ReadAll(connection)
				connection.Write(said)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestEachDirectionHasItsOwnEnd(t *testing.T) {
	at := serving(t, answering(t))
	var asking sync.WaitGroup
	for number := range 20 {
		asking.Go(func() {
			connection := dial(t, at)
			said := bytes.Repeat([]byte{byte(number)}, 300_000)
			if _, err := connection.Write(said); err != nil {
				t.Error(err)
			}
			connection.CloseWrite()
			heard, err := io.ReadAll(connection)
			if err != nil || !bytes.Equal(heard, said) {
				t.Errorf("connection %d heard %d bytes: %v", number, len(heard), err)
			}
		})
	}
	asking.Wait()
}

func TestNobodyThereIsAnEnd(t *testing.T) {
	gone := listen(t)
	to := gone.Addr().String()
	gone.Close()
	connection := dial(t, serving(t, to))
	if heard, err := io.ReadAll(connection); len(heard) != 0 || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("heard %q: %v", heard, err)
	}
}

// failing cannot accept, the first time.
type failing struct {
	net.Listener
	once sync.Once
}

func (f *failing) Accept() (net.Conn, error) {
	var err error
	f.once.Do(func() { err = syscall.EMFILE })
	if err != nil {
		return nil, err
	}
	return f.Listener.Accept()
}

func TestWhatCannotBeAcceptedIsNotTheEnd(t *testing.T) {
	listener := &failing{Listener: listen(t)}
	go Serve(listener, answering(t))
	connection := dial(t, listener.Addr().String())
	connection.Write([]byte("hello"))
	connection.CloseWrite()
	if heard, err := io.ReadAll(connection); string(heard) != "hello" {
		t.Errorf("heard %q: %v", heard, err)
	}
}
