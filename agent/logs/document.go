package logs

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"nines/agent/ship"
)

// ecsVersion is that of the Elastic Common Schema whose names we use.
const ecsVersion = "8.17.0"

// object is a part of a document.
type object = map[string]any

// origin is what a path says about all lines of its file.
type origin struct {
	cri                            bool // of a container
	namespace, pod, uid, container string
	file                           string // 0.log: how often the container was started before
}

// originOf reads
//
//	ROOT/NAMESPACE_POD_UID/CONTAINER/N.log
//
// Kubernetes names hold no underscore (RFC 1123 labels and subdomains).
func (s Source) originOf(path string) origin {
	if !s.Containers() {
		return origin{}
	}
	o := origin{cri: true}
	dirs := strings.Split(strings.TrimPrefix(path, s.root()+"/"), "/")
	if who := strings.Split(dirs[0], "_"); len(who) == 3 && len(dirs) == 3 {
		o.namespace, o.pod, o.uid, o.container, o.file = who[0], who[1], who[2], dirs[1], dirs[2]
	}
	return o
}

// dataset is the one that records of a kind of source belong to.
func (s Source) dataset() string {
	if s.Containers() {
		return ship.DatasetContainers
	}
	return ship.DatasetFiles
}

// Stream is the data stream of the source's records. Its last part is the
// namespace, which is the cluster's name unless people chose another one.
func (s Source) Stream(namespace string) string {
	if s.Containers() {
		return ship.StreamOfContainers(namespace)
	}
	return ship.StreamOfFiles(namespace)
}

// ending is the part of a document that all lines of a generation share: it
// closes the object "log" and the document. meta is of the pod, nil if unknown.
func (c Config) ending(path string, s Source, o origin, meta *Pod) []byte {
	doc := object{
		"ecs":          object{"version": ecsVersion},
		"event":        object{"dataset": s.dataset()},
		"data_stream":  object{"type": "logs", "dataset": s.dataset(), "namespace": ship.Namespace(cmp.Or(c.Namespace, c.Cluster))},
		"agent":        object{"type": "nines-agent", "version": c.Version},
		"host":         object{"name": c.Node},
		"orchestrator": object{"cluster": object{"name": c.Cluster}},
	}
	if o.pod != "" {
		meta.fields(doc, seat{c.Cluster, c.Node, o.namespace, o.pod, o.uid, o.container, o.file}, cmp.Or(c.Names, ECS))
	}
	file := mustJSON(object{"path": path})
	rest := mustJSON(doc)
	out := append([]byte(`,"file":`), file...)
	out = append(out, '}', ',')
	return append(out, rest[1:]...)
}

// mustJSON encodes maps of strings, which cannot fail.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// appendDocument appends the document of a line.
func appendDocument(b []byte, l line, ending []byte) []byte {
	b = append(b, `{"@timestamp":"`...)
	b = append(b, l.time...)
	b = append(b, `","message":`...)
	b, valid := appendString(b, l.message)
	if l.stream != "" {
		b = append(b, `,"stream":"`...)
		b = append(append(b, l.stream...), '"')
	}
	if !valid {
		l.flags |= flagInvalidUTF8
	}
	if !valid || l.cut > 0 {
		b = append(b, `,"nines":{`...)
		if !valid {
			b = append(b, `"message_base64":"`...)
			b = base64.StdEncoding.AppendEncode(b, l.message)
			b = append(b, '"')
		}
		if l.cut > 0 {
			if !valid {
				b = append(b, ',')
			}
			b = append(b, `"bytes_cut":`...)
			b = strconv.AppendInt(b, l.cut, 10)
		}
		b = append(b, '}')
	}
	b = append(b, `,"log":{"offset":`...)
	b = strconv.AppendInt(b, l.offset, 10)
	if l.flags != 0 {
		b = append(b, `,"flags":[`...)
		for i, name := range flagNames {
			if l.flags&(1<<i) != 0 {
				b = append(append(append(b, '"'), name...), '"', ',')
			}
		}
		b[len(b)-1] = ']'
	}
	return append(b, ending...)
}

const hex = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259). Bytes that are no UTF-8
// become U+FFFD each, and valid is false.
func appendString(b []byte, s []byte) (_ []byte, valid bool) {
	valid = true
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		if len(s)-i >= 8 && plain(binary.LittleEndian.Uint64(s[i:])) {
			i += 8
			continue
		}
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			valid = false
			b = append(b, s[from:i]...)
			b = append(b, "\uFFFD"...)
			i++
			from = i
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"'), valid
}

// plain says whether eight bytes can stand in a JSON string as they are: none is
// below a space, above ASCII, a quote or a backslash. (x-n)&^x&0x80 is set in a
// byte below n, and in others only above such a one: Warren, Hacker's Delight,
// 6-1.)
func plain(x uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^(ones*'"'), x^(ones*'\\')
	return ((x-ones*0x20)&^x|(quote-ones)&^quote|(backslash-ones)&^backslash|x)&highs == 0
}
