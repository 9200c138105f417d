package task

import (
	"strings"

	"taskrunner/internal/jsonread"
)

// headers reads the headers of an action: names and values that are safe to send, and none that the service or the
// connection sets itself when it fires on trigger. Left out there are none. Actions may share the map.
func (p *parser) headers(v jsonread.Value, trigger Trigger) map[string]string {
	if v.IsNull() || !p.Object("headers", v) {
		return nil
	}
	if headers, ok := p.headerMaps[string(v.Raw())]; ok {
		return headers
	}
	before := p.Count()
	p.Enter("headers")
	defer p.Leave()
	var headers map[string]string
	bytes := 0
	for rawName, rawValue := range v.Members {
		if len(headers) == MaxHeaders {
			p.Addf("", "must have at most %d headers", MaxHeaders)
			break
		}
		name := p.texts.copy(rawName)
		if reason := headerNameProblem(name, trigger); reason != "" {
			p.Addf("", "%s %s", jsonread.Quote(name), reason)
			continue
		}
		value, ok := p.text(name, rawValue)
		if !ok {
			continue
		}
		if strings.ContainsFunc(value, isControl) {
			p.Addf(name, "must not have line breaks or other control characters")
			continue
		}
		if value == HiddenValue {
			p.Addf(name, "is %s, which stands for a value that is not shown: send the value itself", jsonread.Quote(value))
			continue
		}
		for other := range headers {
			if len(other) == len(name) && strings.EqualFold(other, name) {
				p.Addf("", "duplicate %s, which is the same as %s", jsonread.Quote(name), jsonread.Quote(other))
			}
		}
		if headers == nil {
			headers = map[string]string{}
		}
		headers[name] = value
		bytes += len(name) + len(value)
	}
	if bytes > MaxHeaderBytes {
		p.Addf("", "must have at most %d bytes together, have %d", MaxHeaderBytes, bytes)
	}
	if p.Count() == before {
		p.headerMaps.add(v.Raw(), headers)
	}
	return headers
}

func isControl(r rune) bool { return r < ' ' || r == 0x7F }

// headerNameProblem is why a client must not set the header of an action that fires on trigger; empty when it may.
func headerNameProblem(name string, trigger Trigger) string {
	if !isToken(name) {
		return "is not the name of a header"
	}
	name = strings.ReplaceAll(name, "_", "-") // many receivers take the one for the other
	for _, own := range serviceHeaders {
		if matches(name, own) {
			return "is set by the service"
		}
	}
	if trigger == TriggerBatchComplete && matches(name, batchHeader) {
		return "is set by the service"
	}
	for _, own := range connectionHeaders {
		if matches(name, own) {
			return "belongs to the connection"
		}
	}
	return ""
}

// batchHeader is the service's where a batch is told of.
const batchHeader = "X-Batch-Id"

// Headers that a client must not set; one with a dash at its end stands for all that begin so.
var (
	serviceHeaders    = []string{"Idempotency-Key", "Traceparent", "X-Task-", "Webhook-"}
	connectionHeaders = []string{
		"Host", "Content-Length", "Connection", "Expect", "HTTP2-Settings", "Keep-Alive", "Proxy-", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade",
	}
)

func matches(name, pattern string) bool {
	if strings.HasSuffix(pattern, "-") && len(name) > len(pattern) {
		name = name[:len(pattern)]
	}
	return strings.EqualFold(name, pattern)
}

// isToken follows RFC 9110, section 5.6.2.
func isToken(name string) bool {
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return false
		}
	}
	return name != ""
}
