// Package bench measures both programs against peers on one host in one run
// and prints one table (make bench, build tag e2e). It asserts nothing about
// speed: hosts differ and are shared, so what counts are the ratios within a
// run. Work is counted by what the far end received, and its cost as CPU time
// of the measured process alone; sources and sinks are other processes.
package bench
