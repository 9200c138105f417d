package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// scenario is one request to a service that has the diamond.
type scenario struct {
	name    string
	method  string
	path    string
	headers []string
	body    string
	status  int
	// wants are parts of the answer's body, wantHeaders "Name: value" of it; an empty value must not be there.
	wants       []string
	wantHeaders []string
}

const (
	idA     = "0198c0de-5a10-7000-8000-000000000002"
	idB     = "0198c0de-5a10-7000-8000-000000000003"
	unknown = "0198c0de-5a10-7000-8000-00000000ffff"
)

func run(t *testing.T, scenarios []scenario, change ...func(o *Options)) {
	t.Helper()
	for _, c := range scenarios {
		name := c.name
		if name == "" {
			name = c.method + " " + c.path + " " + c.body
		}
		t.Run(name[:min(len(name), 80)], func(t *testing.T) {
			t.Parallel()
			s := withDiamond(t, change...)
			w := s.do(c.method, c.path, c.body, c.headers...)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			for _, want := range c.wants {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("the body has no %q: %s", want, w.Body)
				}
			}
			for _, want := range c.wantHeaders {
				name, value, _ := strings.Cut(want, ": ")
				if got := strings.Join(w.Header().Values(name), "|"); got != value {
					t.Errorf("%s: %q, want %q", name, got, value)
				}
			}
			if w.Code >= 400 && !strings.Contains(c.path, "/health") && !strings.Contains(c.path, "/ready") {
				checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
			}
		})
	}
}

