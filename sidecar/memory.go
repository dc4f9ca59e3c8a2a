package main

import (
	"context"
	"runtime"
	"runtime/debug"
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
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		quiet := stats.TotalAlloc-before < memoryQuiet
		before = stats.TotalAlloc
		if quiet && busy {
			runtime.GC() // a pool's buffers live through one collection
			debug.FreeOSMemory()
		}
		busy = !quiet
	}
}
