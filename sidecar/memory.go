package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	memoryInterval = 15 * time.Second
	memoryQuiet    = 4 << 20 // bytes that are allocated in an interval in which nothing goes on
)

// giveMemoryBack returns what joining and bulk transfers leave behind: wireguard-go's packet buffers of 64 KiB stay
// with the Go runtime otherwise (tailscale#7272). It acts once, when it gets quiet; GOMEMLIMIT bounds the peak.
func giveMemoryBack(ctx context.Context) {
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	var before uint64
	for busy := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := allocated()
		quiet := now-before < memoryQuiet
		before = now
		if quiet && busy {
			runtime.GC() // a pool's buffers live through one collection
			debug.FreeOSMemory()
		}
		busy = !quiet
	}
}

// allocated is how many bytes have been allocated since this process began. Asking does not stop it, as
// runtime.ReadMemStats does.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
