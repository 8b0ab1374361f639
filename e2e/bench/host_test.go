//go:build e2e

package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

const calibrationInts = 4_000_000

// calibrate returns a line that makes figures of different hosts comparable:
// the time in which one core, and all at once, sort the same numbers. The best
// of several runs counts, since a shared host only ever adds to it.
func calibrate() string {
	one, all := time.Hour, time.Hour
	for range 5 {
		one = min(one, sorting(1))
	}
	for range 3 {
		all = min(all, sorting(runtime.NumCPU()))
	}
	return fmt.Sprintf("host: %s/%s, %d cores, %s; sorting %d integers takes %.2f s on one core and %.2f s on each of all at once",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), calibrationInts, one.Seconds(), all.Seconds())
}

func sorting(cores int) time.Duration {
	lists := make([][]uint64, cores)
	for i := range lists {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		lists[i] = make([]uint64, calibrationInts)
		for k := range lists[i] {
			lists[i][k] = random.Uint64()
		}
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for _, list := range lists {
		wg.Go(func() { slices.Sort(list) })
	}
	wg.Wait()
	return time.Since(begun)
}
