package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/net/netutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // takes requests that are packed
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"nines/pkg/metric"
)

// Bounds of connections and times.
const (
	// maxConnections bounds those of each address; further ones wait.
	maxConnections = 256
	// requestTime bounds a request from its first byte to the last of its answer,
	// so that a slow sender does not keep a slot.
	requestTime = 30 * time.Second
	// stopTime is what requests that are under way get when the agent stops.
	stopTime = 5 * time.Second
	// certificateAge is how long a certificate is used before its files are read
	// again.
	certificateAge = time.Minute
)

// Run answers requests until the context ends; what is under way then still has
// stopTime.
func (r *Receiver) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	if r.deltas != nil {
		if err := r.deltas.proc.Start(ctx, nil); err != nil {
			return errors.Join(fmt.Errorf("start adding up deltas: %w", err), r.Close())
		}
	}
	start := func(name string, run func(context.Context) error) {
		all.Go(func() {
			if err := run(ctx); err != nil {
				fail(fmt.Errorf("serve OTLP over %s: %w", name, err))
			}
		})
	}
	if r.http != nil {
		start("http", r.serveHTTP)
	}
	if r.grpc != nil {
		start("grpc", r.serveGRPC)
	}
	<-ctx.Done()
	all.Wait()
	var err error
	if r.deltas != nil {
		err = r.deltas.proc.Shutdown(context.WithoutCancel(ctx))
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		err = errors.Join(cause, err)
	}
	return err
}

// bound puts the bound of connections, and TLS where it is set, on a listener.
func bound(l net.Listener, secure *certificate, key string) net.Listener {
	l = netutil.LimitListener(l, maxConnections)
	if secure == nil {
		return l
	}
	protocols := []string{"h2", "http/1.1"}
	if key == "grpc" {
		protocols = protocols[:1]
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: secure.get, NextProtos: protocols, MinVersion: tls.VersionTLS12})
}

// certificate is that of both addresses, read anew now and then, because those
// in pods are replaced.
type certificate struct {
	cert, key string

	mu   sync.Mutex
	have *tls.Certificate // guarded by mu
	read time.Time        // guarded by mu
}

// newCertificate returns nil where none is configured.
func newCertificate(cfg Config) (*certificate, error) {
	if cfg.CertFile == "" {
		return nil, nil
	}
	c := &certificate{cert: cfg.CertFile, key: cfg.KeyFile}
	if _, err := c.get(nil); err != nil {
		return nil, fmt.Errorf("cert_file: %w: name a certificate and its key, both in PEM", err)
	}
	return c, nil
}

// get returns the newest certificate that can be read.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have != nil && time.Since(c.read) < certificateAge {
		return c.have, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
		c.have = &pair
	case c.have == nil:
		return nil, err
	}
	c.read = time.Now()
	return c.have, nil
}

