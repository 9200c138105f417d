package task

import (
	"bytes"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"taskrunner/internal/jsonread"
)

// Limits of an action.
const (
	MaxURL         = 2048     // characters
	MaxHeaders     = 50       // of an action
	MaxHeaderBytes = 16 << 10 // names and values of an action together
)

var verbs = []string{"Get", "Post", "Put", "Patch", "Delete"}

const (
	fieldActionKind = iota
	fieldTrigger
	fieldCondition
	fieldParams
	fieldActionTimeout
	fieldRetry
	actionFieldCount
)

var actionFields = []string{"kind", "trigger", "condition", "params", "timeout", "retry"}

const (
	fieldURL = iota
	fieldVerb
	fieldHeaders
	fieldBody
	paramsFieldCount
)

var paramsFields = []string{"url", "verb", "headers", "body"}

// ParseActions reads the form in which actions are stored, which [MarshalActions] writes: an array in the wire form,
// without triggers. Nothing and null are no actions. The error is [Problems]. The actions do not refer to raw.
func ParseActions(raw []byte) ([]Action, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if err := jsonread.CheckStored(raw, "actions"); err != nil {
		return nil, err
	}
	p := newParser("")
	actions := p.actions("actions", jsonread.Root(raw), 0)
	return actions, p.Err()
}

// ParseAnswer reads the answer to on_start, which may bring a cancel action: a JSON object with "kind" and "params". Any
// other answer, JSON or not, brings none and is no error. An object that is meant as an action but cannot be used is an
// error: [Problems] with paths below "answer". checkURL is that of [ParseParams].
func ParseAnswer(body []byte, checkURL func(rawURL string) error) (a Action, found bool, err error) {
	v := jsonread.Root(body)
	if v.Kind() != jsonread.Object {
		return Action{}, false, nil
	}
	if err := jsonread.Check(body, "answer"); err != nil {
		// What is not an action need not be JSON either.
		if bytes.Contains(body, []byte(`"kind"`)) && bytes.Contains(body, []byte(`"params"`)) {
			return Action{}, false, err
		}
		return Action{}, false, nil
	}
	if !ParseMetadata(v.Raw()).hasAll("kind", "params") {
		return Action{}, false, nil
	}
	p := newParser("")
	p.checkURL = checkURL
	if a, ok := p.action("answer", v, TriggerCancel); ok {
		return a, true, nil
	}
	return Action{}, false, p.Err()
}

// actions reads an array of them; left out there are none.
func (p *parser) actions(name string, v jsonread.Value, trigger Trigger) (actions []Action) {
	p.list(name, v, MaxActions, "actions", func(element jsonread.Value) {
		a, _ := p.action("", element, trigger)
		actions = append(actions, a)
	})
	return actions
}

// action reads one action that fires on trigger; 0 is any, which must not be named. name is empty in an array.
func (p *parser) action(name string, v jsonread.Value, trigger Trigger) (a Action, ok bool) {
	if name != "" {
		if v.IsNull() {
			return a, p.Addf(name, "is required")
		}
		p.Enter(name)
		defer p.Leave()
	}
	before := p.Count()
	var f [actionFieldCount]jsonread.Value
	if !p.Fields(v, actionFields, f[:]) {
		return a, false
	}
	if v := f[fieldActionKind]; v.IsNull() {
		p.Addf("kind", "is required")
	} else if kind, ok := p.String("kind", v); ok && kind != "Webhook" {
		p.Addf("kind", "must be Webhook, is %s", jsonread.Quote(kind))
	}
	p.trigger(f[fieldTrigger], f[fieldCondition], trigger)
	p.params(f[fieldParams], &a, trigger)
	if v := f[fieldActionTimeout]; !v.IsNull() {
		n, _ := p.IntBetween("timeout", v, 1, int64(MaxActionTimeout/time.Second))
		a.Timeout = time.Duration(n) * time.Second
	}
	a.Retry = p.retry("retry", f[fieldRetry], trigger)
	return a, p.Count() == before
}

// trigger checks what an action says about when it fires against the field it stands in, which decides.
func (p *parser) trigger(name, condition jsonread.Value, trigger Trigger) {
	wantName, wantCondition := "", ""
	switch trigger {
	case TriggerStart:
		wantName = "Start"
	case TriggerSuccess:
		wantName, wantCondition = "End", "Success"
	case TriggerFailure:
		wantName, wantCondition = "End", "Failure"
	case TriggerCancel:
		wantName = "Cancel"
	}
	p.agrees("trigger", name, wantName)
	p.agrees("condition", condition, wantCondition)
}

