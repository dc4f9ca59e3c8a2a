package main

import (
	"os"
	"os/signal"
	"syscall"
)

// runSandbox is the pause process of a pod: it owns the network namespace, the hostname and the published port, so
// that workspace and sidecar come and go without each other. As PID 1 it reaps what is reparented to it. It returns
// on SIGTERM or SIGINT.
func runSandbox() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for got := range signals {
		if got != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

func reap() {
	for {
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}
