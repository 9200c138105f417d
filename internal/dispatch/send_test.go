package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/http1"
	"taskrunner/internal/task"
)

var testID = task.ID{0x01, 0x98, 0xc0, 0xde, 0x5a, 0x10, 0x7c, 0x3e, 0x9f, 0x2b, 0x0c, 0x4b, 0x1d, 0x9e, 0x7a, 0x11}

// newSender sends for real, to loopback too.
func newSender(t testing.TB, networks ...string) *sender {
	t.Helper()
	o := Options{HostURL: "http://runner:8085/", Guard: newGuard(t, networks...), Timeout: 10 * time.Second}
	d := New(o)
	t.Cleanup(func() { _ = d.Drain(context.Background()) })
	return d.sender
}

type received struct {
	method, path, query, host string
	header                    http.Header
	body                      string
}

// receive serves answer and keeps the last request.
func receive(t testing.TB, answer http.HandlerFunc) (baseURL string, last func() received) {
	t.Helper()
	var kept atomic.Pointer[received]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		kept.Store(&received{r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.Header, string(body)})
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, func() received { return *kept.Load() }
}

func TestSendRequest(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	base, last := receive(t, nil)
	c := call{id: testID, trigger: task.TriggerSuccess, place: 1, action: &task.Action{
		Verb: "Post", URL: base + "/run/%C3%A4?a=1&b=%2F+x;c&a=1#frag",
		Headers: map[string]string{"x-api-key": "k", "Idempotency-Key": "forged", "X-TASK-ID": "forged"},
		Body:    json.RawMessage(`{"a":[1,2]}`),
	}}
	a := s.send(t.Context(), &c)
	if a.status != 200 || a.err != nil || a.text != "" || a.took <= 0 {
		t.Fatalf("answer %+v", a)
	}
	got := last()
	traceparent := got.header.Get("Traceparent")
	if !regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`).MatchString(traceparent) {
		t.Errorf("traceparent %q", traceparent)
	}
	got.header.Del("Traceparent")
	want := received{
		method: "POST", path: "/run/ä", host: strings.TrimPrefix(base, "http://"),
		query: "a=1&b=%2F+x;c&a=1&handle=http%3A%2F%2Frunner%3A8085%2Ftask%2F0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a11",
		header: http.Header{
			"Content-Length":  {"11"},
			"Content-Type":    {"application/json"},
			"Idempotency-Key": {"0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a11:end:success:1"},
			"User-Agent":      {"taskrunner"},
			"X-Api-Key":       {"k"},
			"X-Task-Id":       {"0198c0de-5a10-7c3e-9f2b-0c4b1d9e7a11"},
			"X-Task-Trigger":  {"end"},
		},
		body: `{"a":[1,2]}`,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(received{})); diff != "" {
		t.Error(diff)
	}
	s.send(t.Context(), &c)
	if last().header.Get("Traceparent") == traceparent {
		t.Error("two requests with one traceparent")
	}
}

// An action of a batch names the batch and has no handle: nobody reports anything about it.
func TestSendForBatch(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	base, last := receive(t, nil)
	for place, query := range []string{"", "a=1&b=%2F"} {
		action := task.Action{Verb: "Post", URL: base + "/done?" + query, Body: json.RawMessage(`{"batch_id":"x"}`)}
		if a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerBatchComplete, place: place, action: &action}); a.status != 200 {
			t.Fatalf("answer %+v", a)
		}
		got := last()
		got.header.Del("Traceparent")
		want := received{
			method: "POST", path: "/done", host: strings.TrimPrefix(base, "http://"), query: query, body: `{"batch_id":"x"}`,
			header: http.Header{
				"Content-Length":  {"16"},
				"Content-Type":    {"application/json"},
				"Idempotency-Key": {[]string{"batch:" + testID.String() + ":complete", "batch:" + testID.String() + ":complete:1"}[place]},
				"User-Agent":      {"taskrunner"},
				"X-Batch-Id":      {testID.String()},
				"X-Task-Trigger":  {"batch"},
			},
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(received{})); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSendVariants(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	base, last := receive(t, nil)
	tests := []struct {
		name, verb, query string
		trigger           task.Trigger
		headers           map[string]string
		body              string
		want              map[string]string // headers
		wantQuery         string            // before the handle
	}{
		{name: "get without body", verb: "Get", trigger: task.TriggerStart,
			want: map[string]string{"X-Task-Trigger": "start", "Idempotency-Key": testID.String() + ":start", "Content-Type": "", "Content-Length": ""}},
		{name: "delete without body", verb: "Delete", trigger: task.TriggerCancel,
			want: map[string]string{"X-Task-Trigger": "cancel", "Idempotency-Key": testID.String() + ":cancel", "Content-Type": ""}},
		{name: "put", verb: "Put", trigger: task.TriggerFailure, body: "null",
			want: map[string]string{"X-Task-Trigger": "end", "Idempotency-Key": testID.String() + ":end:failure", "Content-Length": "4"}},
		{name: "patch with its own type", verb: "Patch", trigger: task.TriggerStart, body: `"x"`,
			headers: map[string]string{"content-type": "text/plain", "user-agent": "mine"},
			want:    map[string]string{"Content-Type": "text/plain", "User-Agent": "mine"}},
		{name: "post without body", verb: "Post", trigger: task.TriggerStart, want: map[string]string{"Content-Length": "0", "Content-Type": ""}},
		{name: "get with body", verb: "Get", trigger: task.TriggerStart, body: "{}", want: map[string]string{"Content-Type": "application/json"}},
		{name: "empty query", verb: "Get", query: "?", trigger: task.TriggerStart},
		{name: "odd query", verb: "Get", query: "?a&&=%zz&ä=%20", trigger: task.TriggerStart, wantQuery: "a&&=%zz&ä=%20&"},
		{name: "has a handle", verb: "Get", query: "?handle=x", trigger: task.TriggerStart, wantQuery: "handle=x&"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			action := task.Action{Verb: c.verb, URL: base + "/" + c.query, Headers: c.headers}
			if c.body != "" {
				action.Body = json.RawMessage(c.body)
			}
			a := s.send(t.Context(), &call{id: testID, trigger: c.trigger, action: &action})
			if a.status != 200 {
				t.Fatalf("answer %+v", a)
			}
			got := last()
			for name, want := range c.want {
				if got.header.Get(name) != want {
					t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
				}
			}
			if got.method != strings.ToUpper(c.verb) || got.body != c.body {
				t.Errorf("%s with %q", got.method, got.body)
			}
			if want := c.wantQuery + "handle=" + url.QueryEscape("http://runner:8085/task/"+testID.String()); got.query != want {
				t.Errorf("query %q, want %q", got.query, want)
			}
		})
	}
}

func TestSendDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	var followed atomic.Bool
	base, _ := receive(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/target" {
			followed.Store(true)
			return
		}
		http.Redirect(w, r, "/target", http.StatusFound)
	})
	a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: base}})
	if a.status != 302 || a.text != "302 Found: redirects are not followed" || Classify(a.status, a.err) != GiveUp || followed.Load() {
		t.Errorf("answer %+v, followed %v", a, followed.Load())
	}
}

func TestSendIgnoresProxyOfEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if newSender(t).transport.(*http1.Transport).Other.Proxy != nil {
		t.Error("a proxy is asked for")
	}
}

func TestSendBoundsTheAnswer(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	var connections atomic.Int32
	stuck := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless": // until the client goes away
			defer close(stuck)
			for chunk := make([]byte, 32<<10); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		case "/small":
			_, _ = w.Write([]byte("{}"))
			w.(http.Flusher).Flush() // of unknown length
		case "/exact":
			w.Header().Set("Content-Length", strconv.Itoa(maxAnswer))
			_, _ = w.Write(make([]byte, maxAnswer))
		case "/header":
			w.Header().Set("X-Big", strings.Repeat("x", 2*maxAnswerHeader))
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	get := func(path string, keep bool) answer {
		return s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, keep: keep,
			action: &task.Action{Verb: "Get", URL: server.URL + path}})
	}
	for _, keep := range []bool{true, false} { // one connection for all, whether the answer is wanted or not
		for path, size := range map[string]int{"/small": 2, "/exact": maxAnswer} {
			if !keep {
				size = min(size, maxExcerptRead)
			}
			if a := get(path, keep); a.status != 200 || len(a.body) != size {
				t.Fatalf("%s: status %d, %d bytes, %v", path, a.status, len(a.body), a.err)
			}
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if a := get("/endless", true); a.status != 200 || len(a.body) != maxAnswer {
		t.Errorf("status %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
	<-stuck // its connection was dropped
	if a := get("/header", false); a.err == nil || Classify(a.status, a.err) != Retry {
		t.Errorf("a header of %d bytes: %+v", 2*maxAnswerHeader, a)
	}
}

func TestSendTimesOut(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	s.timeout = 50 * time.Millisecond
	release := make(chan struct{})
	base, _ := receive(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusAccepted)
			w.(http.Flusher).Flush()
		}
		<-release
	})
	defer close(release)
	get := func(path string) answer {
		return s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, keep: true, action: &task.Action{Verb: "Get", URL: base + path}})
	}
	if a := get("/hang"); Classify(a.status, a.err) != Retry || a.text != "no answer within 50ms" {
		t.Errorf("answer %+v", a)
	}
	// It was accepted, whatever becomes of the rest of the answer. A busy machine has time to send its beginning.
	s.timeout = 2 * time.Second
	if a := get("/body"); Classify(a.status, a.err) != Done || a.status != 202 || a.text != "" {
		t.Errorf("answer %+v", a)
	}
}

func TestSendAsksTheGuardWhenDialling(t *testing.T) {
	t.Parallel()
	s := newSender(t) // loopback is refused
	var reached atomic.Bool
	base, _ := receive(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	port := base[strings.LastIndex(base, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost"} { // the name is looked up
		a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{Verb: "Get", URL: "http://" + host + port}})
		if Classify(a.status, a.err) != GiveUp || !refused(a.err) || !strings.Contains(a.text, "WEBHOOK_ALLOWED_NETWORKS") {
			t.Errorf("%s: %+v", host, a)
		}
	}
	if reached.Load() {
		t.Error("the request got through")
	}
}

func TestSendFailures(t *testing.T) {
	t.Parallel()
	s := newSender(t, "loopback")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tls := httptest.NewUnstartedServer(nil) // whose certificate nobody trusts
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	base, _ := receive(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, keep: true, action: &task.Action{Verb: "Get", URL: base}}); a.status != 503 ||
		a.text != "503 Service Unavailable" || a.retryAfter != 7*time.Second {
		t.Errorf("answer %+v", a)
	}
	for raw, want := range map[string]Verdict{
		"http://user:secret-password@" + closed.Addr().String() + "/?key=secret-key": Retry,
		tls.URL + "?secret-key":      Retry,
		"gopher://secret-host/":      GiveUp,
		"http://%zz/secret":          GiveUp,
		"http:///secret-path":        GiveUp,
		"http://host:secret-port/":   GiveUp,
		"secret\x00":                 GiveUp,
		"http://127.0.0.1:1/secret#": Retry,
	} {
		a := s.send(t.Context(), &call{id: testID, trigger: task.TriggerStart, action: &task.Action{
			Verb: "Post", URL: raw, Headers: map[string]string{"Authorization": "Bearer secret-token"}, Body: json.RawMessage(`"secret-body"`),
		}})
		if got := Classify(a.status, a.err); got != want || a.text == "" || strings.Contains(a.text, "secret") {
			t.Errorf("%q: %v, want %v: %s", raw, got, want, a.text)
		}
	}
}

// An answer that makes no sense is quoted in the error: what it echoes must not get into the text.
func TestDescribeHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	c := &call{action: &task.Action{
		URL:     "https://user:pa55word@host/path?key=k3y-value&other=o%2Bddone&x",
		Headers: map[string]string{"Authorization": "Bearer t0ken-value", "X-Key": "hdr-value", "X-Long": "hdr-value-long", "X-Quoted": `qu"oted`, "X-Flag": "1"},
	}}
	err := errors.New(`malformed HTTP response "Bearer t0ken-value ` + "\x00\xff\n" + ` key=k3y-value hdr-value-long hdr-value pa55word t0ken-value k3y-value o+ddone o%2Bddone qu\"oted 1" ` + strings.Repeat("ä", 500))
	text := (&sender{}).describe(t.Context(), c, err)
	for _, secret := range []string{"t0ken", "k3y", "hdr-value", "-long", "pa55word", "ddone", "oted"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %q", secret, text)
		}
	}
	if n := utf8.RuneCountInString(text); n != maxErrorText || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\n") ||
		!strings.HasPrefix(text, "malformed HTTP response") {
		t.Errorf("%d characters: %q", n, text)
	}
}

