package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
)

const (
	// maxSummary bounds the body of /stats/summary: 500 pods of 4 containers
	// take about 6 MiB. What is larger is refused as a whole.
	maxSummary = 32 << 20
	// maxReason bounds what is shown of the body of a refusal.
	maxReason = 200
	// drained is what is read of a page that is only asked for its status, so
	// that the connection can be used again.
	drained = 256 << 10
)

// Results of a request, as label values.
const (
	resultOK           = "ok"
	resultUnreachable  = "unreachable"
	resultUnauthorized = "unauthorized"
	resultForbidden    = "forbidden"
	resultFailed       = "failed"
)

// ask gets a page, whole where it is wanted. Its error says what to do.
func (k *Kubelet) ask(ctx context.Context, path string, whole bool) ([]byte, error) {
	body, result, err := k.get(ctx, path, whole)
	if ctx.Err() != nil && err != nil {
		return nil, err
	}
	k.count(path, result)
	return body, err
}

func (k *Kubelet) get(ctx context.Context, path string, whole bool) (body []byte, result string, err error) {
	address := k.base.String() + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, resultFailed, fmt.Errorf("ask %s: %w", address, err)
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, resultUnreachable, k.unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(res.Body, maxReason))
		result, err := k.refused(path, res.StatusCode, strings.TrimSpace(strings.ToValidUTF8(string(reason), "?")))
		return nil, result, fmt.Errorf("ask %s: %w", address, err)
	}
	if !whole {
		if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, drained)); err != nil {
			return nil, resultFailed, fmt.Errorf("read %s: %w", address, err)
		}
		return nil, resultOK, nil
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, maxSummary+1))
	switch {
	case err != nil:
		return nil, resultFailed, fmt.Errorf("read %s: %w", address, err)
	case len(body) > maxSummary:
		return nil, resultFailed, fmt.Errorf("read %s: the answer is larger than %d MiB, which no node's pods are: is that a kubelet?", address, maxSummary>>20)
	}
	return body, resultOK, nil
}

// refused says what a status means and what to do.
func (k *Kubelet) refused(path string, status int, reason string) (result string, err error) {
	if reason != "" {
		reason = " (" + reason + ")"
	}
	switch status {
	case http.StatusUnauthorized:
		who := "it got no token and no client certificate: set token_file, or cert_file and key_file"
		switch {
		case k.base.Scheme == "http":
			who = "a token is never sent over http: use https in url"
		case k.cfg.TokenFile != "":
			who = fmt.Sprintf("it does not take the token of %s: the kubelet must ask the API server (authentication.webhook.enabled), and the token must be a service account's of this cluster", k.cfg.TokenFile)
		case k.cfg.CertFile != "":
			who = fmt.Sprintf("it does not take the certificate of %s: the kubelet's clientCAFile must have signed it", k.cfg.CertFile)
		}
		return resultUnauthorized, fmt.Errorf("the kubelet does not know who asks (401): %s%s", who, reason)
	case http.StatusForbidden:
		right := "nodes/metrics"
		if strings.HasPrefix(path, "/stats") {
			right = "nodes/stats"
		}
		return resultForbidden, fmt.Errorf("the kubelet knows who asks but refuses (403): the agent's ClusterRole lacks the verb get on the resource %s%s", right, reason)
	case http.StatusNotFound:
		do := "take it out of pages"
		if path == pathSummary {
			do = "set summary_interval to 0"
		}
		return resultFailed, fmt.Errorf("there is no such page (404): %s, and see that url is a kubelet's%s", do, reason)
	}
	return resultFailed, fmt.Errorf("the kubelet answers %d %s: its own log says why%s", status, http.StatusText(status), reason)
}

// unreachable adds to an error of the connection what to do.
func (k *Kubelet) unreachable(err error) error {
	var (
		unknown  x509.UnknownAuthorityError
		host     x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		noTLS    tls.RecordHeaderError
		timedOut interface{ Timeout() bool }
	)
	do := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		do = "the connection was refused, so nothing listens there: is the kubelet running, and is url its address? Where it listens on the node's address alone, 127.0.0.1 does not do"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		do = "there is no way to that address: is url the address of this node?"
	case errors.As(err, &unknown):
		do = "its certificate is not signed by ca_file. A kubelet without serverTLSBootstrap signs its own: name a copy of the node's /var/lib/kubelet/pki/kubelet.crt as ca_file, or set insecure_skip_verify: true"
	case errors.As(err, &host):
		do = "its certificate is for another name: set server_name to one that it has (most often the node's name), or use such an address in url"
	case errors.As(err, &invalid), errors.As(err, &verify):
		do = "its certificate is not valid: renew it, or set insecure_skip_verify: true"
	case errors.As(err, &noTLS), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		do = "it does not speak TLS there: the read-only port takes http:// in url"
	case strings.Contains(err.Error(), "remote error: tls:"):
		do = "it refused our client certificate: cert_file must be signed by the kubelet's clientCAFile"
	case errors.As(err, &timedOut) && timedOut.Timeout():
		do = fmt.Sprintf("it did not answer within the timeout of %s: is the node overloaded, or a firewall between?", k.cfg.Timeout)
	}
	if do == "" {
		return fmt.Errorf("ask the kubelet: %w", err)
	}
	return fmt.Errorf("ask the kubelet: %w: %s", err, do)
}
