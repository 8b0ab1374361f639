package ship

import "fmt"

// templateName is ours alone; the managed template logs is not touched. Its
// pattern matches every stream that we write, and its priority is above that
// of the managed one (100).
const templateName = "nines-logs"

// StreamOfFiles returns the data stream of followed files of a cluster, by the
// naming scheme type-dataset-namespace.
func StreamOfFiles(cluster string) string { return "logs-" + DatasetFiles + "-" + Namespace(cluster) }

// StreamOfContainers returns the data stream of a cluster's container logs.
func StreamOfContainers(cluster string) string {
	return "logs-" + DatasetContainers + "-" + Namespace(cluster)
}

// DatasetContainers is the dataset of lines of containers.
const DatasetContainers = "kubernetes.container_logs"

// DatasetFiles is the dataset of lines of plain files.
const DatasetFiles = "nines.files"

// Namespace makes a cluster's name into what data_stream.namespace allows:
// lower case, none of \/*?"<>| ,#: or -, at most 100 bytes, and not empty.
func Namespace(name string) string {
	if name == "" {
		return "default" // Elasticsearch's own
	}
	out := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_':
		default:
			c = '_'
		}
		out = append(out, c)
	}
	return string(out[:min(len(out), 100)])
}

// Mappings of labels and annotations: flattened, so that app and
// app.kubernetes.io/name can stand beside each other; kept and not indexed
// where the server does not have that type.
const (
	flattenedLabels = `{"type": "flattened"}`
	plainLabels     = `{"type": "object", "enabled": false}`
)

// indexTemplate is the template with the fields that our documents have, under
// ECS names.
func indexTemplate(labels string) string {
	return fmt.Sprintf(`{
  "index_patterns": ["logs-nines.*-*"],
  "priority": 200,
  "data_stream": {},
  "_meta": {"description": "Log records of nines-agent", "managed_by": "nines-agent"},
  "template": {
    "mappings": {
      "date_detection": false,
      "dynamic_templates": [
        {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}}
      ],
      "properties": {
        "@timestamp": {"type": "date"},
        "message": {"type": "text"},
        "stream": {"type": "keyword"},
        "log": {"properties": {
          "file": {"properties": {"path": {"type": "keyword"}}},
          "offset": {"type": "long"},
          "flags": {"type": "keyword"}
        }},
        "nines": {"properties": {
          "bytes_cut": {"type": "long"},
          "message_base64": {"type": "binary"}
        }},
        "kubernetes": {"properties": {"labels": %s, "annotations": %s}}
      }
    }
  }
}`, labels, labels)
}
