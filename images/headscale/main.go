// The embedded coordinator: headscale, which takes connections at one address, and a second address that leads there.
//
// Listening on all addresses instead would mean all of IPv6 too, and every other network that the machine is in.
package main

import (
	"net"
	"os"
	"slices"
	"time"

	"github.com/juanfont/headscale/cmd/headscale/cli"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"

	"perry/headscale/forward"
)

// PERRY_ALSO_AT is the second address, ip:port; PERRY_AT is headscale's own. Both or neither are set.
const (
	alsoAt = "PERRY_ALSO_AT"
	at     = "PERRY_AT"
)

func main() {
	log.Logger = log.Output(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.RFC3339, NoColor: true})
	if from := os.Getenv(alsoAt); from != "" && slices.Contains(os.Args[1:], "serve") {
		listener, err := net.Listen("tcp4", from)
		if err != nil {
			log.Fatal().Err(err).Msg("cannot listen at the second address")
		}
		log.Info().Msgf("listening at %s too", from)
		go forward.Serve(listener, os.Getenv(at))
	}
	cli.Execute()
}
