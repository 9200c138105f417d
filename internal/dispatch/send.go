package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"taskrunner/client"
	"taskrunner/internal/handle"
	"taskrunner/internal/task"
)

// maxErrorText bounds what is kept of an error, in characters.
const maxErrorText = 300

// sender makes single attempts.
type sender struct {
	transport http.RoundTripper
	handle    string // of all tasks, without the id, escaped for a query
	handles   handle.Keys
	secrets   []client.Secret // that sign
	timeout   time.Duration   // unless the action has its own
	random    func() uint64
}

// call is an action to send.
type call struct {
	id      task.ID // of the task, or of the batch
	host    string
	trigger task.Trigger
	place   int
	action  *task.Action
	// keep: the answer's body is wanted.
	keep bool
	// attempt is the claim that an on_start belongs to; 0 for others.
	attempt int
	// token is that of the handle, once it was sent; empty when it has none. A secret.
	token string
}

// answer is what came of one attempt.
type answer struct {
	status int // 0: none came
	// body is as much of it as came: up to maxAnswer if it was to be kept, else how it begins.
	body []byte
	err  error
	// text says what went wrong, empty for 2xx. It is safe to show.
	text       string
	retryAfter time.Duration
	began      time.Time
	took       time.Duration
	// down: the breaker of the host is not closed.
	down bool
}

// send makes one attempt. The status decides as soon as it is there: an answer whose body breaks off is an answer.
func (s *sender) send(ctx context.Context, c *call) answer {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.timeoutOf(c))
	defer cancel()
	a := s.exchange(ctx, c)
	a.began, a.took = began, time.Since(began)
	switch {
	case a.err != nil:
		a.text = s.describe(ctx, c, a.err)
	case a.status < 200 || a.status > 299:
		a.text = describeStatus(a.status)
	}
	return a
}

func (s *sender) timeoutOf(c *call) time.Duration { return cmp.Or(c.action.Timeout, s.timeout) }

func (s *sender) exchange(ctx context.Context, c *call) answer {
	req, err := s.request(ctx, c)
	if err != nil {
		return answer{err: err}
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	a := answer{status: resp.StatusCode}
	if a.status > 299 {
		a.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	if a.status >= 200 {
		keep := int64(maxExcerptRead)
		if c.keep && a.status <= 299 {
			keep = maxAnswer
		}
		a.body = readBody(resp, keep)
	}
	resp.Body.Close() // drops the connection if there is more to read
	return a
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readBody reads up to maxAnswer bytes, so that the connection can be used again, and returns the first keep of them.
func readBody(resp *http.Response, keep int64) []byte {
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		return nil
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, keep))
	if err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer-keep) // what breaks off is no matter
	}
	return bytes.Clone(buf.Bytes())
}

func (s *sender) request(ctx context.Context, c *call) (*http.Request, error) {
	u, err := url.Parse(c.action.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%w: its URL is not valid", errUnusable) // the parser's error repeats the URL
	}
	if c.trigger != task.TriggerBatchComplete { // of which there is nothing to report
		u.RawQuery = s.query(u.RawQuery, c)
	}
	u.Fragment = ""
	req := &http.Request{
		Method: strings.ToUpper(c.action.Verb),
		URL:    u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: s.header(c),
	}
	if body := c.action.Body; body != nil {
		// The transport knows this type, and writes header and body in one piece.
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = open()
		// With it and an Idempotency-Key the transport repeats a request on a fresh connection by itself when an idle
		// one turns out to be closed.
		req.GetBody = open
		req.ContentLength = int64(len(body))
	}
	return req.WithContext(ctx), nil
}

// query adds the handle to what is there, which stays as it is.
func (s *sender) query(existing string, c *call) string {
	query := "handle=" + s.handle + c.id.String()
	if len(s.handles) > 0 {
		scope := handle.Read
		if c.trigger == task.TriggerStart {
			scope = handle.Report
		}
		c.token = s.handles.Token(c.id, scope, c.attempt)
		query += "%3Ftoken%3D" + c.token
	}
	if existing == "" {
		return query
	}
	return existing + "&" + query
}

func (s *sender) header(c *call) http.Header {
	const ours = 9
	n := len(c.action.Headers) + ours
	header := make(http.Header, n)
	values := make([]string, 0, n) // one array for all
	set := func(canonical, value string) {
		values = append(values, value)
		header[canonical] = values[len(values)-1 : len(values) : len(values)]
	}
	set("User-Agent", "taskrunner")
	if c.action.Body != nil {
		set("Content-Type", "application/json")
	}
	for name, value := range c.action.Headers {
		set(http.CanonicalHeaderKey(name), value)
	}
	key := task.IdempotencyKey(c.id, c.trigger, c.place)
	set("Idempotency-Key", key)
	if c.trigger == task.TriggerBatchComplete {
		set("X-Batch-Id", c.id.String())
	} else {
		set("X-Task-Id", c.id.String())
	}
	set("X-Task-Trigger", triggerName(c.trigger))
	set("Traceparent", s.traceparent())
	if len(s.secrets) > 0 {
		now := time.Now()
		set("Webhook-Id", key)
		set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
		set("Webhook-Signature", s.signatures(key, now, c.action.Body))
	}
	return header
}