func TestTraceparentIsNeverZero(t *testing.T) {
	t.Parallel()
	s := &sender{random: func() uint64 { return 0 }}
	if got := s.traceparent(); got != "00-01000000000000000100000000000000-0100000000000000-01" {
		t.Errorf("traceparent %q", got)
	}
}

// memory answers without a network.
type memory struct{}

func (memory) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader([]byte(`{"ok":true}`))), ContentLength: 11}, nil
}

func BenchmarkSend(b *testing.B) {
	action := &task.Action{Verb: "Post", Headers: map[string]string{"X-Api-Key": "k"}, Body: json.RawMessage(`{"a":1}`)}
	b.Run("transport=memory", func(b *testing.B) {
		s := newSender(b)
		s.transport = memory{}
		action.URL = "http://worker.example/run?tenant=7"
		b.ReportAllocs()
		for b.Loop() {
			if a := s.send(context.Background(), &call{id: testID, trigger: task.TriggerStart, action: action, keep: true}); a.status != 200 {
				b.Fatal(a)
			}
		}
	})
	b.Run("transport=http", func(b *testing.B) {
		s := newSender(b, "loopback")
		base, _ := receive(b, nil)
		action.URL = base + "/run?tenant=7"
		b.ReportAllocs()
		for b.Loop() {
			if a := s.send(context.Background(), &call{id: testID, trigger: task.TriggerStart, action: action, keep: true}); a.status != 200 {
				b.Fatal(a)
			}
		}
	})
}