// agrees checks a text that may be left out, and otherwise must be want; empty: must be left out.
func (p *parser) agrees(name string, v jsonread.Value, want string) {
	if v.IsNull() {
		return
	}
	text, ok := p.String(name, v)
	switch {
	case !ok || text == want && want != "":
	case want == "":
		p.Addf(name, "does not belong here")
	default:
		p.Addf(name, "must be %s here, is %s", want, jsonread.Quote(text))
	}
}

func (p *parser) params(v jsonread.Value, a *Action, trigger Trigger) {
	if v.IsNull() {
		p.Addf("params", "is required")
		return
	}
	p.Enter("params")
	defer p.Leave()
	var f [paramsFieldCount]jsonread.Value
	if !p.Fields(v, paramsFields, f[:]) {
		return
	}
	a.URL = p.url(f[fieldURL])
	a.Verb = p.verb(f[fieldVerb])
	a.Headers = p.headers(f[fieldHeaders], trigger)
	if body := f[fieldBody]; !body.IsNull() && (trigger != TriggerBatchComplete || p.Object("body", body)) {
		a.Body = body.AppendCompact(make([]byte, 0, len(body.Raw())))
	}
}

func (p *parser) verb(v jsonread.Value) string {
	if v.IsNull() {
		p.Addf("verb", "is required")
		return ""
	}
	if !p.Is("verb", v, jsonread.String) {
		return ""
	}
	text := v.TextBytes()
	for _, verb := range verbs {
		if verb == string(text) {
			return verb
		}
	}
	p.Addf("verb", "must be Get, Post, Put, Patch or Delete, is %s%s", jsonread.Quote(string(text)),
		jsonread.Suggest(string(text), verbs))
	return ""
}

func (p *parser) url(v jsonread.Value) string {
	if v.IsNull() {
		p.Addf("url", "is required")
		return ""
	}
	raw, ok := p.text("url", v)
	if !ok {
		return ""
	}
	known := p.urls.slot([]byte(raw))
	if *known == raw && raw != "" {
		return raw
	}
	if reason := urlProblem(raw); reason != "" {
		p.Addf("url", "%s", reason)
		return ""
	}
	if p.checkURL != nil {
		if err := p.checkURL(raw); err != nil {
			p.Addf("url", "%v", err)
			return ""
		}
	}
	*known = raw
	return raw
}

// urlProblem is why nothing can be sent to raw; empty when it can. It does not repeat the URL, which may hold secrets.
func urlProblem(raw string) string {
	if n := len(raw); n > MaxURL && utf8.RuneCountInString(raw) > MaxURL {
		return "must have at most " + strconv.Itoa(MaxURL) + " characters, has " + strconv.Itoa(utf8.RuneCountInString(raw))
	}
	u, err := url.Parse(raw)
	switch {
	case strings.TrimSpace(raw) == "":
		return "must not be empty"
	case strings.ContainsRune(raw, ' '):
		return "must not have spaces: write %20"
	case err != nil:
		return "is not a valid URL"
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "must be absolute: http:// or https://, and a host"
	case u.User != nil:
		return "must not have a user name or password, which would be shown in clear: send a header instead"
	case u.Port() != "":
		if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
			return "must have a port between 1 and 65535"
		}
	}
	return ""
}

// MarshalActions is what [ParseActions] reads: compact JSON, headers sorted by name. No actions are [].
func MarshalActions(actions []Action) []byte {
	out := []byte{'['}
	for i, a := range actions {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendAction(out, a)
	}
	return append(out, ']')
}

func appendAction(out []byte, a Action) []byte {
	out = append(out, `{"kind":"Webhook","params":{"url":`...)
	out = jsonread.AppendString(out, a.URL)
	out = append(out, `,"verb":`...)
	out = jsonread.AppendString(out, a.Verb)
	if len(a.Headers) > 0 {
		out = append(out, `,"headers":{`...)
		for i, name := range slices.Sorted(maps.Keys(a.Headers)) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(jsonread.AppendString(out, name), ':')
			out = jsonread.AppendString(out, a.Headers[name])
		}
		out = append(out, '}')
	}
	if a.Body != nil {
		out = append(append(out, `,"body":`...), a.Body...)
	}
	out = append(out, '}')
	if a.Timeout != 0 {
		out = append(append(out, `,"timeout":`...), seconds(a.Timeout)...)
	}
	if a.Retry != (Retry{}) {
		out = a.Retry.appendJSON(append(out, `,"retry":`...))
	}
	return append(out, '}')
}
