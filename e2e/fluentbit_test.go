//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
)

// The plugin is what Fluent Bit loads, a shared library; a host of ours plays
// Fluent Bit.
func TestFluentBitPluginStoresAChunkOnce(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	plugin, host := buildPlugin(t, lab), buildHost(t, lab)
	lab.Say("the plugin and its host are built")
	const (
		event = "\xd7\x00\x65\x53\xf1\x00\x00\x00\x00\x05" // 2023-11-14T22:13:20Z and 5 ns
		text  = "\x82\xa3log\xa6hello\n\xa6labels\x82\xa3app\xa4shop\xb6app.kubernetes.io/name\xa4shop"
		raw   = "\x81\xa7message\xa2a\xff"
		bad   = "\x92" + event + "\xa4nope" // not a map
	)
	chunk := lab.Write("chunk.msgpack", "\x92"+event+text+bad+"\x92\x92"+event+"\x80"+raw)
	run := func(keys ...string) string {
		t.Helper()
		out, err := harness.Run(host, append([]string{plugin, "app", chunk}, keys...)...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	// The numbers are those of flb_plugin.h and flb_plugin_proxy.h: 0 is an
	// error, 1 taken, 2 to be sent again; 2 is an output, 11 made by Go.
	const registered = "register 0: nines, type 2, proxy 11\n"
	letters := "dead_letters=" + lab.Dir("dead-letters")
	if got := run("urls=http://127.0.0.1:9200"); got != registered+"init 0\n" {
		t.Errorf("without Dead_Letters the host says\n%s", got)
	}
	away := fmt.Sprintf("urls=http://127.0.0.1:%d", lab.Port())
	if got := run(away, letters, "timeout=1s"); got != registered+"init 1\nflush 2\nflush 2\nexit 1\n" {
		t.Errorf("with nobody at the address the host says\n%s", got)
	}
	es := lab.Elasticsearch()
	lab.Say("Elasticsearch is ready")
	if got := run("URLs="+es.URL, letters, "Cluster=E2E", "timeout=2m"); got != registered+"init 1\nflush 1\nflush 1\nexit 1\n" {
		t.Errorf("with Elasticsearch the host says\n%s", got)
	}
	checkStored(t, lab, es.URL+"/logs-nines.fluentbit-e2e")
}

func checkStored(t *testing.T, lab *harness.Lab, stream string) {
	t.Helper()
	type source struct {
		Timestamp string `json:"@timestamp"`
		Message   string
		Fluentbit struct{ Tag, Record string }
		Log       struct{ Flags []string }
		Nines     struct {
			MessageBase64 []byte `json:"message_base64"`
		}
	}
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Source source `json:"_source"`
			}
		}
	}
	lab.Eventually(time.Minute, "find the records", func() error {
		if _, err := harness.Get(stream + "/_refresh"); err != nil {
			return err
		}
		data, err := harness.Get(stream + "/_search?size=100")
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &found)
	})
	got := map[string]source{} // by the end of _id, which is the place in the chunk
	for _, hit := range found.Hits.Hits {
		_, place, _ := strings.Cut(hit.ID[len(hit.ID)-2:], "-")
		got[place] = hit.Source
	}
	if len(found.Hits.Hits) != 3 || len(got) != 3 {
		t.Fatalf("three records were flushed twice; there are %+v", found.Hits.Hits)
	}
	const when = "2023-11-14T22:13:20.000000005Z"
	if s := got["0"]; s.Message != "hello" || s.Timestamp != when || s.Fluentbit.Tag != "app" ||
		s.Fluentbit.Record != `{"labels":{"app":"shop","app.kubernetes.io/name":"shop"}}` {
		t.Errorf("the first record is %+v", s)
	}
	if s := got["1"]; !slices.Contains(s.Log.Flags, "unparsed") || !strings.HasSuffix(string(s.Nines.MessageBase64), "nope") {
		t.Errorf("what is no record is %+v", s)
	}
	if s := got["2"]; s.Message != "a\uFFFD" || s.Timestamp != when || string(s.Nines.MessageBase64) != "a\xff" {
		t.Errorf("the record of the second form is %+v", s)
	}

	// Whatever applications call their keys, no field comes of it.
	data, err := harness.Get(stream + "/_mapping")
	if err != nil {
		t.Fatal(err)
	}
	var indices map[string]struct {
		Mappings struct {
			Properties struct {
				Fluentbit struct {
					Properties map[string]struct{ Type string }
				}
			}
		}
	}
	if err := json.Unmarshal(data, &indices); err != nil || len(indices) != 1 {
		t.Fatalf("mappings: %v %s", err, data)
	}
	for _, index := range indices {
		if got := fmt.Sprint(index.Mappings.Properties.Fluentbit.Properties); got != "map[record:{keyword} tag:{keyword}]" {
			t.Errorf("the fields of fluentbit are %s", got)
		}
	}
}

func buildPlugin(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	path := filepath.Join(lab.Dir("plugin"), "nines.so")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", path, "nines/agent/fluentbit/plugin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin, which needs a C compiler: %v\n%s", err, out)
	}
	return path
}

func buildHost(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	out, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatalf("find the C compiler: %v", err)
	}
	path := filepath.Join(lab.Dir("plugin"), "host")
	cc := append(strings.Fields(string(out)), "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", path,
		filepath.Join("testdata", "fluentbit", "host.c"), "-ldl")
	if out, err := exec.Command(cc[0], cc[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("compile the host: %v\n%s", err, out)
	}
	return path
}
