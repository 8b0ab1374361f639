package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// outcome is what one request came to.
type outcome int

const (
	sent     outcome = iota // taken, at least in part
	rejected                // will never be taken
	retry                   // ask again later
	olderWay                // the destination does not speak version 2.0
)

// answer is an outcome with what was learnt.
type answer struct {
	outcome outcome
	written int // samples that the destination says it has stored; -1 where it does not say
	after   time.Duration
	status  int // 0 where there was no answer
	err     error
}

const (
	writtenHeader           = "X-Prometheus-Remote-Write-Samples-Written"
	writtenHistogramsHeader = "X-Prometheus-Remote-Write-Histograms-Written"
	// A destination that asks for more patience than this is asked again anyway.
	maxRetryAfter = 5 * time.Minute
	// What is kept of an answer's body, for the log.
	maxAnswer = 512
)

// post sends one request, in version 2.0 or 1.0 of the protocol.
func post(ctx context.Context, client *http.Client, url, agent string, body []byte, v1 bool) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return answer{outcome: rejected, err: fmt.Errorf("build request: %w", err)}
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("User-Agent", agent)
	if v1 {
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	} else {
		req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{outcome: retry, err: err}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	// The rest of the body only matters for using the connection again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	err = errors.Join(err, resp.Body.Close())
	if err != nil && resp.StatusCode/100 == 2 {
		return answer{outcome: retry, err: fmt.Errorf("read answer: %w", err)}
	}
	return judge(resp.StatusCode, resp.Header, strings.TrimSpace(string(text)), v1, time.Now())
}

// judge turns a status and its headers into an outcome. The rules are those of
// the remote-write specification, 1.0 and 2.0.
func judge(status int, h http.Header, text string, v1 bool, now time.Time) answer {
	a := answer{status: status, written: -1}
	for _, header := range []string{writtenHeader, writtenHistogramsHeader} {
		if n, err := strconv.Atoi(h.Get(header)); err == nil && n >= 0 {
			a.written = max(a.written, 0) + n
		}
	}
	if status/100 != 2 {
		a.err = fmt.Errorf("HTTP %d %s", status, text)
	}
	switch {
	case status/100 == 2 && !v1 && a.written < 0:
		// A receiver of 1.0 finds nothing that it knows in a request of 2.0,
		// stores nothing and is content. Only one of 2.0 says how many it wrote.
		a.outcome = olderWay
	case status/100 == 2:
		a.outcome = sent
	case status == http.StatusUnsupportedMediaType && !v1:
		a.outcome = olderWay
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status/100 == 5:
		a.outcome = retry
		a.after = retryAfter(h.Get("Retry-After"), now)
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired, status == http.StatusNotFound:
		// It did not look at the samples. The specification would have them
		// dropped; who renews a token or mends an address wants them sent.
		a.outcome = retry
		a.err = fmt.Errorf("%w: mend the credentials or the address in metrics.send_to", a.err)
	case status/100 == 3:
		a.outcome = retry
		a.err = fmt.Errorf("HTTP %d: it sends us on to %q: put the final address into send_to", status, h.Get("Location"))
	default:
		a.outcome = rejected
	}
	return a
}

// retryAfter reads seconds or a date; 0 where there is neither.
func retryAfter(s string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// backoff is the wait before try number n (from 1): doubled each time from
// least up to most, and drawn from the upper half of that, so that agents that
// failed together do not come back together. A longer wait that the
// destination asked for stands.
func backoff(n int, least, most, asked time.Duration) time.Duration {
	d := most
	if n < 30 {
		d = min(least<<(n-1), most)
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, asked)
}
