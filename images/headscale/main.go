// The embedded coordinator: headscale, which takes connections at one address, and a second address that leads there.
//
// Listening on all addresses instead would mean all of IPv6 too, and every other network that the machine is in.
package main

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/juanfont/headscale/cmd/headscale/cli"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"
)

// PERRY_ALSO_AT is the second address, ip:port; PERRY_AT is headscale's own. Both or neither are set.
const (
	alsoAt = "PERRY_ALSO_AT"
	at     = "PERRY_AT"
)

const dialTimeout = 5 * time.Second

func main() {
	log.Logger = log.Output(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.RFC3339, NoColor: true})
	if from := os.Getenv(alsoAt); from != "" && slices.Contains(os.Args[1:], "serve") {
		listener, err := net.Listen("tcp4", from)
		if err != nil {
			log.Fatal().Err(err).Msg("cannot listen at the second address")
		}
		log.Info().Msgf("listening at %s too", from)
		go forward(listener, os.Getenv(at))
	}
	cli.Execute()
}

// forward passes connections on until the listener closes.
func forward(listener net.Listener, to string) {
	for {
		from, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files, most likely: it passes.
			log.Warn().Err(err).Msg("cannot accept")
			time.Sleep(100 * time.Millisecond)
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
