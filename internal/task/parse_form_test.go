package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestRuleSpellings: every dialect and spelling comes back as it was sent.
func TestRuleSpellings(t *testing.T) {
	t.Parallel()
	const matcher = `"matcher":{"kind":"k","status":"Running","fields":["a","\""]},`
	for raw, form := range map[string]RuleForm{
		`[{"Concurency":{` + matcher + `"max_concurency":5}}]`:        {},
		`[{"Concurency":{` + matcher + `"max_concurrency":5}}]`:       {MaxRR: true},
		`[{"Concurrency":{` + matcher + `"max_concurency":5}}]`:       {TypeRR: true},
		`[{"Concurrency":{` + matcher + `"max_concurrency":5}}]`:      {TypeRR: true, MaxRR: true},
		`[{"type":"Concurency",` + matcher + `"max_concurency":5}]`:   {Tagged: true},
		`[{"type":"Concurency",` + matcher + `"max_concurrency":5}]`:  {Tagged: true, MaxRR: true},
		`[{"type":"Concurrency",` + matcher + `"max_concurency":5}]`:  {Tagged: true, TypeRR: true},
		`[{"type":"Concurrency",` + matcher + `"max_concurrency":5}]`: {Tagged: true, TypeRR: true, MaxRR: true},
	} {
		rules, err := ParseRules([]byte(raw))
		want := []Rule{{Matcher: Matcher{"k", Running, []string{"a", `"`}}, Max: 5, Form: form}}
		if diff := cmp.Diff(want, rules); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", raw, err, diff)
		}
		if got := string(MarshalRules(rules)); got != raw {
			t.Errorf("%s came back as %s", raw, got)
		}
	}
}

func TestCapacityForm(t *testing.T) {
	t.Parallel()
	const matcher = `"matcher":{"kind":"k","status":"Running","fields":["a"]},`
	for raw, form := range map[string]RuleForm{
		`[{"Capacity":{` + matcher + `"max_capacity":500}}]`:      {},
		`[{"type":"Capacity",` + matcher + `"max_capacity":500}]`: {Tagged: true},
	} {
		rules, err := ParseRules([]byte(raw))
		want := []Rule{{Matcher: Matcher{"k", Running, []string{"a"}}, Type: Capacity, Max: 500, Form: form}}
		if diff := cmp.Diff(want, rules); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", raw, err, diff)
		}
		if got := string(MarshalRules(rules)); got != raw {
			t.Errorf("%s came back as %s", raw, got)
		}
	}
}

func TestNoRulesNoActions(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"", "null", "[]"} {
		rules, err := ParseRules([]byte(raw))
		actions, err2 := ParseActions([]byte(raw))
		if rules != nil || actions != nil || err != nil || err2 != nil {
			t.Errorf("%q: %v %v, %v %v", raw, rules, err, actions, err2)
		}
	}
	if string(MarshalRules(nil)) != "[]" || string(MarshalActions(nil)) != "[]" {
		t.Error("none must be an empty array")
	}
}

func TestParseRulesProblems(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{}`: `rules: must be an array, is object`,
		`[`:  `rules[0]: not valid JSON: it ends where a value should stand at line 1, column 2`,
		`[{"Concurency":{"matcher":{"kind":"k","status":"Running"},"max_concurency":1.0}}]`: `rules[0].Concurency.max_concurency: ` +
			`must be a whole number without fraction and exponent, is 1.0`,
	} {
		rules, err := ParseRules([]byte(raw))
		if rules != nil || err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v, want %s", raw, rules, err, want)
		}
	}
}

func drawText(t *rapid.T, label string) string {
	return rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) }), 1, 10, -1).Draw(t, label)
}

func drawRule(t *rapid.T) Rule {
	rule := Rule{Matcher: Matcher{Kind: drawText(t, "kind"), Status: Running}, Max: rapid.IntRange(1, MaxLimit).Draw(t, "max")}
	names := rapid.SampledFrom([]string{"a", "b", "é", `"`, "x y"})
	fields := rapid.SliceOfNDistinct(names, 0, 3, rapid.ID[string]).Draw(t, "fields")
	rule.Matcher.Fields = append(rule.Matcher.Fields, fields...)
	rule.Form = RuleForm{rapid.Bool().Draw(t, "tagged"), rapid.Bool().Draw(t, "type"), rapid.Bool().Draw(t, "max")}
	return rule
}

func TestRulesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(drawRule), 1, MaxRules).Draw(t, "rules")
		got, err := ParseRules(MarshalRules(rules))
		if diff := cmp.Diff(rules, got); err != nil || diff != "" {
			t.Fatalf("%s: %v, -want +got:\n%s", MarshalRules(rules), err, diff)
		}
	})
}

