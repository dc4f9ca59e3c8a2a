package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/tailscale/wireguard-go/tun"
	"golang.org/x/net/dns/dnsmessage"
)

// stubRetry is how soon a place that was taken is looked at again.
const stubRetry = 2 * time.Second

// runWorkspace is mode workspace: border, then names, then what is handed over, the whois socket and the tailnet. What
// fails before the border stands ends the process; a tailnet that cannot be joined does not, since the workspace is of
// use without it.
func runWorkspace(ctx context.Context, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	s, err := readSettings(getenv)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: s.LogLevel}))
	report := newReporter(stdout, Snapshot{State: stateStarting, Hostname: s.Hostname})
	if err := guardedWorkspace(ctx, s, stdin, report, log); err != nil {
		report.Update(func(snap *Snapshot) { snap.State, snap.Error = stateFailed, err.Error() })
		return err
	}
	return nil
}

func guardedWorkspace(ctx context.Context, s Settings, stdin io.Reader, report *Reporter, log *slog.Logger) error {
	// From the first moment, since without a handler the signal ends the process.
	reenrol := make(chan os.Signal, 1)
	signal.Notify(reenrol, syscall.SIGHUP)
	defer signal.Stop(reenrol)

	lock, err := lockState(s.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	gateways, err := bridgeGateways()
	if err != nil {
		return err
	}
	border := Border{Gateways: gateways, WireGuardPort: s.WireGuardPort, WorkerPort: s.WorkerPort, SSHPort: s.SSHPort}
	if err := border.Raise(); err != nil {
		return err
	}
	names := &laterNames{}
	defer serveNames(ctx, names, log)()
	report.Update(func(snap *Snapshot) { snap.Border = true })
	if !s.Join {
		report.Update(func(snap *Snapshot) { snap.State = stateDisabled })
		<-ctx.Done()
		return nil
	}
	takeHandovers(stdin, s, reenrol, log).Wait(ctx)
	return onTailnet(ctx, s, names, report, log, reenrol)
}

// serveNames has the DNS stub answer until the returned function is called. A program of the workspace may have taken
// its place, which is no reason for the workspace to lose its tailnet: it is tried again.
func serveNames(ctx context.Context, names TailnetNames, log *slog.Logger) func() {
	stub, err := startDNSStub(stubAddress, names, log)
	if err == nil {
		return stub.Close
	}
	log.Warn("names of the tailnet cannot be answered yet", "error", err)
	ctx, cancel := context.WithCancel(ctx)
	var trying sync.WaitGroup
	trying.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(stubRetry):
			}
			if stub, err := startDNSStub(stubAddress, names, log); err == nil {
				defer stub.Close()
				<-ctx.Done()
				return
			}
		}
	})
	return func() {
		cancel()
		trying.Wait()
	}
}

func onTailnet(ctx context.Context, s Settings, names *laterNames, report *Reporter, log *slog.Logger, reenrol <-chan os.Signal) error {
	s.prepareEnvironment()
	if s.staysAway() {
		log.Warn("with this coordinator, the node stays offline after an outage until the sidecar restarts; use https, or a private address such as the bridge's gateway", "coordinator", s.ControlURL)
	}
	var device tun.Device
	if s.TUN {
		opened, err := openTUN()
		if err != nil {
			log.Warn("no TUN device; ports are forwarded instead, and every ssh takes a key", "error", err)
		} else {
			device = opened
		}
	}
	if device == nil {
		if err := removeTUN(); err != nil {
			log.Warn("an earlier TUN device could not be removed", "error", err)
		}
	}
	node, err := startNode(s, device, report, log)
	if err != nil {
		return err
	}
	defer node.Close()
	if device == nil {
		own, err := bridgeAddresses()
		if err != nil {
			return err
		}
		stop, err := forwardWithoutTUN(node, own, s, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	keeper := Doorkeeper{Owners: s.Owners, Refused: s.Refused, Names: node, Status: report.Last}
	stop, err := serveWhois(s.RunDir, keeper, log)
	if err != nil {
		return err
	}
	defer stop()
	stopDoor, err := serveOpenCode(ctx, node, OpenCodeDoor{
		Keeper: keeper, Hostname: s.Hostname, Home: openCodeHome, Password: s.openCodePassword(), Log: log,
	})
	if err != nil {
		return err
	}
	defer stopDoor()
	names.set(node)
	go giveMemoryBack(ctx)
	if err := node.Run(ctx, reenrol); err != nil {
		return fmt.Errorf("The tailnet node ended: %w.", err)
	}
	return nil
}

// laterNames lets the stub answer before there is a tailnet to ask.
type laterNames struct {
	mu    sync.RWMutex
	names TailnetNames
}

func (l *laterNames) set(names TailnetNames) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = names
}

func (l *laterNames) Zones() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.names == nil {
		return nil
	}
	return l.names.Zones()
}

func (l *laterNames) Query(ctx context.Context, name string, kind dnsmessage.Type) ([]byte, error) {
	l.mu.RLock()
	names := l.names
	l.mu.RUnlock()
	if names == nil {
		return nil, errors.New("there is no tailnet yet")
	}
	return names.Query(ctx, name, kind)
}
