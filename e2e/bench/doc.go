// Package bench measures both programs against peers on one host in one run
// and prints one table (make bench, build tag e2e). It asserts nothing about
// speed: hosts differ and are shared, so what counts are the ratios within a
// run; goals stand beside the figures, and a calibration of the host above them.
// It does fail where what was measured is not what the figure says: an
// objective without events, a rule that could not be evaluated, a command that
// broke.
//
// Costs are CPU time of the measured process alone; sources, sinks and the
// writers of histories are other processes. The peers of SLOs are the real
// Prometheus with the rules of the real Sloth, and with those that our convert
// writes. All sides read the same SLOs and take the same requests at the same
// time, over a month of history that is written as blocks of a TSDB, as the
// peers' rules read it. The error of a ratio is that against a generator that
// counts each event as it happens.
//
// Log shippers have a core for themselves and the sink has another. It reads
// every item and answers as Elasticsearch does; ours waits for those answers,
// syncs its checkpoints and adds the labels of pods, for which an API server is
// played. What a row says of memory is resident (VmRSS), with the program's file
// in it, and the part that is its own (RssAnon).
//
// Figures of single packages come from their own Go benchmarks: add a line to
// packageBenchmarks, and the table has it.
package bench
