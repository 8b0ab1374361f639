// Package otlp takes OpenTelemetry's metrics (OTLP over HTTP and gRPC) from the
// pods of this node and turns them into samples by Prometheus' own rules: its
// converter does the work, so that names, labels and types are those that a
// Prometheus with the same settings would store.
//
// It owns the two addresses, the bounds of what a sender may cost, and the
// answer: a request is acknowledged when its samples are durable in the sink,
// and what is not taken is told with its reason. It refuses to keep points, and
// deltas unless it is told to add them up. Requests enter by HTTP and gRPC;
// samples leave through a storage.AppendableV2.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc/codes"

	"nines/pkg/metric"
	"nines/pkg/ops"
)

// maxSamples bounds what one request may become. A histogram of many buckets is
// a sample for each of them.
const maxSamples = 100_000

// maxHelp bounds the description of a metric, in bytes; what is longer is cut.
const maxHelp = 1 << 10

// retryAfter is what senders are told to wait for when they come at a bad time.
const retryAfter = time.Second

// Receiver takes requests and hands their samples to the sink.
type Receiver struct {
	cfg      Config
	settings prometheusremotewrite.Settings
	sink     storage.AppendableV2
	log      *slog.Logger
	deltas   *deltas // nil: deltas are refused

	http, grpc net.Listener  // nil: off
	slots      chan struct{} // one is held while a request is under way
	parts      atomic.Int64  // of the requests that are under way

	requests            map[string]*metrics.Counter // by transport and result
	points              map[string]*metrics.Counter // by result
	samples, attributes *metrics.Counter

	mu      sync.Mutex
	failing bool // the sink did not take the newest request; guarded by mu
}

// New opens the addresses. All counters exist from here on, at 0.
func New(cfg Config, sink storage.AppendableV2, log *slog.Logger, set *metrics.Set) (r *Receiver, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	promote := config.OTLPConfig{
		PromoteAllResourceAttributes: cfg.PromoteAllResourceAttributes,
		PromoteResourceAttributes:    cfg.PromoteResourceAttributes,
		IgnoreResourceAttributes:     cfg.IgnoreResourceAttributes,
	}
	r = &Receiver{
		cfg: cfg, sink: sink, log: log,
		settings: prometheusremotewrite.Settings{
			AddMetricSuffixes:                    cfg.TranslationStrategy.ShouldAddSuffixes(),
			AllowUTF8:                            !cfg.TranslationStrategy.ShouldEscape(),
			PromoteResourceAttributes:            prometheusremotewrite.NewPromoteResourceAttributes(promote),
			KeepIdentifyingResourceAttributes:    cfg.KeepIdentifyingResourceAttributes,
			ConvertHistogramsToNHCB:              cfg.ConvertHistogramsToNHCB,
			PromoteScopeMetadata:                 cfg.PromoteScopeMetadata,
			LabelNameUnderscoreSanitization:      cfg.LabelNameUnderscoreSanitization,
			LabelNamePreserveMultipleUnderscores: cfg.LabelNamePreserveMultipleUnderscores,
		},
		slots:    make(chan struct{}, cfg.Concurrent),
		requests: map[string]*metrics.Counter{}, points: map[string]*metrics.Counter{},
		samples:    set.NewCounter(metric.AgentOTLPSamples),
		attributes: set.NewCounter(metric.AgentOTLPAttributes),
	}
	for _, transport := range []string{"http", "grpc"} {
		for _, result := range []string{metric.OTLPOK, metric.OTLPPartial, metric.OTLPInvalid, metric.OTLPTooLarge, metric.OTLPBusy, metric.OTLPUnavailable} {
			r.requests[transport+result] = set.NewCounter(fmt.Sprintf("%s{transport=%q,result=%q}", metric.AgentOTLPRequests, transport, result))
		}
	}
	for _, result := range pointResults {
		r.points[result] = set.NewCounter(fmt.Sprintf("%s{result=%q}", metric.AgentOTLPPoints, result))
	}
	set.NewGauge(metric.AgentOTLPRunning, func() float64 { return float64(len(r.slots)) })
	defer func() {
		if err != nil {
			err = fmt.Errorf("otlp: %w", errors.Join(err, r.Close()))
			r = nil
		}
	}()
	if cfg.DeltasToCumulative {
		if r.deltas, err = newDeltas(); err != nil {
			return r, err
		}
	}
	secure, err := newCertificate(cfg)
	if err != nil {
		return r, err
	}
	for _, a := range []struct {
		key, address string
		to           *net.Listener
	}{{"http", cfg.HTTP, &r.http}, {"grpc", cfg.GRPC, &r.grpc}} {
		if a.address == "" {
			continue
		}
		l, err := ops.Listen(a.key, a.address)
		if err != nil {
			return r, err
		}
		*a.to = bound(l, secure, a.key)
	}
	return r, nil
}

