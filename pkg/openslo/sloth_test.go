package openslo

import (
	"strings"
	"testing"
)

const sloth = `version: prometheus/v1
service: myservice
labels: {owner: team, tier: "2"}
slos:
  - name: requests-availability
    objective: 99.9
    description: Answers.
    labels: {tier: "1"}
    sli:
      events:
        error_query: sum(rate(http_requests_total{job="myservice",code=~"(5..|429)"}[{{.window}}]))
        total_query: sum(rate(http_requests_total{job="myservice"}[{{ .window }}]))
    alerting:
      name: MyServiceHighErrorRate
  - name: raw
    objective: 99
    sli:
      raw: {error_ratio_query: x}
  - name: latency
    objective: 95.00
    sli:
      events: {error_query: 'avg(x[{{.window}}])', total_query: 'sum(rate(y[{{.window}}]))'}
  - name: no-objective
    sli:
      events: {error_query: 'sum(rate(x[{{.window}}]))', total_query: 'sum(rate(y[{{.window}}]))'}
`

func TestSlothFileBecomesOpenSLOAndSaysWhatIsLost(t *testing.T) {
	out, findings, err := FromSloth("s.yaml", []byte(sloth))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "from-sloth.yaml", out)
	golden(t, "from-sloth.findings", []byte(lines(findings)+"\n"))
	s := Load(map[string][]byte{"out.yaml": out})
	if len(s.Objectives()) != 1 {
		t.Fatalf("%d objectives, want the one that can be counted: %s", len(s.Objectives()), lines(s.Findings()))
	}
	o := s.Objectives()[0]
	if o.SLO != "myservice-requests-availability" || o.Target.Percent() != "99.9" || o.Labels["tier"] != "1" || o.Labels["owner"] != "team" {
		t.Errorf("objective is %+v", o)
	}
	if want := `sum(rate(http_requests_total{job="myservice",code=~"(5..|429)"}[5m]))`; o.SLI.Bad != want || o.SLI.Good != "" {
		t.Errorf("SLI is %+v, want bad events %s", o.SLI, want)
	}
}

func TestWhatIsNoSlothFileIsRefusedWithItsPlace(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Replace(sloth, "prometheus/v1", "prometheus/v2", 1), `s.yaml:1:10: version is "prometheus/v2", want Sloth's prometheus/v1`},
		{strings.Replace(sloth, "total_query:", "totl_query:", 1), `s.yaml:12:9: unknown key "totl_query" under slos[0].sli.events; did you mean "total_query"?`},
		{strings.Replace(sloth, "objective: 99.9", "objective: '99.9'", 1), `s.yaml:6:16: slos[0].objective: want a number`},
		{"a: [", "s.yaml:"},
		{"- a\n", "s.yaml:1:1: want keys with values"},
		{checkout, "unknown key"},
	} {
		out, _, err := FromSloth("s.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || out != nil {
			t.Errorf("error is %v, want %s", err, c.want)
		}
	}
}

func FuzzFromSloth(f *testing.F) {
	f.Add([]byte(sloth))
	f.Add([]byte("version: prometheus/v1\nslos: [{objective: 100, sli: {events: {}}}]\n---\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		out, findings, err := FromSloth("s.yaml", data)
		if err != nil {
			return
		}
		for _, x := range findings {
			if x.Path != "s.yaml" || x.Line < 1 || x.Message == "" {
				t.Fatalf("finding without a place: %+v", x)
			}
		}
		// What comes out is readable: at most its meaning is found wrong.
		for _, x := range Load(map[string][]byte{"out.yaml": out}).Findings() {
			if x.Rule == "yaml" || x.Rule == "schema" {
				t.Fatalf("%s\n%s", x, out)
			}
		}
	})
}
