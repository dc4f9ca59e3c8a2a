package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockState keeps a second process off a state folder: two nodes with one key take each other's traffic. It waits a
// moment for a process that is just ending. The lock goes with the process.
func lockState(folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("The state folder %s cannot be made (%w); is its volume mounted writable?", folder, err)
	}
	file, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("The state folder %s cannot be written (%w); is its volume mounted writable?", folder, err)
	}
	for range 100 {
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return file, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	file.Close()
	return nil, fmt.Errorf("Another sidecar uses the state folder %s (%w); stop it first.", folder, err)
}
