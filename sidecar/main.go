// Command perry-sidecar stands beside a workspace in its network namespace: it holds that namespace open (mode
// sandbox, by way of mode border), makes it a guarded node of the tailnet (mode workspace), and sets the few rules that the host needs for
// this (mode host-rules). In mode gateway it is the control plane's own node on the tailnet.
//
// Where to look: settings (environment), handover (secrets, on standard input), sandbox (mode border), workspace (the
// order of things in mode workspace), border (what may enter), tun (the interface), node (joining and staying on the
// tailnet), dns (names), identity (who may ssh without a key), forward (life without a TUN device), gateway, proxy and
// wayout (mode gateway), status (what the control plane reads), failure (sentences for people), pause (mode sandbox),
// hostrules (mode host-rules).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	// Mode sandbox ends there and never comes as far as main.
	_ "perry/sidecar/pause"
)

const usage = `perry-sidecar <mode>

  workspace    guard this network namespace and join the tailnet; settings are PERRY_* variables
  sandbox      hold this network namespace open until a signal comes
  border       guard this network namespace, then become mode sandbox
  gateway      join the tailnet for the control plane, and pass requests on to its socket with who sent them
  host-rules   put the host's firewall rules in place (--remove takes them away again)
`

func main() {
	os.Exit(run(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. The exit status is 0 for a graceful end, 1 for a failure and 2 for wrong usage.
func run(args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	switch args[0] {
	case "workspace":
		err = runWorkspace(ctx, getenv, stdin, stdout, stderr)
	case "border":
		err = runBorder(getenv, stdout)
	case "gateway":
		err = runGateway(ctx, getenv, stdout, stderr)
	case "host-rules":
		err = runHostRules(ctx, args[1:], getenv, stderr)
	default:
		fmt.Fprintf(stderr, "There is no mode %q.\n%s", args[0], usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}
