// Package pause is mode sandbox: the process that owns a pod's network namespace, so that workspace and sidecar come
// and go without each other.
//
// There is one per workspace for as long as that lives, so it is kept under 2 MB: it runs from init, before the
// packages of the Tailscale libraries have initialised. Go initialises the first package, by import path, whose imports
// are ready (language specification, "Package initialization"; Go 1.21), and this one imports nothing but syscall,
// which comes before nearly all. Danger: another import here, fmt for one, brings the megabytes back (a test counts).
package pause

import (
	"syscall"
	"unsafe"
)

const signalSetBytes = 8

func init() {
	if Wanted(commandLine()) {
		run()
	}
}

// Wanted tells whether a command line, with its arguments ended by zero bytes, asks for mode sandbox and nothing more.
func Wanted(line []byte) bool {
	const mode = "\x00sandbox\x00"
	return len(line) > len(mode) && string(line[len(line)-len(mode):]) == mode && count(line, 0) == 2
}

func count(line []byte, what byte) (n int) {
	for _, b := range line {
		if b == what {
			n++
		}
	}
	return n
}

// commandLine is read from /proc, since package os is not ready yet. What does not fit is not our mode.
func commandLine() []byte {
	file, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(file)
	line := make([]byte, 256)
	n, err := syscall.Read(file, line)
	if err != nil || n == len(line) {
		return nil
	}
	return line[:n]
}

// run waits for SIGTERM or SIGINT and exits with status 0. What is reparented to it meanwhile is reaped by the kernel.
//
// Go's runtime keeps these signals unblocked in its other threads and would take them, with exit status 2. So they are
// ignored, which takes them from the runtime, and blocked in this, the leading thread, for which an ignored signal
// is kept all the same (kernel/signal.c, sig_ignored). Packages initialise on the leading thread.
func run() {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD} {
		ignore(signal)
	}
	wanted := bit(syscall.SIGTERM) | bit(syscall.SIGINT)
	const block = 0
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, uintptr(unsafe.Pointer(&wanted)), 0, signalSetBytes, 0, 0)
	for {
		_, _, failed := syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&wanted)), 0, 0, signalSetBytes, 0, 0)
		if failed == 0 {
			syscall.Exit(0)
		}
	}
}

// ignore sets SIG_IGN, with which SIGCHLD means that the kernel reaps (signal(7)).
func ignore(signal syscall.Signal) {
	const sigIgn = 1
	action := struct{ handler, flags, restorer, mask uint64 }{handler: sigIgn}
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, signalSetBytes, 0, 0)
}

func bit(signal syscall.Signal) uint64 { return 1 << (uint(signal) - 1) }