// Close gives the addresses back where Run was not called.
func (r *Receiver) Close() error {
	var errs []error
	for _, l := range []net.Listener{r.http, r.grpc} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// HTTPAddress is where POST /v1/metrics is answered, nil where it is off.
func (r *Receiver) HTTPAddress() net.Addr { return addressOf(r.http) }

// GRPCAddress is where MetricsService is answered, nil where it is off.
func (r *Receiver) GRPCAddress() net.Addr { return addressOf(r.grpc) }

func addressOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

// refusal is an answer other than success.
type refusal struct {
	result  string // of AgentOTLPRequests
	status  int    // of HTTP
	code    codes.Code
	again   bool // the sender shall try again, after retryAfter
	message string
}

var busy = &refusal{metric.OTLPBusy, 429, codes.ResourceExhausted, true, "as many requests as may be under way at once are, or as large ones: try again (concurrent in the agent's metrics.otlp is the bound)"}

// enter takes a slot, or says that there is none. Nobody waits: those who wait
// would hold memory, and they all try again by themselves.
func (r *Receiver) enter() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *Receiver) leave() { <-r.slots }

// take is the receiver's work: a request is read, screened, translated and made
// durable, and the answer says what became of it.
func (r *Receiver) take(ctx context.Context, transport string, body []byte, isJSON bool) (pmetricotlp.ExportResponse, *refusal) {
	resp, refused := r.tryTake(ctx, body, isJSON)
	result := metric.OTLPOK
	switch {
	case refused != nil:
		result = refused.result
	case resp.PartialSuccess().RejectedDataPoints() > 0 || resp.PartialSuccess().ErrorMessage() != "":
		result = metric.OTLPPartial
	}
	r.requests[transport+result].Inc()
	return resp, refused
}

func (r *Receiver) tryTake(ctx context.Context, body []byte, isJSON bool) (pmetricotlp.ExportResponse, *refusal) {
	resp := pmetricotlp.NewExportResponse()
	scan := scanProto
	if isJSON {
		scan = scanJSON
	}
	parts, err := scan(body)
	if errors.Is(err, errTooManyParts) {
		return resp, &refusal{metric.OTLPTooLarge, 413, codes.InvalidArgument, false, err.Error()}
	}
	if err != nil {
		return resp, &refusal{metric.OTLPInvalid, 400, codes.InvalidArgument, false, err.Error()}
	}
	defer r.parts.Add(-int64(parts))
	if r.parts.Add(int64(parts)) > maxPartsTogether {
		return resp, busy
	}
	md, err := decode(body, isJSON)
	if err != nil {
		return resp, &refusal{metric.OTLPInvalid, 400, codes.InvalidArgument, false, err.Error()}
	}
	var rej rejections
	r.attributes.Add(r.screen(md, time.Now(), &rej))
	if r.deltas != nil {
		if md, err = r.deltas.cumulate(ctx, md, &rej); err != nil {
			return resp, &refusal{metric.OTLPUnavailable, 503, codes.Unavailable, true, "add up deltas: " + err.Error()}
		}
	}
	samples, refused := r.store(ctx, md)
	if refused != nil && refused.result == metric.OTLPInvalid {
		// Some points cannot be translated: they are found and left out.
		r.isolate(md, &rej)
		samples, refused = r.store(ctx, md)
	}
	r.tell(refused)
	if refused != nil {
		return resp, refused
	}
	r.samples.Add(samples)
	r.points[metric.OTLPAccepted].Add(md.DataPointCount())
	for reason, n := range rej.points {
		r.points[reason].Add(n)
	}
	resp.PartialSuccess().SetRejectedDataPoints(int64(rej.total()))
	resp.PartialSuccess().SetErrorMessage(rej.String())
	return resp, nil
}

// decode reads a request that was scanned. A panic of the decoder is an error of
// the request.
func decode(body []byte, isJSON bool) (md pmetric.Metrics, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the request cannot be read: %v", p)
		}
	}()
	req := pmetricotlp.NewExportRequest()
	if isJSON {
		if err := req.UnmarshalJSON(body); err != nil {
			return md, fmt.Errorf("the request is no OTLP in JSON: %s", firstLine(err))
		}
		return req.Metrics(), nil
	}
	if err := req.UnmarshalProto(body); err != nil {
		return md, fmt.Errorf("the request is no OTLP in protobuf: %s", firstLine(err))
	}
	return req.Metrics(), nil
}