func checkProblem(t *testing.T, h http.Header, status int, body []byte) {
	t.Helper()
	if got := h.Get("Content-Type"); got != api.ProblemType {
		t.Errorf("Content-Type %q", got)
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if p.Status != status || p.Type != "about:blank" || p.Title == "" || p.Error == "" || p.Details == nil {
		t.Errorf("problem %s", body)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	one := `[{"id":"x","name":"X","kind":"k","on_start":{"kind":"Webhook","params":{"url":"https://example.com/","verb":"Post"}}}]`
	cases := []scenario{
		{name: "full", body: one, status: 201,
			wants:       []string{`"local_id":"x"`, `"status":"Pending"`, `"timeout":60`, `"created_at":"2026-01-01T00:00:00.000000Z"`, `"rules":[]`, `"dependencies":[]`},
			wantHeaders: []string{"X-Batch-ID: " + testID(6).String(), "Content-Type: application/json", "Preference-Applied: "}},
		{name: "minimal", body: one, status: 201, headers: []string{"Prefer: respond-async, return=minimal; foo=1"},
			wants:       []string{`[{"id":"` + testID(7).String() + `","local_id":"x"}`},
			wantHeaders: []string{"Preference-Applied: return=minimal"}},
		{name: "minimal, quoted, second line", body: one, status: 201,
			headers:     []string{"Prefer: wait=1", `Prefer: Return="minimal"`},
			wantHeaders: []string{"Preference-Applied: return=minimal"}},
		{name: "representation", body: one, status: 201, headers: []string{"Prefer: return=representation, return=minimal"},
			wants: []string{`"actions"`}},
		{name: "empty", body: ` [ ] `, status: 204, wantHeaders: []string{"X-Batch-ID: " + testID(6).String(), "Content-Type: "}},
		{name: "object", body: `{"tasks":` + one + `,"scope":"nightly","metadata":{},"on_batch_complete":[]}`, status: 201,
			wants:       []string{`"local_id":"x"`, `"status":"Pending"`, `"actions"`},
			wantHeaders: []string{"X-Batch-ID: " + testID(6).String(), "Content-Type: application/json"}},
		{name: "object, minimal", body: `{"tasks":` + one + `}`, status: 201, headers: []string{"Prefer: return=minimal"},
			wants:       []string{`[{"id":"` + testID(7).String() + `","local_id":"x"}`},
			wantHeaders: []string{"Preference-Applied: return=minimal"}},
		{name: "object, dry run", path: "/task?dry_run=true", body: `{"tasks":` + one + `,"scope":"x"}`, status: 200, wants: []string{`"tasks":1`, `"waves":[["x"]]`}},
		{name: "object without tasks", body: `{"tasks":[],"on_batch_complete":[{"kind":"Webhook","params":{"url":"https://example.com/","verb":"Post"}}]}`,
			status: 204, wantHeaders: []string{"X-Batch-ID: " + testID(6).String()}},
		{name: "object with problems", body: `{"task":[],"on_batch_complete":[{"kind":"Webhook","trigger":"End","params":{"url":"https://internal/","verb":"Post","body":[]}}]}`,
			status: 400, wants: []string{`unknown field \"task\", did you mean \"tasks\"?`, "tasks: is required",
				"on_batch_complete[0].trigger: does not belong here", "on_batch_complete[0].params.url: is not allowed",
				"on_batch_complete[0].params.body: must be an object, is array", `"batch_id":"` + testID(6).String()}},
		{name: "object with too many tasks", body: `{"tasks":[` + strings.Repeat(one[1:len(one)-1]+",", 10) + one[1:] + `}`, status: 413,
			wants: []string{"too many tasks", `"batch_id"`}},
		{name: "no body", body: "", status: 400, wants: []string{"is empty"}},
		{name: "not JSON", body: `[{]`, status: 400, wants: []string{"not valid JSON", `"batch_id":"` + testID(6).String()}},
		{name: "trailing garbage", body: `[] x`, status: 400},
		{name: "not an array", body: `"x"`, status: 400},
		{name: "a null", body: `null`, status: 400},
		{name: "an element that is no object", body: `[1]`, status: 400, wants: []string{"tasks[0]: must be an object, is number"}},
		{name: "every problem at once", body: `[{"id":"","name":" ","kind":"k","timeout":86401,"priority":1001,"expected_count":-1}]`, status: 400,
			wants: []string{"tasks[0].id", "tasks[0].name", "tasks[0].timeout", "tasks[0].priority", "tasks[0].expected_count", "tasks[0].on_start", `"error":"Validation failed"`}},
		{name: "duplicate member", body: `[{"id":"x","id":"y"}]`, status: 400, wants: []string{"duplicate"}},
		{name: "NUL", body: `[{"id":"x\u0000"}]`, status: 400, wants: []string{"NUL"}},
		{name: "raw NUL", body: "[{\"id\":\"x\x00\"}]", status: 400},
		{name: "UTF-16", body: "\xff\xfe[\x00]\x00", status: 400, wants: []string{"UTF-8"}},
		{name: "byte order mark", body: "\ufeff[]", status: 400},
		{name: "deep", body: strings.Repeat("[", 9_000), status: 400, wants: []string{"nested deeper"}},
		{name: "huge number", body: `[{"id":"x","timeout":1e999999}]`, status: 400},
		{name: "long number", body: `[{"id":"x","timeout":` + strings.Repeat("9", 1000) + `}]`, status: 400},
		{name: "too many tasks", body: "[" + strings.Repeat(one[1:len(one)-1]+",", 10) + one[1:], status: 413,
			wants: []string{"too many tasks", "at most 10", `"batch_id"`}},
		{name: "too many bytes", body: "[" + strings.Repeat(" ", 20_000) + "]", status: 413, wants: []string{"10000 bytes"}},
		{name: "refused URL", body: strings.ReplaceAll(one, "example.com", "internal"), status: 400,
			wants: []string{"tasks[0].on_start.params.url: is not allowed"}},
		{name: "requester in the header", body: one, status: 201, headers: []string{"Requester: me"}},
		{name: "requester too long", body: one, status: 400, headers: []string{"X-Requester: " + strings.Repeat("x", 256)},
			wants: []string{"requester: must have at most 255"}},
		{name: "requester not UTF-8", body: one, status: 400, headers: []string{"X-Requester: \xff"}},
		{name: "requester with a NUL", path: "/task?requester=%00", body: one, status: 400},
		{name: "requester in a broken query", path: "/task?requester=%zz", body: one, status: 400},
	}
	for i := range cases {
		cases[i].method = "POST"
		if cases[i].path == "" {
			cases[i].path = "/task"
		}
	}
	run(t, cases, func(o *Options) {
		o.MaxTasksPerBatch, o.MaxBodyBytes = 10, 10_000
		o.CheckURL = func(raw string) error {
			if strings.Contains(raw, "internal") {
				return fmt.Errorf("is not allowed")
			}
			return nil
		}
	})
}

func TestCreateSideEffects(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, c := range []struct {
		target, header, want string
	}{
		{"/task", "X-Requester: a", "a"},
		{"/task?requester=b", "Requester: c", "c"},
		{"/task?requester=d", "X-Other: x", "d"},
	} {
		w := s.do("POST", c.target, diamond, c.header)
		id, err := task.ParseID(w.Header().Get("X-Batch-ID"))
		if err != nil || s.batch[id].Requester != c.want {
			t.Errorf("%v: %v, %+v", c, err, s.batch[id])
		}
		if w := s.do("GET", "/batch/"+id.String(), ""); !strings.Contains(w.Body.String(), `"requester":"`+c.want+`"`) {
			t.Error(w.Body)
		}
	}
	s.do("POST", "/task", "[]")
	s.do("POST", "/task", "[1]")
	if len(s.batch) != 3 {
		t.Errorf("%d batches", len(s.batch))
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	run(t, []scenario{
		{method: "GET", path: "/task/" + idA, status: 200, wants: []string{`"id":"` + idA, `"note":"<b>&"`, `"trigger":"Start"`}},
		{method: "GET", path: "/task/" + strings.ToUpper(idA), status: 200},
		{method: "HEAD", path: "/task/" + idA, status: 200},
		{method: "GET", path: "/task/" + unknown, status: 404, wants: []string{"task " + unknown + " not found"}},
		{method: "GET", path: "/task/x", status: 400, wants: []string{`id: \"x\" is not a UUID`}},
		{method: "GET", path: "/task/%00", status: 400},
		{method: "GET", path: "/task/%ff%fe", status: 400},
		{method: "GET", path: "/task/" + strings.Repeat("x", 5000), status: 400, wants: []string{"…"}},
		{method: "GET", path: "/task/{" + idA + "}", status: 400},
		{method: "GET", path: "/task/urn:uuid:" + idA, status: 400},
		{method: "GET", path: "/batch/" + testID(1).String(), status: 200, wants: []string{`"total_tasks":4`, `"waiting":3`, `"requester":"nightly"`}},
		{method: "GET", path: "/batch/" + unknown, status: 404, wants: []string{"batch " + unknown}},
		{method: "GET", path: "/batch/1", status: 400},
		{method: "GET", path: "/dag/" + testID(1).String(), status: 200, wants: []string{`"links":[{"parent_id":"` + idA}},
		{method: "GET", path: "/task/" + idA + "/history", status: 200, wants: []string{`"cause":"created","from":null,"to":"Pending"}`}},
		{method: "GET", path: "/task/" + unknown + "/history", status: 404, wants: []string{"task " + unknown}},
		{method: "GET", path: "/task/x/history", status: 400, wants: []string{"id: "}},
		{method: "GET", path: "/dag/" + unknown, status: 404, wants: []string{"batch " + unknown}},
		{method: "GET", path: "/dag/x", status: 400, wants: []string{"batch_id: "}},
	})
}

func TestEditRules(t *testing.T) {
	t.Parallel()
	path := "/batch/" + testID(1).String() + "/rules"
	rule := `{"type":"Concurency","matcher":{"kind":"k","status":"Running","fields":["nowhere"]},"max_concurency":1}`
	cases := []scenario{
		{body: `{"kind":"step","rules":[]}`, status: 200, wants: []string{`"batch_id":"` + testID(1).String(), `"kind":"step","updated_count":`}},
		{body: `{"kind":"nobody","rules":[]}`, status: 200, wants: []string{`"updated_count":0`}},
		{body: `{"kind":"step"}`, status: 400, wants: []string{"rules: is required"}},
		{body: `{"rules":[]}`, status: 400, wants: []string{"kind: is required"}},
		{body: `{"kind":"step","rules":null}`, status: 400, wants: []string{"rules: is required"}},
		{body: `{"kind":"step","rules":[{}]}`, status: 400, wants: []string{"rules[0]"}},
		{body: `{"kind":"step","rules":[` + rule + `],"x":1}`, status: 400, wants: []string{"x"}},
		{body: `[]`, status: 400},
		{body: ``, status: 400},
	}
	for i := range cases {
		cases[i].method, cases[i].path = "PATCH", path
	}
	run(t, append(cases,
		scenario{method: "PATCH", path: "/batch/" + unknown + "/rules", body: `{"kind":"a","rules":[]}`, status: 404, wants: []string{"batch " + unknown}},
		scenario{method: "PATCH", path: "/batch/x/rules", body: `{"kind":"a","rules":[]}`, status: 400, wants: []string{"id: "}},
	))
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	b := "/task/" + idB
	cases := []scenario{
		{body: `{"status":"Success","new_success":10,"new_failures":2,"metadata":{"updated":true}}`, status: 200,
			wants: []string{`{"id":"` + idB + `","status":"Success","success":10,"failures":2,"last_updated":"2026-01-01T00:00:01.000000Z"}`}},
		{body: `{"status":"Failure","failure_reason":"no"}`, status: 200, wants: []string{`"failure_reason":"no"`}},
		{body: `{}`, status: 200, wants: []string{`"status":"Running"`}},
		{body: ` {"status":null,"failure_reason":null,"new_success":null,"new_failures":null,"metadata":null,"expected_count":null,"priority":null} `, status: 200},
		{body: `{"status":"Success","failure_reason":" "}`, status: 200},
		{body: `{"priority":-1000,"expected_count":0,"new_success":1000000000000000}`, status: 200},
		{body: `{"status":"Pending"}`, status: 409, wants: []string{"task is Running, it cannot be resumed"}},
		{path: "/task/" + idA, body: `{"status":"Success"}`, status: 409, wants: []string{"task is Pending"}},
		{path: "/task/" + idA, body: `{"metadata":{}}`, status: 400, wants: []string{"metadata: rules[0] needs"}},
		{path: "/task/" + unknown, body: `{}`, status: 404, wants: []string{unknown}},
		{path: "/task/x", body: `{}`, status: 400},
		{path: "/task/pause", body: `{}`, status: 400},
		{body: ``, status: 400},
		{body: `[]`, status: 400, wants: []string{"must be an object, is array"}},
		{body: `null`, status: 400},
		{body: `{} {}`, status: 400},
		{body: `{"status":"success"}`, status: 400, wants: []string{`did you mean \"Success\"?`}},
		{body: `{"status":"Canceled"}`, status: 400, wants: []string{"must be Success, Failure or Pending"}},
		{body: `{"status":"Running"}`, status: 400},
		{body: `{"status":""}`, status: 400},
		{body: `{"status":1}`, status: 400, wants: []string{"status: must be a string, is number"}},
		{body: `{"Status":"Success"}`, status: 400, wants: []string{`did you mean \"status\"?`}},
		{body: `{"task_id":"` + idB + `"}`, status: 400, wants: []string{"unknown field"}},
		{body: `{"status":"Failure"}`, status: 400, wants: []string{"failure_reason: is required"}},
		{body: `{"status":"Failure","failure_reason":" \t"}`, status: 400, wants: []string{"failure_reason: is required"}},
		{body: `{"status":"Success","failure_reason":"x"}`, status: 400, wants: []string{"failure_reason: goes with"}},
		{body: `{"failure_reason":"x"}`, status: 400},
		{body: `{"status":"Failure","failure_reason":7}`, status: 400},
		{body: `{"status":"Failure","failure_reason":"` + strings.Repeat("ü", 4096) + `"}`, status: 200},
		{body: `{"status":"Failure","failure_reason":"` + strings.Repeat("ü", 4097) + `"}`, status: 400, wants: []string{"at most 4096 characters"}},
		{body: `{"status":"Failure","failure_reason":"a\u0000"}`, status: 400},
		{body: `{"new_success":-1}`, status: 400, wants: []string{"new_success: must be between 0"}},
		{body: `{"new_failures":1000000000000001}`, status: 400},
		{body: `{"new_success":99999999999999999999}`, status: 400},
		{body: `{"new_success":1.5}`, status: 400, wants: []string{"whole number"}},
		{body: `{"new_success":1e2}`, status: 400},
		{body: `{"new_success":"1"}`, status: 400},
		{body: `{"metadata":[]}`, status: 400, wants: []string{"metadata: must be an object, is array"}},
		{body: `{"metadata":{"x":"` + strings.Repeat("x", 64<<10-8) + `"} }`, status: 200},
		{body: `{"metadata":{"x":"` + strings.Repeat("x", 64<<10-7) + `"} }`, status: 400, wants: []string{"at most 65536 bytes, has 65537"}},
		{body: `{"metadata":{"a":1,"\u0061":2}}`, status: 400, wants: []string{"duplicate"}},
		{body: `{"metadata":{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}}`, status: 400},
		{body: `{"expected_count":-1}`, status: 400},
		{body: `{"priority":1001}`, status: 400, wants: []string{"between -1000 and 1000"}},
		{body: `{"new_success":-1,"new_failures":-1,"priority":"x","x":1}`, status: 400,
			wants: []string{"new_success", "new_failures", "priority", `unknown field \"x\"`}},
	}
	for i := range cases {
		cases[i].method = "PATCH"
		if cases[i].path == "" {
			cases[i].path = b
		}
	}
	runWithRunning(t, cases)
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	b := func(members string) string { return `{"id":"` + idB + `"` + members + `}` }
	many := func(n int) string { return "[" + strings.Repeat(b(`,"new_success":1`)+",", n-1) + b("") + "]" }
	state := `"task":{"id":"` + idB + `","status":"Running"`
	cases := []scenario{
		{body: "[" + b(`,"status":"Success","new_success":10,"new_failures":2,"metadata":{}`) + "]", status: 200,
			wants: []string{`{"results":[{"id":"` + idB + `","status":200,"task":{"id":"` + idB + `","status":"Success","success":10,"failures":2,"last_updated":"2026-01-01T00:00:01.000000Z"}}]}`}},
		{body: " [" + b("") + "] ", status: 200, wants: []string{`"status":200,` + state}},
		{body: `[{"id":"` + strings.ToUpper(idB) + `","priority":null}]`, status: 200, wants: []string{`{"id":"` + idB + `"`}},
		{name: "each in its own place", status: 200, body: `[{"id":"` + unknown + `"},` + b(`,"new_success":1`) + `,{"id":"` + idA + `","status":"Success"},{"id":"` + idA + `","metadata":{}}]`,
			wants: []string{
				`[{"id":"` + unknown + `","status":404,"error":"task ` + unknown + ` not found"},`,
				`,{"id":"` + idB + `","status":200,` + state + `,"success":1,`,
				`,{"id":"` + idA + `","status":409,"error":"task is Pending, it cannot end in Success"},`,
				`,{"id":"` + idA + `","status":400,"error":"Validation failed","details":["metadata: rules[0] needs the fields [\"tenant_id\"]"]}]`,
			}},
		{name: "in order", status: 200, body: "[" + b(`,"new_success":1`) + "," + b(`,"new_success":2,"status":"Success"`) + "," + b(`,"status":"Failure","failure_reason":"x"`) + "," + b(`,"new_success":4`) + "]",
			wants: []string{
				`[{"id":"` + idB + `","status":200,` + state + `,"success":1,`, `,{"id":"` + idB + `","status":200,"task":{"id":"` + idB + `","status":"Success","success":3,`,
				`,{"id":"` + idB + `","status":409,"error":"task is Success`, `"success":7,`,
			}},
		{name: "10 000", body: many(10_000), status: 200, wants: []string{`"success":9999,`}},
		{name: "10 001", body: many(10_001), status: 413, wants: []string{"more than 10000 updates"}},
		{name: "too many bytes", body: "[" + strings.Repeat(" ", 33<<20) + "]", status: 413},
		{body: `[]`, status: 400, wants: []string{"updates: must not be empty"}},
		{body: b(""), status: 400, wants: []string{"updates: must be an array, is object"}},
		{body: `null`, status: 400, wants: []string{"updates: must be an array"}},
		{body: ``, status: 400, wants: []string{"is empty"}},
		{body: `[` + b("") + `,]`, status: 400, wants: []string{"updates[1]"}},
		{body: `[` + b("") + `] []`, status: 400},
		{body: `[` + b("") + `,7]`, status: 400, wants: []string{"updates[1]: must be an object, is number"}},
		{body: `[` + b("") + `,{}]`, status: 400, wants: []string{"updates[1].id: is required"}},
		{body: `[{"id":null}]`, status: 400, wants: []string{"updates[0].id: is required"}},
		{body: `[{"id":7}]`, status: 400, wants: []string{"updates[0].id: must be a string, is number"}},
		{body: `[{"id":"x"}]`, status: 400, wants: []string{`updates[0].id: \"x\" is not a UUID`}},
		{body: `[{"id":"` + nilID + `"}]`, status: 400, wants: []string{"is not a UUID"}},
		{body: `[{"task_id":"` + idB + `"}]`, status: 400, wants: []string{`updates[0]: unknown field \"task_id\"`, "updates[0].id: is required"}},
		{body: `[` + b(`,"id":"`+idA+`"`) + `]`, status: 400, wants: []string{"updates[0]", "duplicate"}},
		{body: `[` + b(`,"Status":"Success"`) + `]`, status: 400, wants: []string{`updates[0]: unknown field \"Status\", did you mean \"status\"?`}},
		{name: "every mistake at once", status: 400, body: "[" + b(`,"new_success":-1`) + "," + b("") + "," + b(`,"status":"Failure"`) + "," + b(`,"status":1,"x":2`) + "]",
			wants: []string{"updates[0].new_success: must be between 0", "updates[2].failure_reason: is required", "updates[3].status: must be a string, is number", `updates[3]: unknown field \"x\"`}},
		{path: "/task/" + idB, body: b(""), status: 400, wants: []string{`unknown field \"id\"`}},
		{path: "/task/" + idB, body: "[" + b("") + "]", status: 400, wants: []string{"must be an object, is array"}},
		{path: "/task/" + nilID, body: b(""), status: 400, wants: []string{"is not a UUID"}},
		{method: "PUT", path: "/task/" + nilID, body: `{"task_id":"` + idB + `","new_success":1}`, status: 400, wants: []string{"is not a UUID"}},
	}
	for i := range cases {
		if cases[i].path == "" {
			cases[i].path = "/task"
		}
		if cases[i].method == "" {
			cases[i].method = "PATCH"
		}
	}
	runWithRunning(t, cases)
}

// One bad element and nothing is handed in; otherwise all is, at once and in order.
func TestUpdatesAreOneCall(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	s.do("PATCH", "/task", `[{"id":"`+idA+`","new_success":1},{"id":"`+idA+`","new_success":-1}]`)
	if len(s.seen) != 0 {
		t.Errorf("handed in: %+v", s.seen)
	}
	calls := 0
	s.settle = func(_ context.Context, outcomes []task.Outcome) ([]store.Result, error) {
		calls++
		return make([]store.Result, len(outcomes)), nil
	}
	s.do("PATCH", "/task", `[{"id":"`+idB+`","new_success":1},{"id":"`+idA+`","new_failures":4},{"id":"`+idB+`"}]`)
	var got []string
	for _, o := range s.seen {
		got = append(got, fmt.Sprint(o.ID, o.Kind, o.NewSuccess, o.NewFailures))
	}
	if want := []string{idB + " 1 1 0", idA + " 1 0 4", idB + " 1 0 0"}; calls != 1 || !slices.Equal(got, want) {
		t.Errorf("%d calls with %q", calls, got)
	}
	// What is no refusal is nobody's to see.
	s.settle = func(context.Context, []task.Outcome) ([]store.Result, error) {
		return []store.Result{{}, {Err: errors.New(secret)}}, nil
	}
	w := s.do("PATCH", "/task", `[{"id":"`+idB+`"},{"id":"`+idA+`"}]`)
	if w.Code != 503 || strings.Contains(w.Body.String(), "hunter2") || !strings.Contains(s.log.String(), "hunter2") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// runWithRunning runs scenarios with idB Running.
func runWithRunning(t *testing.T, cases []scenario) {
	t.Helper()
	run(t, cases, func(o *Options) { o.Creator = running{o.Store.(*fake)} })
}

// running is a fake of whose diamond the second task runs at once.
type running struct{ *fake }

func (r running) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	created, err := r.fake.Create(ctx, b, key)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.tasks[testID(3)].State
	s.Status, s.ClaimedAt, s.StartedAt = task.Running, start, start
	return created, err
}

func TestUpdateOutcome(t *testing.T) {
	t.Parallel()
	o, _, err := parseOutcome([]byte(`{"status":"Failure","failure_reason":" why ","new_success":1,"new_failures":2,
		"metadata":{ "a" : [1, "x y"] },"expected_count":3,"priority":-4}`), testID(9), readUpdate)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %v %v %q %d %d %s %d %d", o.ID == testID(9), o.Kind, o.Status, o.FailureReason, o.NewSuccess,
		o.NewFailures, o.Metadata, *o.ExpectedCount, *o.Priority)
	if want := `true 1 Failure " why " 1 2 {"a":[1,"x y"]} 3 -4`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	o, _, err = parseOutcome([]byte(`{"metadata":null,"failure_reason":" "}`), testID(9), readUpdate)
	if err != nil || o.Metadata != nil || o.ExpectedCount != nil || o.Priority != nil || o.FailureReason != "" {
		t.Errorf("%+v %v", o, err)
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	runWithRunning(t, []scenario{
		{method: "DELETE", path: "/task/" + idB, status: 200, wants: []string{`"status":"Canceled"`}},
		{method: "DELETE", path: "/task/" + unknown, status: 404},
		{method: "DELETE", path: "/task/x", status: 400},
		{method: "PATCH", path: "/task/pause/" + idA, status: 200, wants: []string{`"status":"Paused"`}},
		{method: "PATCH", path: "/task/pause/" + idA, body: "junk", headers: []string{"Content-Type: text/plain"}, status: 200},
		{method: "PATCH", path: "/task/pause/" + unknown, status: 404},
		{method: "PATCH", path: "/task/pause/x", status: 400},
		{method: "PATCH", path: "/task/resume/" + idA, status: 409, wants: []string{"cannot be resumed"}},
		{method: "PATCH", path: "/task/resume/x", status: 400},
		{method: "PATCH", path: "/task/start/" + idA, status: 404},
	})
	s := withDiamond(t)
	for _, step := range []struct {
		method, path, want string
		code               int
	}{
		{"PATCH", "/task/pause/" + idB, "Paused", 200},
		{"PATCH", "/task/pause/" + idB, "cannot be paused", 409},
		{"PATCH", "/task/resume/" + idB, "Waiting", 200},
		{"DELETE", "/task/" + idB, "Canceled", 200},
		{"DELETE", "/task/" + idB, "cannot be canceled", 409},
	} {
		if w := s.do(step.method, step.path, ""); w.Code != step.code || !strings.Contains(w.Body.String(), step.want) {
			t.Errorf("%v: %d %s", step, w.Code, w.Body)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	element := `{"task_id":"` + idA + `","new_success":1,"new_failures":0}`
	many := func(n int) string { return "[" + strings.Repeat(element+",", n-1) + element + "]" }
	cases := []scenario{
		{body: element, status: 202, wants: []string{`{"applied":1,"unknown":[]}`}},
		{body: `{"task_id":"` + idA + `","new_failures":1,"status":"Bogus","metadata":7,"failure_reason":[],"expected_count":-1,"priority":{}}`, status: 202},
		{body: `[` + element + `]`, status: 202, wants: []string{`{"applied":1,"unknown":[]}`}},
		{body: ` [` + element + `,` + element + `,` + strings.ReplaceAll(element, idA, unknown) + `,` + strings.ReplaceAll(element, idA, unknown) + `]`,
			status: 202, wants: []string{`{"applied":2,"unknown":["` + unknown + `"]}`}},
		{name: "10 000", body: many(10_000), status: 202, wants: []string{`"applied":10000`}},
		{name: "10 001", body: many(10_001), status: 413},
		{body: strings.ReplaceAll(element, idA, unknown), status: 404, wants: []string{unknown}},
		{body: `[]`, status: 400, wants: []string{"updates: must not be empty"}},
		{body: `[` + element + `,{"task_id":"` + idA + `"}]`, status: 400, wants: []string{"updates[1]: new_success and new_failures must not both be 0"}},
		{body: `[` + element + `,{"task_id":"x","new_success":-1}]`, status: 400, wants: []string{"updates[1].task_id", "updates[1].new_success"}},
		{body: `[` + element + `,{"new_success":1}]`, status: 400, wants: []string{"updates[1].task_id: is required"}},
		{body: `[` + element + `,1]`, status: 400, wants: []string{"updates[1]: must be an object"}},
		{body: `[` + element + `,]`, status: 400, wants: []string{"updates[1]"}},
		{body: `{"new_success":1}`, status: 400, wants: []string{"task_id: is required"}},
		{body: `{"task_id":null,"new_success":1}`, status: 400},
		{body: `{"task_id":7,"new_success":1}`, status: 400},
		{body: `{"task_id":"` + idA + `","new_success":0,"new_failures":0}`, status: 400, wants: []string{"must not both be 0"}},
		{body: `{"task_id":"` + idA + `","new_success":-1,"new_failures":2}`, status: 400, wants: []string{"between 0"}},
		{body: `{"task_id":"` + idA + `","new_succes":1}`, status: 400, wants: []string{`did you mean \"new_success\"?`}},
		{body: `{"task_id":"` + idA + `","task_id":"` + idB + `","new_success":1}`, status: 400, wants: []string{"duplicate"}},
		{body: `{"task_id":"` + idA + `","":1,"new_success":1}`, status: 400, wants: []string{"unknown field"}},
		{body: `7`, status: 400}, {body: ``, status: 400}, {body: `null`, status: 400},
		{path: "/task/" + idA, body: `{"new_success":5}`, status: 202, wants: []string{`{"applied":1,"unknown":[]}`}},
		{path: "/task/" + idA, body: `{"new_success":5,"task_id":"` + strings.ToUpper(idA) + `"}`, status: 202},
		{path: "/task/" + idA, body: `{"new_success":5,"task_id":"` + idB + `"}`, status: 400, wants: []string{"task_id: differs from the path"}},
		{path: "/task/" + idA, body: `{"new_success":5,"task_id":"x"}`, status: 400},
		{path: "/task/" + idA, body: `[` + element + `]`, status: 400, wants: []string{"must be an object"}},
		{path: "/task/" + idA, body: `{}`, status: 400},
		{path: "/task/" + unknown, body: `{"new_success":5}`, status: 404},
		{path: "/task/x", body: `{"new_success":5}`, status: 400},
	}
	for i := range cases {
		cases[i].method = "PUT"
		if cases[i].path == "" {
			cases[i].path = "/task"
		}
	}
	run(t, cases)
}

// One bad element and nothing is handed in.
func TestCountIsCheckedWhole(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	s.do("PUT", "/task", `[{"task_id":"`+idA+`","new_success":1},{"task_id":"`+idA+`","new_success":-1}]`)
	if len(s.seen) != 0 {
		t.Errorf("handed in: %+v", s.seen)
	}
	s.do("PUT", "/task", `[{"task_id":"`+idA+`","new_success":1},{"task_id":"`+idA+`","new_failures":4,"status":"Success"}]`)
	if got := s.tasks[testID(2)].State; got.Success != 1 || got.Failures != 4 || got.Status != task.Pending {
		t.Errorf("%+v", got)
	}
}

func TestFrontDoor(t *testing.T) {
	t.Parallel()
	one := `[]`
	typed := func(contentType string, status int) scenario {
		return scenario{name: contentType, method: "POST", path: "/task", body: one, status: status,
			headers: []string{"Content-Type: " + contentType}}
	}
	run(t, []scenario{
		typed("application/json", 204), typed("application/json; charset=UTF-8", 204), typed("Application/JSON", 204),
		typed("application/vnd.x+json", 204), typed("text/json", 204), typed("application/x-www-form-urlencoded", 204),
		typed("text/plain", 415), typed("application/xml", 415), typed("multipart/form-data; boundary=x", 415),
		typed("application/json; charset=utf-16", 415), typed("application/json; charset", 415), typed("json", 415),
		typed("application/jsonp", 415),
		{name: "gzip", method: "POST", path: "/task", body: one, status: 415, headers: []string{"Content-Encoding: gzip"},
			wantHeaders: []string{"Accept-Encoding: identity"}},
		{name: "identity", method: "POST", path: "/task", body: one, status: 204, headers: []string{"Content-Encoding: identity"}},
		{name: "PATCH text", method: "PATCH", path: "/task/" + idA, body: `{}`, status: 415, headers: []string{"Content-Type: text/html"}},
		{name: "PUT gzip", method: "PUT", path: "/task", body: `{}`, status: 415, headers: []string{"Content-Encoding: br"}},

		{name: "cross-site", method: "POST", path: "/task", body: one, status: 403, headers: []string{"Sec-Fetch-Site: cross-site"}},
		{name: "same-site", method: "DELETE", path: "/task/" + idA, status: 403, headers: []string{"Sec-Fetch-Site: same-site"}},
		{name: "same-origin", method: "DELETE", path: "/task/" + idA, status: 200, headers: []string{"Sec-Fetch-Site: same-origin"}},
		{name: "foreign origin", method: "PUT", path: "/task", body: `{}`, status: 403, headers: []string{"Origin: https://evil.example"}},
		{name: "own origin", method: "POST", path: "/task", body: one, status: 204, headers: []string{"Origin: http://example.com"}},
		{name: "reading across", method: "GET", path: "/task", status: 200, headers: []string{"Sec-Fetch-Site: cross-site"},
			wantHeaders: []string{"Access-Control-Allow-Origin: "}},

		{method: "DELETE", path: "/task", status: 405, wantHeaders: []string{"Allow: GET, HEAD, PATCH, POST, PUT"}, wants: []string{"GET, HEAD, PATCH, POST, PUT"}},
		{method: "POST", path: "/task/" + idA, status: 405, wantHeaders: []string{"Allow: DELETE, GET, HEAD, PATCH, PUT"}},
		{method: "OPTIONS", path: "/task", status: 405},
		{method: "GET", path: "/task/pause/" + idA, status: 405, wantHeaders: []string{"Allow: PATCH"}},
		{method: "BREW", path: "/health", status: 405},
		{method: "GET", path: "/", status: 404, wants: []string{"nothing at this path"}, wantHeaders: []string{"Content-Type: application/problem+json"}},
		{method: "GET", path: "/tasks", status: 404},
		{method: "GET", path: "/task/", status: 404},
		{method: "GET", path: "/task/a/b/c", status: 404},
		{method: "GET", path: "/TASK", status: 404},
		{method: "PATCH", path: "//task/" + idA, status: 307, wantHeaders: []string{"Location: /task/" + idA}},
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := newService(t)
	if w := s.do("GET", "/health", ""); w.Code != 200 || decode[api.Health](t, w) != (api.Health{Status: "ok", Database: "healthy", PoolSize: 10, PoolIdle: 5}) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.do("GET", "/ready", ""); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"status":"ready"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s.err = fmt.Errorf("dial tcp 10.0.0.1: password=hunter2")
	if w := s.do("GET", "/health", ""); w.Code != 503 || decode[api.Health](t, w) != (api.Health{Status: "degraded", Database: "unhealthy"}) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.do("GET", "/ready", ""); w.Code != 503 || decode[api.Ready](t, w) != (api.Ready{Status: "not_ready", Reason: "the database does not answer"}) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s = newService(t, func(o *Options) { o.Ready = func() error { return fmt.Errorf("shutting down") } })
	if w := s.do("GET", "/ready", ""); w.Code != 503 || decode[api.Ready](t, w) != (api.Ready{Status: "not_ready", Reason: "shutting down"}) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
