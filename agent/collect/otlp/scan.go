package otlp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxParts bounds the messages inside a request: resources, scopes, metrics,
// points, attributes, exemplars and values. Each takes up to 200 bytes of memory
// and may be written with two, so that the bound of bytes alone is none.
const maxParts = 400_000

// maxPartsTogether bounds those of all requests that are under way, to some
// 150 MB at worst. A request that would go beyond is told to come again.
const maxPartsTogether = 2 * maxParts

// maxDepth bounds values inside values (lists and maps as attributes).
const maxDepth = 32

var errTooManyParts = fmt.Errorf("it has more than %d parts (points, attributes, values): send smaller batches", maxParts)

// part says which fields of a message hold messages again, as in the file
// metrics.proto of OpenTelemetry's protocol, version 1.
type part struct {
	name   string
	fields map[protowire.Number]*part
}

var root = schema()

func schema() *part {
	value := &part{name: "value"}
	attribute := &part{"attributes", map[protowire.Number]*part{2: value}}
	value.fields = map[protowire.Number]*part{
		5: {"array_value", map[protowire.Number]*part{1: value}},
		6: {"kvlist_value", map[protowire.Number]*part{1: attribute}},
	}
	exemplar := &part{"exemplars", map[protowire.Number]*part{7: attribute}}
	points := func(fields map[protowire.Number]*part) map[protowire.Number]*part {
		return map[protowire.Number]*part{1: {"data_points", fields}}
	}
	number := points(map[protowire.Number]*part{5: exemplar, 7: attribute})
	metric := &part{"metrics", map[protowire.Number]*part{
		5:  {"gauge", number},
		7:  {"sum", number},
		9:  {"histogram", points(map[protowire.Number]*part{8: exemplar, 9: attribute})},
		10: {"exponential_histogram", points(map[protowire.Number]*part{1: attribute, 8: {name: "positive"}, 9: {name: "negative"}, 11: exemplar})},
		11: {"summary", points(map[protowire.Number]*part{6: {name: "quantile_values"}, 7: attribute})},
		12: attribute,
	}}
	scope := &part{"scope_metrics", map[protowire.Number]*part{1: {"scope", map[protowire.Number]*part{3: attribute}}, 2: metric}}
	resource := &part{"resource_metrics", map[protowire.Number]*part{1: {"resource", map[protowire.Number]*part{1: attribute, 3: {name: "entity_refs"}}}, 2: scope}}
	return &part{"", map[protowire.Number]*part{1: resource}}
}

// scanProto walks a request in protobuf without building it. It finds what is
// broken, and says where, and of how many parts it is.
func scanProto(body []byte) (parts int, err error) {
	left := maxParts
	err = scanMessage(body, root, &left, 0)
	var m *misplaced
	if errors.As(err, &m) {
		where := "the request"
		if len(m.path) > 0 {
			slices.Reverse(m.path)
			where = strings.Join(m.path, ".")
		}
		return 0, fmt.Errorf("%s is no valid protobuf: %w", where, m.err)
	}
	return maxParts - left, err
}

// misplaced is what is wrong with a message, with the way to it from the inside
// out.
type misplaced struct {
	path []string
	err  error
}

func (m *misplaced) Error() string { return m.err.Error() }

func scanMessage(b []byte, p *part, left *int, depth int) error {
	if depth > maxDepth {
		return &misplaced{err: fmt.Errorf("values are nested deeper than %d", maxDepth)}
	}
	var counts [16]int // by number of field; those of parts are lower
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return &misplaced{err: protowire.ParseError(n)}
		}
		inner := p.fields[num]
		if inner == nil {
			m := protowire.ConsumeFieldValue(num, typ, b[n:])
			if m < 0 {
				return &misplaced{err: protowire.ParseError(m)}
			}
			b = b[n+m:]
			continue
		}
		if typ != protowire.BytesType {
			return &misplaced{err: fmt.Errorf("%s has wire type %d", inner.name, typ)}
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return &misplaced{err: fmt.Errorf("%s: %w", inner.name, protowire.ParseError(m))}
		}
		if *left--; *left < 0 {
			return errTooManyParts
		}
		if err := scanMessage(v, inner, left, depth+1); err != nil {
			var wrong *misplaced
			if errors.As(err, &wrong) {
				wrong.path = append(wrong.path, fmt.Sprintf("%s[%d]", inner.name, counts[num]))
			}
			return err
		}
		counts[num]++
		b = b[n+m:]
	}
	return nil
}

// scanJSON is the same of a request in JSON, where each part has a brace.
func scanJSON(body []byte) (parts int, err error) {
	parts = bytes.Count(body, []byte("{"))
	if parts > maxParts {
		return 0, errTooManyParts
	}
	var raw json.RawMessage
	err = json.Unmarshal(body, &raw) // it bounds how deep values are nested
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(body[:syntax.Offset], []byte("\n"))
		return 0, fmt.Errorf("the request is no valid JSON at byte %d (line %d): %w", syntax.Offset, line, syntax)
	}
	if err != nil {
		return 0, fmt.Errorf("the request is no valid JSON: %w", err)
	}
	return parts, nil
}
