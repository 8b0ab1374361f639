package logs

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"nines/agent/ship"
)

// ecsVersion is that of the Elastic Common Schema whose names we use.
const ecsVersion = "8.17.0"

// object is a part of a document.
type object = map[string]any

// origin is what a path says about all lines of its file.
type origin struct {
	cri                            bool
	namespace, pod, uid, container string
	containerID                    string
}

// isContainerLog says whether path is where the kubelet keeps logs.
func isContainerLog(path string) bool {
	return strings.HasPrefix(path, "/var/log/pods/") || strings.HasPrefix(path, "/var/log/containers/")
}

// originOf reads
//
//	/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log
//	/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log
//
// Kubernetes names hold no underscore (RFC 1123 labels and subdomains).
func originOf(path string) origin {
	if !isContainerLog(path) {
		return origin{}
	}
	f := origin{cri: true}
	if rest, ok := strings.CutPrefix(path, "/var/log/pods/"); ok {
		dirs := strings.Split(rest, "/")
		who := strings.Split(dirs[0], "_")
		if len(who) == 3 && len(dirs) == 3 {
			f.namespace, f.pod, f.uid, f.container = who[0], who[1], who[2], dirs[1]
		}
		return f
	}
	name := strings.TrimSuffix(filepath.Base(path), ".log")
	who := strings.Split(name, "_")
	if len(who) == 3 {
		if dash := strings.LastIndexByte(who[2], '-'); dash > 0 {
			f.pod, f.namespace, f.container, f.containerID = who[0], who[1], who[2][:dash], who[2][dash+1:]
		}
	}
	return f
}

// ending is the part of a document that all lines of a generation share: it
// closes the object "log" and the document. meta is of the pod, nil if unknown.
func (c Config) ending(path string, f origin, meta *Pod) []byte {
	doc := object{
		"ecs":         object{"version": ecsVersion},
		"event":       object{"dataset": ship.DatasetFiles},
		"data_stream": object{"type": "logs", "dataset": ship.DatasetFiles, "namespace": ship.Namespace(c.Cluster)},
		"agent":       object{"type": "nines-agent", "version": c.Version},
		"host":        object{"name": c.Node},
	}
	cluster := object{"name": c.Cluster}
	doc["orchestrator"] = object{"cluster": cluster}
	if f.pod != "" {
		doc["orchestrator"] = object{"type": "kubernetes", "cluster": cluster}
		pod := object{"name": f.pod}
		if f.uid != "" {
			pod["uid"] = f.uid
		}
		kubernetes := object{
			"namespace": f.namespace, "pod": pod,
			"container": object{"name": f.container}, "node": object{"name": c.Node},
		}
		if meta != nil {
			pod["uid"] = meta.UID
			if len(meta.Labels) > 0 {
				kubernetes["labels"] = meta.Labels
			}
			if len(meta.Annotations) > 0 {
				kubernetes["annotations"] = meta.Annotations
			}
			for kind, name := range meta.owners() {
				kubernetes[kind] = object{"name": name}
			}
		}
		doc["kubernetes"] = kubernetes
		if f.containerID != "" {
			doc["container"] = object{"id": f.containerID}
		}
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

// line is what is known of one line.
type line struct {
	time    []byte // RFC 3339
	stream  string
	message []byte
	flags   []string
	cut     int64 // bytes left out
	offset  int64
}

// appendDocument appends the document of a line.
func appendDocument(b []byte, l line, ending []byte) []byte {
	b = append(b, `{"@timestamp":"`...)
	b = append(b, l.time...)
	b = append(b, `","message":`...)
	valid := utf8.Valid(l.message)
	b = appendString(b, l.message)
	if l.stream != "" {
		b = append(b, `,"stream":"`...)
		b = append(append(b, l.stream...), '"')
	}
	if !valid {
		l.flags = append(l.flags, "invalid_utf8")
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
	if len(l.flags) > 0 {
		b = append(b, `,"flags":[`...)
		for i, flag := range l.flags {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), flag...), '"')
		}
		b = append(b, ']')
	}
	return append(b, ending...)
}

const hex = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259). Bytes that are no UTF-8
// become U+FFFD each.
func appendString(b []byte, s []byte) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
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
	return append(append(b, s[from:]...), '"')
}

// parseCRI reads a line of a container runtime:
//
//	2026-11-23T10:00:00.000000001Z stdout F message
//
// The third word is P for a part of a longer line and F for its end, with tags
// behind colons (kubernetes, container runtime interface, logging format).
func parseCRI(b []byte) (l line, ok bool) {
	stamp, rest, ok := cutSpace(b)
	if !ok {
		return l, false
	}
	if _, err := time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return l, false
	}
	stream, rest, ok := cutSpace(rest)
	switch {
	case ok && string(stream) == "stdout":
		l.stream = "stdout"
	case ok && string(stream) == "stderr":
		l.stream = "stderr"
	default:
		return l, false
	}
	tag, message, ok := cutSpace(rest)
	if !ok { // an empty message without its space
		tag, message = rest, nil
	}
	switch {
	case len(tag) > 1 && tag[1] != ':', len(tag) == 0:
		return line{}, false
	case tag[0] == 'P':
		l.flags = []string{"partial"}
	case tag[0] != 'F':
		return line{}, false
	}
	l.time, l.message = stamp, message
	return l, true
}

func cutSpace(b []byte) (before, after []byte, ok bool) {
	for i, c := range b {
		if c == ' ' {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}