// store translates md into the sink and returns the number of samples when they
// are durable. Nothing of a refused request is kept.
func (r *Receiver) store(ctx context.Context, md pmetric.Metrics) (int, *refusal) {
	if md.DataPointCount() == 0 {
		return 0, nil
	}
	app := r.sink.AppenderV2(ctx)
	g := &guard{app: app}
	err := r.translate(md, g)
	if err == nil {
		if err = app.Commit(); err == nil {
			return g.samples, nil
		}
		return 0, unavailable(err)
	}
	if rollback := app.Rollback(); rollback != nil {
		r.log.Warn("an OTLP request cannot be taken back", "error", rollback)
	}
	switch {
	case g.tooMany:
		return 0, &refusal{metric.OTLPTooLarge, 413, codes.InvalidArgument, false, fmt.Sprintf("the request makes more than %d samples: send smaller batches", maxSamples)}
	case g.err != nil:
		return 0, unavailable(g.err)
	}
	return 0, &refusal{metric.OTLPInvalid, 400, codes.InvalidArgument, false, firstLine(err)}
}

func unavailable(err error) *refusal {
	return &refusal{metric.OTLPUnavailable, 503, codes.Unavailable, true, "the agent's queue did not take the samples: " + firstLine(err)}
}

// tell logs when the sink begins to fail, and when it takes samples again.
func (r *Receiver) tell(refused *refusal) {
	fails := refused != nil && refused.result == metric.OTLPUnavailable
	if refused != nil && !fails {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case fails && !r.failing:
		r.log.Warn("OTLP requests cannot be queued; their senders are told to try again", "error", refused.message)
	case !fails && r.failing:
		r.log.Info("OTLP requests are queued again")
	}
	r.failing = fails
}

// translate runs Prometheus' converter. Its own context is none of the
// sender's: what is begun is finished, and bounded by maxSamples.
func (r *Receiver) translate(md pmetric.Metrics, g *guard) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the translation panicked: %v", p)
		}
	}()
	_, err = prometheusremotewrite.NewPrometheusConverter(g).FromMetrics(context.Background(), md, r.settings)
	return err
}

// guard stands between the converter and the sink: it checks what the converter
// does not, and tells errors of the sink from those of the request.
type guard struct {
	app     storage.AppenderV2 // nil: a trial
	samples int
	tooMany bool
	err     error // of the sink
}

// Commit and Rollback are the receiver's to call.
func (*guard) Commit() error   { return errors.New("otlp: the converter must not commit") }
func (*guard) Rollback() error { return errors.New("otlp: the converter must not roll back") }

// Append implements storage.AppenderV2.
func (g *guard) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	if g.samples++; g.samples > maxSamples {
		g.tooMany = true
		return 0, errors.New("too many samples")
	}
	if err := checkLabels(ls); err != nil {
		return 0, err
	}
	if h != nil {
		if err := h.Validate(); err != nil {
			return 0, fmt.Errorf("the histogram contradicts itself: %w", err)
		}
	}
	if g.app == nil {
		return 0, nil
	}
	if st < 0 || st > t {
		st = 0 // a start after the point is none
	}
	if len(opts.Metadata.Help) > maxHelp {
		opts.Metadata.Help = opts.Metadata.Help[:maxHelp]
	}
	opts.Metadata.Help = strings.ToValidUTF8(opts.Metadata.Help, "")
	opts.Exemplars = sound(opts.Exemplars)
	_, err := g.app.Append(0, ls, st, t, v, h, fh, opts)
	if err != nil {
		var partial *storage.AppendPartialError
		if _, err = partial.Handle(err); err != nil {
			g.err = err
			return 0, err
		}
	}
	return 0, nil
}

func checkLabels(ls labels.Labels) (err error) {
	if n := ls.Len(); n > maxLabels {
		return fmt.Errorf("it has %d labels, at most %d are taken: drop attributes at the sender (a view)", n, maxLabels)
	}
	ls.Range(func(l labels.Label) {
		switch {
		case err != nil:
		case l.Name == "":
			err = errors.New("it has an attribute without a name")
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			err = fmt.Errorf("label %q is no UTF-8 text", l.Name)
		case len(l.Name) > maxValue || len(l.Value) > maxValue:
			err = fmt.Errorf("label %.100q has %d bytes, at most %d are taken", l.Name, max(len(l.Name), len(l.Value)), maxValue)
		}
	})
	return err
}

// sound returns the exemplars that are text, in the order of their times, which
// the sink wants. Most of the time there are none, or they are so already.
func sound(es []exemplar.Exemplar) []exemplar.Exemplar {
	bad := func(e exemplar.Exemplar) bool { return checkLabels(e.Labels) != nil || math.IsNaN(e.Value) }
	byTime := func(a, b exemplar.Exemplar) int { return int(min(1, max(-1, a.Ts-b.Ts))) }
	if !slices.ContainsFunc(es, bad) && slices.IsSortedFunc(es, byTime) {
		return es
	}
	es = slices.DeleteFunc(slices.Clone(es), bad)
	slices.SortStableFunc(es, byTime)
	return es
}