func (r *Receiver) serveHTTP(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", r.answerHTTP)
	mux.HandleFunc("/", func(w http.ResponseWriter, q *http.Request) {
		http.Error(w, "this address takes POST /v1/metrics (OTLP metrics) alone", http.StatusNotFound)
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTime,
		WriteTimeout:      requestTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(r.http) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		if err := server.Close(); err != nil {
			return err
		}
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answerHTTP answers one request as OTLP over HTTP wants it.
func (r *Receiver) answerHTTP(w http.ResponseWriter, q *http.Request) {
	kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	isJSON := kind == "application/json"
	if err != nil || !isJSON && kind != "application/x-protobuf" {
		r.refuse(w, false, &refusal{metric.OTLPInvalid, 415, codes.InvalidArgument, false,
			fmt.Sprintf("Content-Type %q is not taken: send application/x-protobuf or application/json", q.Header.Get("Content-Type"))})
		return
	}
	packed := false
	switch encoding := q.Header.Get("Content-Encoding"); strings.ToLower(encoding) {
	case "", "identity", "none":
	case "gzip":
		packed = true
	default:
		r.refuse(w, isJSON, &refusal{metric.OTLPInvalid, 415, codes.InvalidArgument, false,
			fmt.Sprintf("Content-Encoding %q is not taken: send gzip or none (OTEL_EXPORTER_OTLP_COMPRESSION)", encoding)})
		return
	}
	if !r.enter() {
		r.refuse(w, isJSON, busy)
		return
	}
	defer r.leave()
	body, refused := readBody(http.MaxBytesReader(w, q.Body, int64(r.cfg.MaxBody)), packed, int64(r.cfg.MaxBody))
	if refused != nil {
		r.refuse(w, isJSON, refused)
		return
	}
	resp, refused := r.take(q.Context(), "http", body, isJSON)
	if refused != nil {
		r.write(w, isJSON, refused)
		return
	}
	var out []byte
	if isJSON {
		out, err = resp.MarshalJSON()
	} else {
		out, err = resp.MarshalProto()
	}
	if err != nil {
		r.write(w, isJSON, &refusal{metric.OTLPUnavailable, 500, codes.Internal, false, err.Error()})
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(out) // a sender that went away sends again
}

// readBody reads a body whose packed and unpacked sizes are both bounded.
func readBody(from io.Reader, packed bool, limit int64) ([]byte, *refusal) {
	tooLarge := &refusal{metric.OTLPTooLarge, 413, codes.InvalidArgument, false,
		fmt.Sprintf("the request has more than %d bytes: send smaller batches, or raise max_body in the agent's metrics.otlp", limit)}
	invalid := func(what string, err error) *refusal {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return tooLarge
		}
		return &refusal{metric.OTLPInvalid, 400, codes.InvalidArgument, false, what + ": " + err.Error()}
	}
	if packed {
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, invalid("the request is no valid gzip at its beginning", err)
		}
		from = z
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(from, limit+1))
	switch {
	case err != nil && packed:
		return nil, invalid(fmt.Sprintf("the request is no valid gzip behind %d unpacked bytes", n), err)
	case err != nil:
		return nil, invalid(fmt.Sprintf("the request ends early, behind %d bytes", n), err)
	case n > limit:
		return nil, tooLarge
	}
	return b.Bytes(), nil
}

// refuse counts a refusal that take did not see, and answers it.
func (r *Receiver) refuse(w http.ResponseWriter, isJSON bool, f *refusal) {
	r.requests["http"+f.result].Inc()
	r.write(w, isJSON, f)
}

// write answers with google.rpc.Status, as OTLP wants it.
func (r *Receiver) write(w http.ResponseWriter, isJSON bool, f *refusal) {
	message := status.New(f.code, f.message).Proto()
	kind, marshal := "application/x-protobuf", proto.Marshal
	if isJSON {
		kind, marshal = "application/json", protojson.Marshal
	}
	out, err := marshal(message)
	if err != nil {
		http.Error(w, f.message, f.status)
		return
	}
	if f.again {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(f.status)
	_, _ = w.Write(out) // a sender that went away sends again
}

// frame is a message as its bytes. The service below is described by hand, so
// that what gRPC received can be scanned before it is built, and is answered
// with the same words as over HTTP.
type frame struct{ data []byte }

// frames is the codec of frames.
type frames struct{}

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("otlp: a %T is no frame", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.data)}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("otlp: a %T is no frame", v)
	}
	f.data = data.Materialize()
	return nil
}

func (r *Receiver) service() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.metrics.v1.MetricsService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in frame
			if err := decode(&in); err != nil {
				return nil, err
			}
			resp, refused := r.take(ctx, "grpc", in.data, false)
			if refused != nil {
				return nil, refused.grpc()
			}
			out, err := resp.MarshalProto()
			if err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
			return &frame{out}, nil
		}}},
	}
}

// grpc is the refusal as an error of gRPC, with what makes a sender try again.
func (f *refusal) grpc() error {
	s := status.New(f.code, f.message)
	if f.again {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}); err == nil {
			s = with
		}
	}
	return s.Err()
}

func (r *Receiver) serveGRPC(ctx context.Context) error {
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(frames{}),
		grpc.MaxRecvMsgSize(int(r.cfg.MaxBody)),
		grpc.MaxConcurrentStreams(2*MaxConcurrent),
		grpc.MaxHeaderListSize(16<<10),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 5 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		// Before anything of the body is read: bodies are what takes memory.
		grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
			if !r.enter() {
				r.requests["grpc"+metric.OTLPBusy].Inc()
				return ctx, busy.grpc()
			}
			// The context ends with the stream, answered or not.
			ctx, cancel := context.WithTimeout(ctx, requestTime)
			context.AfterFunc(ctx, func() { cancel(); r.leave() })
			return ctx, nil
		}),
	)
	server.RegisterService(r.service(), nil)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(r.grpc) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	timer := time.AfterFunc(stopTime, server.Stop)
	server.GracefulStop()
	timer.Stop()
	return <-failed
}
