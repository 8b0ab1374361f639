//go:build cgo

// Package main is the Fluent Bit output plugin "nines" as a shared library:
//
//	CGO_ENABLED=1 go build -buildmode=c-shared -o nines.so ./agent/fluentbit/plugin
//
// It owns the entry points that Fluent Bit calls and refuses to do more
// than translate between them and package fluentbit, which says what becomes of
// records and which keys there are. Chunks enter by FLBPluginFlushCtx; what it
// says goes to standard error, as Fluent Bit's own words do.
package main

import (
	"C"
	"log/slog"
	"os"
	"sync"
	"unsafe"

	"github.com/fluent/fluent-bit-go/output"

	"nines/agent/fluentbit"
	"nines/pkg/ops"
)

func main() {} // a shared library has none that runs

//export FLBPluginRegister
func FLBPluginRegister(def unsafe.Pointer) int {
	return output.FLBPluginRegister(def, fluentbit.Name, fluentbit.Description)
}

// FLBPluginInit is called once for each [OUTPUT].
//
//export FLBPluginInit
func FLBPluginInit(plugin unsafe.Pointer) int {
	log := logger()
	o, err := fluentbit.Configure(func(key string) string { return output.FLBPluginConfigKey(plugin, key) }, log)
	if err != nil {
		log.Error("[OUTPUT] cannot be used", "why", err)
		return output.FLB_ERROR
	}
	opened.Lock()
	opened.outputs = append(opened.outputs, o)
	opened.Unlock()
	output.FLBPluginSetContext(plugin, o)
	return output.FLB_OK
}

func logger() *slog.Logger {
	log, err := ops.Logger(os.Stderr, "info", false)
	if err != nil {
		panic(err) // of a level that is ours
	}
	return log.With("plugin", fluentbit.Name)
}

// opened are all outputs, for a Fluent Bit that does not say which one it ends.
var opened struct {
	sync.Mutex
	outputs []*fluentbit.Output
}

//export FLBPluginFlushCtx
func FLBPluginFlushCtx(ctx, data unsafe.Pointer, length C.int, tag *C.char) int {
	o, _ := output.FLBPluginGetContext(ctx).(*fluentbit.Output) // nil is answered with Error
	chunk := unsafe.Slice((*byte)(data), int(length))
	return answers[o.Flush(C.GoString(tag), chunk, fluentbit.Entries(chunk, open))]
}

var answers = map[fluentbit.Answer]int{
	fluentbit.Error: output.FLB_ERROR, fluentbit.OK: output.FLB_OK, fluentbit.Retry: output.FLB_RETRY,
}

// open returns the decoder of a part of a chunk, which is never empty.
func open(part []byte) fluentbit.Next {
	d := output.NewDecoder(unsafe.Pointer(unsafe.SliceData(part)), len(part))
	return func() (int, any, map[any]any) {
		ret, at, record := output.GetRecord(d)
		if t, ok := at.(output.FLBTime); ok {
			at = t.Time
		}
		return ret, at, record
	}
}

// FLBPluginExitCtx is called for each [OUTPUT] by a Fluent Bit that knows it.
//
//export FLBPluginExitCtx
func FLBPluginExitCtx(ctx unsafe.Pointer) int {
	o, _ := output.FLBPluginGetContext(ctx).(*fluentbit.Output)
	return shut(o)
}

// FLBPluginExit is called instead by one that does not, for each of them too.
//
//export FLBPluginExit
func FLBPluginExit() int {
	opened.Lock()
	defer opened.Unlock()
	return shut(opened.outputs...)
}

func shut(outputs ...*fluentbit.Output) int {
	answer := output.FLB_OK
	for _, o := range outputs {
		if err := o.Close(); err != nil {
			logger().Error("close [OUTPUT]", "why", err)
			answer = output.FLB_ERROR
		}
	}
	return answer
}