// What is kept of an answer is how it begins, without what could do harm where it is shown.
func TestExcerpt(t *testing.T) {
	t.Parallel()
	c := call{token: "hidden-handle", action: &task.Action{
		URL: "https://a/?token=hidden-query", Headers: map[string]string{
			"Authorization": "Bearer hidden-header", "Cookie": "lang=en; sid=hidden-cookie",
			"X-Path": "hidden/path", "X-More": "hidden&more", "X-Letter": "hidden-é",
		},
	}}
	for _, test := range []struct{ name, body, want string }{
		{"nothing", "", ""},
		{"text", "no such order\n7 €", "no such order\n7 €"},
		{"controls", "a\x00b\x1b[31mc\rd\u009be\u202ef", "a b [31mc d e f"},
		{"not UTF-8", "a\xffb\xe2\x82", "a?b?"},
		{"an echo", "got Bearer hidden-header, hidden-header, ?token=hidden-query and hidden-handle", "got …, …, ?… and …"},
		{"a word of a header", "no session hidden-cookie", "no session …"},
		{"spelled as PHP does", `{"key": "hidden\/path"}`, `{"key": "…"}`},
		{"spelled as Go does", `{"key": "hidden\u0026more"}`, `{"key": "…"}`},
		{"spelled as Python does", `{"key": "hidden-\u00e9"}`, `{"key": "…"}`},
		{"spelled as HTML has it", "<td>hidden&amp;more</td>", "<td>…</td>"},
		{"long", strings.Repeat("x", maxExcerpt+1), strings.Repeat("x", maxExcerpt)},
		{"cut within a character", strings.Repeat("x", maxExcerpt-1) + "€", strings.Repeat("x", maxExcerpt-1)},
		{"a secret where it is cut", strings.Repeat("x", maxExcerpt-5) + "hidden-header", strings.Repeat("x", maxExcerpt-5) + "…"},
	} {
		if got := c.excerpt([]byte(test.body)); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	secret := strings.Repeat("hidden", 10)
	c.action.Headers["X-Key"] = secret
	for before := range len(secret) { // what is read ends within a secret, and what is left of it is not long
		body := strings.Repeat("x", before) + strings.Repeat(secret, maxExcerptRead/len(secret)+1)
		if got := c.excerpt([]byte(body)[:maxExcerptRead]); strings.Contains(got, "h") || !strings.Contains(got, "…") {
			t.Errorf("%d before: %q", before, got)
		}
	}
}
