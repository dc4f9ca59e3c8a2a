// Package forward passes connections on to another address.
package forward

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/rs/zerolog/log"
)

const dialTimeout = 5 * time.Second

// afterError is how long it waits when no connection can be accepted.
const afterError = 100 * time.Millisecond

// Serve passes connections on until the listener closes. What goes wrong with one is logged, and ends that one.
func Serve(listener net.Listener, to string) {
	for {
		from, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files, most likely: it passes.
			log.Warn().Err(err).Msg("cannot accept")
			time.Sleep(afterError)
			continue
		}
		go pass(from, to)
	}
}

// pass carries one connection, each direction to its own end.
func pass(from net.Conn, to string) {
	defer from.Close()
	onward, err := net.DialTimeout("tcp4", to, dialTimeout)
	if err != nil {
		log.Warn().Err(err).Msg("cannot pass a connection on")
		return
	}
	defer onward.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{from, onward}, {onward, from}} {
		go func() {
			io.Copy(way[1], way[0]) //nolint:errcheck // Whatever ended it, the other side is told.
			way[1].(*net.TCPConn).CloseWrite()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}
