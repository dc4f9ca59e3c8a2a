package main

import (
	"fmt"
	"io"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// borderStands is all that a sandbox ever says: the control plane starts what joins the namespace after it.
const borderStands = `{"border":true}`

// runBorder is how the sandbox of a pod begins. The border is up before anything else is in the namespace, whenever
// Docker makes that anew; then the process becomes mode sandbox, which is small and may do nothing. The sidecar raises
// the border again when it starts: the pod's may be of an earlier version.
func runBorder(getenv func(string) string, stdout io.Writer) error {
	border, err := readBorder(getenv)
	if err != nil {
		return err
	}
	if border.Gateways, err = bridgeGateways(); err != nil {
		return err
	}
	if err := border.Raise(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, borderStands); err != nil {
		return fmt.Errorf("The sandbox cannot say that its border stands (%w).", err)
	}
	return becomeSandbox()
}

// becomeSandbox replaces this process by mode sandbox, without its right to change the network. Docker's
// no-new-privileges keeps root from getting that back with the exec.
func becomeSandbox() error {
	runtime.LockOSThread() // capabilities are a thread's, and the one that executes hands its own on
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("The sandbox cannot give up its capabilities (%w).", err)
	}
	err := syscall.Exec("/proc/self/exe", []string{"perry-sidecar", "sandbox"}, nil)
	return fmt.Errorf("The sandbox cannot become small (%w).", err)
}