// signatures signs with every secret, so that receivers may know the old one or the new one.
func (s *sender) signatures(id string, at time.Time, body []byte) string {
	all := make([]string, len(s.secrets))
	for i, secret := range s.secrets {
		all[i] = secret.Sign(id, at, body)
	}
	return strings.Join(all, " ")
}

// traceparent begins a trace, as https://www.w3.org/TR/trace-context/ has it. Neither id is ever all zeros.
func (s *sender) traceparent() string {
	var raw [24]byte
	for i := range 3 {
		n := s.random() | 1
		for j := range 8 {
			raw[8*i+j] = byte(n >> (8 * j))
		}
	}
	var text [55]byte
	copy(text[:], "00-")
	hex.Encode(text[3:], raw[:16])
	text[35] = '-'
	hex.Encode(text[36:], raw[16:])
	copy(text[52:], "-01")
	return string(text[:])
}

// triggerName is the trigger on the wire.
func triggerName(t task.Trigger) string {
	switch t {
	case task.TriggerStart:
		return "start"
	case task.TriggerCancel:
		return "cancel"
	case task.TriggerBatchComplete:
		return "batch"
	}
	return "end"
}

// sourceName is what an action that fires on t belongs to.
func sourceName(t task.Trigger) string {
	if t == task.TriggerBatchComplete {
		return "batch"
	}
	return "task"
}

func describeStatus(status int) string {
	text := strconv.Itoa(status)
	if name := http.StatusText(status); name != "" {
		text += " " + name
	}
	if status >= 300 && status <= 399 {
		text += ": redirects are not followed"
	}
	return text
}

// describe says what went wrong in up to maxErrorText characters, without anything secret of the action.
func (s *sender) describe(ctx context.Context, c *call, err error) string {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Sprintf("no answer within %v", s.timeoutOf(c))
	}
	if refusal, ok := errors.AsType[*refusedError](err); ok {
		return refusal.Error()
	}
	text := strings.ReplaceAll(plain(c.redact(err.Error())), "\n", " ")
	if runes := []rune(text); len(runes) > maxErrorText {
		text = string(runes[:maxErrorText-1]) + "…"
	}
	return text
}

// Bounds of what is kept of an answer's body, in bytes. More is read, for a secret must not be cut before it is taken out.
const (
	maxExcerpt     = 1 << 10
	maxExcerptRead = 8 << 10
)

// excerpt is how the body of an answer begins, as text that is safe to show.
func (c *call) excerpt(body []byte) string {
	if len(body) == 0 {
		return ""
	}
	text := c.redact(string(body[:min(len(body), maxExcerptRead)]))
	if len(body) >= maxExcerptRead {
		text = text[:len(text)-begun(text, c.secrets())]
	}
	text = plain(text)
	return strings.ToValidUTF8(text[:min(len(text), maxExcerpt)], "")
}

// begun is how much of a secret stands at the end of a text that was cut.
func begun(text string, secrets []string) (longest int) {
	for _, secret := range secrets {
		for n := min(len(secret), len(text)); n > longest; n-- {
			if strings.HasSuffix(text, secret[:n]) {
				longest = n
			}
		}
	}
	return longest
}

// redact takes out what a library's error may repeat of the request, or an answer that echoes it.
func (c *call) redact(text string) string {
	for _, secret := range c.secrets() {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// plain makes text valid UTF-8, and of what could make a terminal or a page show something else spaces.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// secrets are the handle's token, and what is in the action's query and headers, with their words and in all spellings, but for
// headers whose values are harmless.
// The longest come first: one may be part of another. Shorter ones than four characters would only garble a text.
func (c *call) secrets() []string {
	secrets := []string{c.token}
	if u, err := url.Parse(c.action.URL); err == nil {
		secrets = append(secrets, u.RawQuery)
		for part := range strings.SplitSeq(u.RawQuery, "&") {
			_, raw, _ := strings.Cut(part, "=")
			secrets = append(secrets, raw)
			if value, err := url.QueryUnescape(raw); err == nil {
				secrets = append(secrets, value)
			}
		}
		if u.User != nil {
			password, _ := u.User.Password()
			secrets = append(secrets, u.User.String(), password)
		}
	}
	shown := task.ShownHeaders(c.action.Headers)
	for name, value := range c.action.Headers {
		if shown[name] == value {
			continue
		}
		secrets = append(secrets, value)
		secrets = append(secrets, strings.FieldsFunc(value, betweenWords)...)
	}
	for _, secret := range secrets {
		secrets = append(secrets, spellings(secret)...)
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 4 })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(secrets)
}

// betweenWords is what parts "Bearer token" and "a=1; b=2".
func betweenWords(r rune) bool { return strings.ContainsRune(` ,;="`, r) }

// spellings are how errors, JSON and HTML have a text. Encoders of JSON differ in what they escape without need.
func spellings(text string) []string {
	marshaled, _ := json.Marshal(text) // of a string there is no error
	all := []string{html.EscapeString(text)}
	for _, quoted := range []string{strconv.Quote(text), strconv.QuoteToASCII(text), string(marshaled)} {
		quoted = quoted[1 : len(quoted)-1]
		all = append(all, quoted, strings.ReplaceAll(quoted, "/", `\/`))
	}
	return all
}
