package store

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
)

// metadataMap keeps what senders say about metric names, in memory: after a
// restart it fills again with the first requests. A name has a few differing
// entries where senders disagree; the oldest of them gives way.
type metadataMap struct {
	max     int
	metrics *metrics

	mu     sync.RWMutex
	byName map[string][]metadata.Metadata
}

func newMetadataMap(limit int, m *metrics) *metadataMap {
	return &metadataMap{max: limit, metrics: m, byName: make(map[string][]metadata.Metadata)}
}

func (m *metadataMap) add(name string, md metadata.Metadata) {
	if name == "" || md.Type == "" || md.Type == model.MetricTypeUnknown && md.Help == "" && md.Unit == "" {
		return
	}
	m.mu.RLock()
	known := slices.Contains(m.byName[name], md)
	m.mu.RUnlock()
	if known {
		return
	}
	if len(md.Help) > maxHelpBytes {
		md.Help = md.Help[:maxHelpBytes]
	}
	// A cut or careless sender must not break the JSON of everyone.
	md.Help, md.Unit = strings.ToValidUTF8(md.Help, ""), strings.ToValidUTF8(md.Unit, "")
	if len(name) > maxHelpBytes || len(md.Unit) > maxHelpBytes || !utf8.ValidString(name) {
		return
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	all, ok := m.byName[name]
	switch {
	case slices.Contains(all, md):
		return
	case !ok && len(m.byName) >= m.max:
		m.metrics.metaFull.Inc()
		return
	case len(all) >= maxVariants:
		all = slices.Delete(all, 0, 1)
	}
	// The names and texts are cut out of a whole request: keep copies.
	m.byName[strings.Clone(name)] = append(all, metadata.Metadata{
		Type: model.MetricType(strings.Clone(string(md.Type))), Unit: strings.Clone(md.Unit), Help: strings.Clone(md.Help),
	})
	m.metrics.metadata.Set(float64(len(m.byName)))
}

// familyName is the name under which metadata of a series is kept: that of the
// histogram or summary that it is a part of, else its own.
func familyName(name string, t model.MetricType) string {
	var parts []string
	switch t {
	case model.MetricTypeHistogram, model.MetricTypeGaugeHistogram:
		parts = []string{"_bucket", "_sum", "_count", "_gsum", "_gcount"}
	case model.MetricTypeSummary:
		parts = []string{"_sum", "_count"}
	}
	for _, p := range parts {
		if family, ok := strings.CutSuffix(name, p); ok && family != "" {
			return family
		}
	}
	return name
}

// ServeHTTP answers /api/v1/metadata: parameters limit (names),
// limit_per_metric and metric, as in the Prometheus API.
func (m *metadataMap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number := func(key string) (int, error) {
		s := r.FormValue(key)
		if s == "" {
			return -1, nil
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%s must be a number", key)
		}
		return n, nil
	}
	limit, err := number("limit")
	if err != nil {
		respondError(w, http.StatusBadRequest, "bad_data", err.Error())
		return
	}
	perMetric, err := number("limit_per_metric")
	if err != nil {
		respondError(w, http.StatusBadRequest, "bad_data", err.Error())
		return
	}

	type entry struct {
		Type model.MetricType `json:"type"`
		Help string           `json:"help"`
		Unit string           `json:"unit"`
	}
	data := make(map[string][]entry)
	m.mu.RLock()
	names := make([]string, 0, len(m.byName))
	if one := r.FormValue("metric"); one == "" {
		for name := range m.byName {
			names = append(names, name)
		}
		slices.Sort(names)
	} else if _, ok := m.byName[one]; ok {
		names = append(names, one)
	}
	if limit >= 0 {
		names = names[:min(limit, len(names))]
	}
	for _, name := range names {
		all := m.byName[name]
		if perMetric > 0 {
			all = all[:min(perMetric, len(all))]
		}
		for _, md := range all {
			data[name] = append(data[name], entry{md.Type, md.Help, md.Unit})
		}
	}
	m.mu.RUnlock()
	respondData(w, data)
}

func respondData(w http.ResponseWriter, data any) {
	respondJSON(w, http.StatusOK, map[string]any{"status": "success", "data": data})
}

func respondError(w http.ResponseWriter, code int, kind, message string) {
	respondJSON(w, code, map[string]any{"status": "error", "errorType": kind, "error": message})
}

func respondJSON(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A reader that went away needs no answer.
	_, _ = w.Write(b)
}