// drawRetry leaves out what it likes.
func drawRetry(t *rapid.T) (r Retry) {
	pause := func(least time.Duration, name string) time.Duration {
		return time.Duration(rapid.Int64Range(least.Milliseconds(), MaxRetryPause.Milliseconds()).Draw(t, name)) * time.Millisecond
	}
	if rapid.Bool().Draw(t, "has attempts") {
		r.MaxAttempts = rapid.IntRange(1, MaxAttempts).Draw(t, "attempts")
	}
	if rapid.Bool().Draw(t, "has initial") {
		r.Initial = pause(MinRetryPause, "initial")
	}
	if rapid.Bool().Draw(t, "has factor") {
		r.Factor = float64(rapid.Int64Range(1000, MaxRetryFactor*1000).Draw(t, "factor")) / 1000
	}
	if rapid.Bool().Draw(t, "has max") {
		r.Max = pause(max(MinRetryPause, r.Initial), "max")
	}
	return r
}

// What is written is read again as it was: String is the wire form.
func TestRetryRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetry(t)
		if got, err := ParseRetry([]byte(r.String()), TriggerSuccess); err != nil || got != r {
			t.Fatalf("%s: %+v, %v", r, got, err)
		}
	})
	for _, c := range []struct {
		trigger Trigger
		raw     string
		want    string
	}{
		{TriggerStart, `{}`, `{}`},
		{TriggerStart, ` {"max": 600.000, "max_attempts":1 , "initial":null} `, `{"max_attempts":1,"max":600}`},
		{TriggerSuccess, `{"initial":0.001,"factor":1.0,"max":8.64e4}`, `{"initial":0.001,"factor":1,"max":86400}`},
		{TriggerSuccess, `{"initial":1e-3,"factor":1.125,"max":0.1}`, `{"initial":0.001,"factor":1.125,"max":0.1}`},
	} {
		if got, err := ParseRetry([]byte(c.raw), c.trigger); err != nil || got.String() != c.want {
			t.Errorf("%s: %s, %v, want %s", c.raw, got, err, c.want)
		}
	}
}

// What a policy says counts, and what it leaves out another one says; the pauses stay in order.
func TestRetryOr(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawRetry(t)
		other := drawRetry(t).Or(DefaultRetry(rapid.SampledFrom([]Trigger{TriggerStart, TriggerCancel}).Draw(t, "trigger")))
		got := r.Or(other)
		pick := func(own, others float64) float64 {
			if own != 0 {
				return own
			}
			return others
		}
		want := Retry{
			MaxAttempts: int(pick(float64(r.MaxAttempts), float64(other.MaxAttempts))), Factor: pick(r.Factor, other.Factor),
			Initial: got.Initial, Max: got.Max,
		}
		if got != want || got.Initial <= 0 || got.Initial > got.Max {
			t.Fatalf("%s or %s is %s", r, other, got)
		}
		if r.Initial != 0 && got.Initial != r.Initial || r.Max != 0 && got.Max != r.Max ||
			r.Initial == 0 && got.Initial != min(other.Initial, got.Max) || r.Max == 0 && got.Max != max(other.Max, r.Initial) {
			t.Fatalf("%s or %s is %s", r, other, got)
		}
	})
}

func TestActionsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		actions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Action {
			a := Action{Verb: rapid.SampledFrom(verbs).Draw(t, "verb"), URL: "https://h/" + rapid.StringMatching(`[a-z"\\é&<]{0,9}`).Draw(t, "path")}
			if rapid.Bool().Draw(t, "headers") {
				a.Headers = map[string]string{"X-A": drawText(t, "value"), "Accept": `"\`}
			}
			if rapid.Bool().Draw(t, "body") {
				a.Body = json.RawMessage(rapid.SampledFrom([]string{`{}`, `[1,"a\u0001"]`, `"x"`, `0`, `false`}).Draw(t, "json"))
			}
			a.Timeout = time.Duration(rapid.IntRange(0, 60).Draw(t, "timeout")) * time.Second
			a.Retry = drawRetry(t)
			return a
		}), 1, MaxActions).Draw(t, "actions")
		raw := MarshalActions(actions)
		got, err := ParseActions(raw)
		if diff := cmp.Diff(actions, got); err != nil || diff != "" {
			t.Fatalf("%s: %v, -want +got:\n%s", raw, err, diff)
		}
	})
}

func TestMarshalActions(t *testing.T) {
	t.Parallel()
	got := string(MarshalActions([]Action{{Verb: "Put", URL: "http://h/?a=1&b=<", Headers: map[string]string{"B": "2", "A": `"`}, Body: json.RawMessage(`{"x":1}`)}}))
	want := `[{"kind":"Webhook","params":{"url":"http://h/?a=1&b=<","verb":"Put","headers":{"A":"\"","B":"2"},"body":{"x":1}}}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = string(MarshalActions([]Action{{Verb: "Put", URL: "http://h", Timeout: time.Minute, Retry: Retry{2, time.Second / 2, 1.5, time.Hour}}}))
	want = `[{"kind":"Webhook","params":{"url":"http://h","verb":"Put"},"timeout":60,` +
		`"retry":{"max_attempts":2,"initial":0.5,"factor":1.5,"max":3600}}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := ParseActions([]byte(`[{"kind":"Webhook","trigger":"Start","params":{"url":"http://h","verb":"Put"}}]`)); err == nil {
		t.Error("the stored form has no trigger")
	}
}

func TestParseAnswer(t *testing.T) {
	t.Parallel()
	guard := func(raw string) error {
		if strings.Contains(raw, "internal") {
			return errors.New("the address is not allowed")
		}
		return nil
	}
	cancel := Action{Verb: "Delete", URL: "https://w/17"}
	for _, c := range []struct {
		body string
		want *Action
		err  string
	}{
		{``, nil, ``}, {`OK`, nil, ``}, {`{`, nil, ``}, {`{} {}`, nil, ``}, {`null`, nil, ``}, {`[{"kind":1,"params":2}]`, nil, ``}, {`{}`, nil, ``},
		{`{"kind":"Webhook"}`, nil, ``}, {`{"params":{}}`, nil, ``}, {`{"job":{"kind":"Webhook","params":{}}}`, nil, ``},
		{` {"kind":"Webhook","params":{"url":"https://w/17","verb":"Delete"}} `, &cancel, ``},
		{`{"kind":"Webhook","trigger":"Cancel","condition":null,"params":{"url":"https://w/17","verb":"Delete"}}`, &cancel, ``},
		{`{"kind":"Webhook","trigger":"End","params":{"url":"https://w/17","verb":"Delete"}}`, nil, `answer.trigger: must be Cancel here, is "End"`},
		{`{"kind":"Webhook","params":{"url":"http://internal/","verb":"Delete"}}`, nil, `answer.params.url: the address is not allowed`},
		{`{"kind":"Webhook","params":null}`, nil, `answer.params: is required`},
		{`{"kind":"Webhook","params":{"url":"https://w/17","verb":"Del`, nil, `answer.params.verb: not valid JSON: a string without its end at line 1, column 57`},
	} {
		a, found, err := ParseAnswer([]byte(c.body), guard)
		if (err != nil || c.err != "") && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: error %v, want %s", c.body, err, c.err)
		}
		if found != (c.want != nil) {
			t.Errorf("%s: found %v", c.body, found)
		} else if found && !cmp.Equal(a, *c.want) {
			t.Errorf("%s: %v", c.body, a)
		}
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add(typicalBatch(2))
	for _, c := range badTasks {
		f.Add([]byte("[" + c.task + "]"))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		batch, err := ParseBatch(bytes.NewReader(body), ParseParams{MaxTasks: 50, NewID: counterIDs()})
		if err != nil {
			if problems, ok := errors.AsType[Problems](err); !errors.Is(err, ErrTooManyTasks) && (!ok || len(problems) == 0) {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, task := range batch.Tasks {
			rules, err := ParseRules(MarshalRules(task.Rules))
			if diff := cmp.Diff(task.Rules, rules); err != nil || diff != "" {
				t.Fatalf("rules: %v\n%s", err, diff)
			}
			actions := append([]Action{task.OnStart}, task.OnSuccess...)
			if len(actions) > MaxActions {
				continue
			}
			again, err := ParseActions(MarshalActions(actions))
			if diff := cmp.Diff(actions, again); err != nil || diff != "" {
				t.Fatalf("actions: %v\n%s", err, diff)
			}
			if !json.Valid(task.Metadata) || len(task.Metadata) > MaxMetadata {
				t.Fatalf("metadata %s", task.Metadata)
			}
			for _, rule := range task.Rules {
				if _, ok := rule.Check(task.Kind, ParseMetadata(task.Metadata)); !ok {
					t.Fatalf("%s cannot be checked with %s", MarshalRules([]Rule{rule}), task.Metadata)
				}
			}
		}
	})
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte(`[{"Concurency":{"matcher":{"kind":"k","status":"Running","fields":["a"]},"max_concurency":5}}]`))
	f.Add([]byte(`[{"type":"Concurrency","matcher":{"kind":"k","status":"Running"},"max_concurrency":5},{"Capacity":{}}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rules, err := ParseRules(raw)
		if err != nil {
			return
		}
		again, err := ParseRules(MarshalRules(rules))
		if diff := cmp.Diff(rules, again); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"kind":"Webhook","params":{"url":"https://w/17","verb":"Delete"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, found, err := ParseAnswer(body, nil); found && (err != nil || a.URL == "" || a.Verb == "") {
			t.Fatalf("found %+v, %v", a, err)
		}
	})
}
