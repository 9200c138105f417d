package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"taskrunner/api"
)

func TestDryRun(t *testing.T) {
	t.Parallel()
	one := `[{"id":"x","name":"X","kind":"k","on_start":{"kind":"Webhook","params":{"url":"https://example.com/","verb":"Post"}}}]`
	cases := []scenario{
		{name: "one task", path: "?dry_run=true", body: one, status: 200,
			wants:       []string{`{"tasks":1,"links":0,"waves":[["x"]],"longest_path":["x"],"limits":[]}`},
			wantHeaders: []string{"X-Batch-ID: ", "Content-Type: application/json"}},
		{name: "with other parameters", path: "?requester=me&dry_run=true", body: one, status: 200, wants: []string{`"tasks":1`}},
		{name: "escaped", path: "?dry%5Frun=tr%75e", body: one, status: 200, wants: []string{`"tasks":1`}},
		{name: "nothing", path: "?dry_run=true", body: `[]`, status: 200,
			wants: []string{`{"tasks":0,"links":0,"waves":[],"longest_path":[],"limits":[]}`}},
		{name: "a valid key does not matter", path: "?dry_run=true", headers: []string{"Idempotency-Key: k"}, body: one, status: 200},
		{name: "minimal does not matter", path: "?dry_run=true", headers: []string{"Prefer: return=minimal"}, body: one, status: 200,
			wants: []string{`"waves"`}, wantHeaders: []string{"Preference-Applied: "}},
		{name: "false creates", path: "?dry_run=false", body: one, status: 201, wants: []string{`"local_id":"x"`}},
		{name: "invalid tasks", path: "?dry_run=true", body: `[{"id":"","name":" "}]`, status: 400,
			wants: []string{"tasks[0].id", "tasks[0].name", "tasks[0].kind", "tasks[0].on_start", `"batch_id"`}},
		{name: "a cycle", path: "?dry_run=true", body: strings.Replace(one, `"id":"x"`, `"id":"x","dependencies":[{"id":"x"}]`, 1), status: 400, wants: []string{"itself"}},
		{name: "too many bytes", path: "?dry_run=true", body: "[" + strings.Repeat(" ", 20_000) + "]", status: 413},
		{name: "an invalid key", path: "?dry_run=true", headers: []string{"Idempotency-Key: é"}, body: one, status: 400, wants: []string{"Idempotency-Key"}},
		{name: "an invalid requester", path: "?dry_run=true", headers: []string{"X-Requester: \xff"}, body: one, status: 400},
		{name: "neither", path: "?dry_run=maybe", body: one, status: 400, wants: []string{`dry_run: must be true or false, is \"maybe\"`, `"batch_id"`}},
		{name: "no value", path: "?dry_run", body: one, status: 400, wants: []string{`dry_run: must be true or false, is \"\"`}},
		{name: "another spelling", path: "?dry_run=True", body: one, status: 400},
		{name: "1", path: "?dry_run=1", body: one, status: 400},
		{name: "both", path: "?dry_run=true&dry_run=false", body: one, status: 400, wants: []string{"dry_run: must be given once"}},
		{name: "a broken query", path: "?dry_run=true&x=%zz", body: one, status: 400, wants: []string{"the query is not well-formed"}},
	}
	for i := range cases {
		cases[i].method, cases[i].path = "POST", "/task"+cases[i].path
	}
	run(t, cases, func(o *Options) { o.MaxBodyBytes = 10_000 })
}

func TestDryRunOfTheDiamond(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.err = fmt.Errorf("nobody asks the store")
	golden(t, "dryrun", s.do("POST", "/task?dry_run=true", diamond, "Idempotency-Key: k"))
	if len(s.batch) != 0 || len(s.keys) != 0 {
		t.Errorf("%d batches and %d keys are there", len(s.batch), len(s.keys))
	}
}

// What is known of duplicates without the store is told: they are left out, and a circle is refused as by a create.
func TestDryRunOfDuplicates(t *testing.T) {
	t.Parallel()
	s := newService(t)
	part := func(id string, more string) string {
		return `{"id":"` + id + `","name":"N","kind":"k","on_start":{"kind":"Webhook","params":{"url":"https://h.example/","verb":"Post"}}` + more + `}`
	}
	const strategy = `,"dedupe_strategy":[{"kind":"k","status":"Pending"},{"kind":"k","status":"Waiting"}]`
	w := s.do("POST", "/task?dry_run=true", "["+part("a", "")+","+part("b", strategy)+`,`+part("c", `,"dependencies":[{"id":"b"}]`)+"]")
	if got := decode[api.DryRun](t, w); w.Code != 200 || got.Tasks != 2 || got.Links != 1 || strings.Join(got.LongestPath, ",") != "a,c" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	circle := "[" + part("a", `,"dependencies":[{"id":"c"}]`) + "," + part("c", `,"dependencies":[{"id":"b"}]`) + "," +
		part("b", `,"dedupe_strategy":[{"kind":"k","status":"Waiting"}]`) + "]"
	w = s.do("POST", "/task?dry_run=true", circle)
	checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
	if w.Code != 400 || !strings.Contains(w.Body.String(), "tasks[1].dependencies: cycle c → c") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(s.batch) != 0 {
		t.Errorf("%d batches are there", len(s.batch))
	}
}
