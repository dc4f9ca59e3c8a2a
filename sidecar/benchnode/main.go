// Benchnode joins a tailnet with tsnet and does nothing else: the floor that the start of a workspace is compared with.
// Usage: benchnode STATE-DIR HOSTNAME CONTROL-URL, with the auth key on standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchnode:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: benchnode STATE-DIR HOSTNAME CONTROL-URL")
	}
	key, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	node := &tsnet.Server{
		Dir:        args[0],
		Hostname:   args[1],
		ControlURL: args[2],
		AuthKey:    strings.TrimSpace(string(key)),
		Logf:       logger.Discard,
		UserLogf:   logger.Discard,
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	_, err = node.Up(ctx)
	// No Close: it waits for things that do not matter to a process that ends.
	return err
}
