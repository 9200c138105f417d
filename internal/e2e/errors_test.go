package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"taskrunner/api"
)

// wantDetail checks that an answer is a problem that says so.
func wantDetail(t testing.TB, a answer, fragments ...string) {
	t.Helper()
	p := decode[api.Problem](t, a)
	if got := a.header.Get("Content-Type"); got != api.ProblemType || p.Status != a.status || p.Error == "" || p.Title == "" {
		t.Errorf("not a problem: %s %s", got, a.body)
	}
	all := p.Error + "\n" + strings.Join(p.Details, "\n")
	for _, fragment := range fragments {
		if !strings.Contains(all, fragment) {
			t.Errorf("no %q in\n%s", fragment, all)
		}
	}
}

// without is a task with one member left out.
func without(task obj, name string) obj {
	delete(task, name)
	return task
}

func TestCreateRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		one := func(with obj) []obj { return []obj{r.newTask("a", "/run", with)} }
		rule := func(matcher obj, more obj) []obj {
			inner := obj{"matcher": matcher}
			for name, value := range more {
				inner[name] = value
			}
			return one(obj{"rules": []obj{{"Concurency": inner}}})
		}
		matcher := func(with obj) obj {
			m := obj{"kind": "k", "status": "Running", "fields": []string{}}
			for name, value := range with {
				m[name] = value
			}
			return m
		}
		params := func(with obj) []obj {
			p := obj{"url": r.url, "verb": "Post"}
			for name, value := range with {
				p[name] = value
			}
			return one(obj{"on_start": obj{"kind": "Webhook", "params": p}})
		}
		hook := func(with obj) obj {
			h := r.hook("/")
			for name, value := range with {
				h[name] = value
			}
			return h
		}
		long := strings.Repeat("ä", 256)
		cases := []struct {
			name string
			body any
			want []string
		}{
			{"id left out", []obj{without(r.newTask("a", "/", nil), "id")}, []string{"tasks[0].id: is required"}},
			{"id empty", one(obj{"id": ""}), []string{"tasks[0].id: must not be empty"}},
			{"id blank", one(obj{"id": " \t"}), []string{"tasks[0].id: must not be empty"}},
			{"id a number", one(obj{"id": 7}), []string{"tasks[0].id: must be a string, is number"}},
			{"id twice", append(one(nil), one(nil)...), []string{`tasks[1].id: duplicate "a"`, "tasks[0]"}},
			{"name left out", []obj{without(r.newTask("a", "/", nil), "name")}, []string{"tasks[0].name: is required"}},
			{"name blank", one(obj{"name": " "}), []string{"tasks[0].name: must not be empty"}},
			{"name too long", one(obj{"name": long}), []string{"tasks[0].name: must have at most 255 characters, has 256"}},
			{"kind left out", []obj{without(r.newTask("a", "/", nil), "kind")}, []string{"tasks[0].kind: is required"}},
			{"kind empty", one(obj{"kind": ""}), []string{"tasks[0].kind: must not be empty"}},
			{"kind too long", one(obj{"kind": long[:202]}), []string{"tasks[0].kind: must have at most 100 characters, has 101"}},
			{"timeout 0", one(obj{"timeout": 0}), []string{"tasks[0].timeout: must be between 1 and 86400, is 0"}},
			{"timeout too long", one(obj{"timeout": 86401}), []string{"tasks[0].timeout: must be between 1 and 86400, is 86401"}},
			{"timeout a fraction", one(obj{"timeout": 1.5}), []string{"tasks[0].timeout: must be a whole number"}},
			{"timeout a text", one(obj{"timeout": "60"}), []string{"tasks[0].timeout: must be a number, is string"}},
			{"metadata an array", one(obj{"metadata": []int{1}}), []string{"tasks[0].metadata: must be an object, is array"}},
			{"metadata too large", one(obj{"metadata": obj{"a": strings.Repeat("x", 64<<10)}}), []string{"tasks[0].metadata: must have at most 65536 bytes"}},
			{"priority too low", one(obj{"priority": -1001}), []string{"tasks[0].priority: must be between -1000 and 1000"}},
			{"priority too high", one(obj{"priority": 1001}), []string{"tasks[0].priority: must be between -1000 and 1000"}},
			{"expected_count negative", one(obj{"expected_count": -1}), []string{"tasks[0].expected_count: must be between 0 and"}},
			{"unknown member", one(obj{"metdata": obj{}}), []string{`tasks[0]: unknown field "metdata", did you mean "metadata"?`}},
			{"member in other case", one(obj{"Name": "x"}), []string{`tasks[0]: unknown field "Name", did you mean "name"?`}},

			{"on_start left out", []obj{without(r.newTask("a", "/", nil), "on_start")}, []string{"tasks[0].on_start: is required"}},
			{"action of another kind", one(obj{"on_start": hook(obj{"kind": "Mail"})}), []string{`tasks[0].on_start.kind: must be Webhook, is "Mail"`}},
			{"action without params", one(obj{"on_start": obj{"kind": "Webhook"}}), []string{"tasks[0].on_start.params: is required"}},
			{"trigger in the wrong field", one(obj{"on_start": hook(obj{"trigger": "End"})}), []string{`tasks[0].on_start.trigger: must be Start here, is "End"`}},
			{"Start in on_success", one(obj{"on_success": []obj{hook(obj{"trigger": "Start"})}}), []string{`tasks[0].on_success[0].trigger: must be End here, is "Start"`}},
			{"wrong condition", one(obj{"on_failure": []obj{r.hook("/"), hook(obj{"condition": "Success"})}}), []string{`tasks[0].on_failure[1].condition: must be Failure here`}},
			{"on_success no array", one(obj{"on_success": r.hook("/")}), []string{"tasks[0].on_success: must be an array, is object"}},
			{"verb unknown", params(obj{"verb": "POST"}), []string{`tasks[0].on_start.params.verb: must be Get, Post, Put, Patch or Delete, is "POST", did you mean "Post"?`}},
			{"verb left out", params(obj{"verb": nil}), []string{"tasks[0].on_start.params.verb: is required"}},
			{"url left out", params(obj{"url": nil}), []string{"tasks[0].on_start.params.url: is required"}},
			{"url relative", params(obj{"url": "/run"}), []string{"tasks[0].on_start.params.url: must be absolute: http:// or https://"}},
			{"url of another scheme", params(obj{"url": "ftp://example.com/"}), []string{"tasks[0].on_start.params.url: must be absolute"}},
			{"url without host", params(obj{"url": "http:///x"}), []string{"tasks[0].on_start.params.url: must be absolute"}},
			{"url not valid", params(obj{"url": "http://exa%mple/"}), []string{"tasks[0].on_start.params.url: is not a valid URL"}},
			{"url with a password", params(obj{"url": "http://user:secret@example.com/"}), []string{"tasks[0].on_start.params.url: must not have a user name"}},
			{"url private", params(obj{"url": "http://192.168.0.1/"}), []string{"tasks[0].on_start.params.url:", "private", "WEBHOOK_ALLOWED_NETWORKS"}},
			{"our header", params(obj{"headers": obj{"idempotency-key": "x"}}), []string{`tasks[0].on_start.params.headers: "idempotency-key" is set by the service`}},
			{"a header that was not shown", params(obj{"headers": obj{"Authorization": "•••"}}), []string{`tasks[0].on_start.params.headers.Authorization: is "•••"`}},
			{"our headers", params(obj{"headers": obj{"X-Task-Id": "x", "webhook-id": "y", "traceparent": "z"}}), []string{`"X-Task-Id" is set`, `"webhook-id" is set`, `"traceparent" is set`}},
			{"the connection's headers", params(obj{"headers": obj{"Host": "x", "Content-Length": "1", "Connection": "close", "TE": "x"}}), []string{`"Host" belongs to the connection`, `"Content-Length" belongs`, `"Connection" belongs`, `"TE" belongs`}},
			{"header with a line break", params(obj{"headers": obj{"X-A": "b\r\nHost: c"}}), []string{"tasks[0].on_start.params.headers.X-A: must not have line breaks"}},
			{"header name", params(obj{"headers": obj{"a b": "c"}}), []string{`"a b" is not the name of a header`}},
			{"header not a text", params(obj{"headers": obj{"X-A": 1}}), []string{"tasks[0].on_start.params.headers.X-A: must be a string"}},
			{"unknown parameter", params(obj{"uri": "x"}), []string{`tasks[0].on_start.params: unknown field "uri", did you mean "url"?`}},

			{"dependency unknown", one(obj{"dependencies": []obj{dep("ingest-9", true)}}), []string{`tasks[0].dependencies: unknown id "ingest-9"`}},
			{"dependency on itself", one(obj{"dependencies": []obj{dep("a", true)}}), []string{"tasks[0].dependencies", "itself"}},
			{"dependency twice", append(one(obj{"dependencies": []obj{dep("b", true), dep("b", false)}}), r.newTask("b", "/", nil)), []string{`tasks[0].dependencies: duplicate id "b"`}},
			{"dependency without id", one(obj{"dependencies": []obj{{}}}), []string{"tasks[0].dependencies[0].id: is required"}},
			{"dependency with a typo", one(obj{"dependencies": []obj{{"id": "a", "require_success": true}}}), []string{`tasks[0].dependencies[0]: unknown field "require_success", did you mean "requires_success"?`}},
			{"cycle", []obj{r.newTask("x", "/", nil), r.newTask("b", "/", obj{"dependencies": []obj{dep("c", true)}}),
				r.newTask("a", "/", obj{"dependencies": []obj{dep("b", true)}}), r.newTask("c", "/", obj{"dependencies": []obj{dep("x", true), dep("a", false)}})},
				[]string{"tasks[1].dependencies: cycle b → c → a → b"}},

			{"limit 0", rule(matcher(nil), obj{"max_concurency": 0}), []string{"tasks[0].rules[0].Concurency.max_concurency: must be between 1 and"}},
			{"limit negative", rule(matcher(nil), obj{"max_concurrency": -1}), []string{"tasks[0].rules[0].Concurency.max_concurrency: must be between 1 and"}},
			{"limit left out", rule(matcher(nil), nil), []string{"tasks[0].rules[0].Concurency.max_concurency: is required"}},
			{"both spellings", rule(matcher(nil), obj{"max_concurency": 1, "max_concurrency": 1}), []string{"tasks[0].rules[0].Concurency: must have one of max_concurency and max_concurrency"}},
			{"matcher left out", rule(nil, obj{"max_concurency": 1}), []string{"tasks[0].rules[0].Concurency.matcher: is required"}},
			{"matcher kind empty", rule(matcher(obj{"kind": ""}), obj{"max_concurency": 1}), []string{"tasks[0].rules[0].Concurency.matcher.kind: must not be empty"}},
			{"matcher status unknown", rule(matcher(obj{"status": "running"}), obj{"max_concurency": 1}), []string{`tasks[0].rules[0].Concurency.matcher.status: unknown status "running", did you mean "Running"?`}},
			{"matcher field not in the metadata", rule(matcher(obj{"fields": []string{"tenant", "region"}}), obj{"max_concurency": 1}), []string{`tasks[0].rules[0]: the task's metadata has no field "tenant"`, `no field "region"`}},
			{"matcher field twice", rule(matcher(obj{"fields": []string{"x", "x"}}), obj{"max_concurency": 1}), []string{`tasks[0].rules[0].Concurency.matcher.fields[1]: duplicate "x"`}},
			{"rule unknown", one(obj{"rules": []obj{{"Concurrent": obj{}}}}), []string{`tasks[0].rules[0]: unknown field "Concurrent", did you mean "Concurrency"?`}},
			{"tagged rule unknown", one(obj{"rules": []obj{{"type": "Rate", "matcher": matcher(nil), "max_concurency": 1}}}), []string{`tasks[0].rules[0].type: must be Concurency`}},
			{"tagged rule with a typo", one(obj{"rules": []obj{{"type": "Concurency", "matcher": matcher(nil), "max_concurency": 1, "maxx": 2}}}), []string{`tasks[0].rules[0]: unknown field "maxx"`}},

			{"everything at once", []obj{r.newTask("good", "/", nil), r.newTask("a", "/", obj{"timeout": -1, "priority": 5000}), r.newTask("b", "/", obj{"name": "", "dependencies": []obj{dep("z", true)}})},
				[]string{"tasks[1].timeout", "tasks[1].priority", "tasks[2].name", `tasks[2].dependencies: unknown id "z"`}},
			{"not JSON", `[{"id": "a",}]`, []string{"tasks[0]", "not valid JSON"}},
			{"no body", "", []string{"is empty"}},
			{"a text", `"tasks"`, []string{"must be an array of tasks"}},
			{"not an object", `[1]`, []string{"tasks[0]: must be an object, is number"}},
			{"member twice", `[{"id": "a", "id": "b"}]`, []string{"tasks[0]", `duplicate`, `"id"`}},
		}
		for _, c := range cases {
			a := s.do("POST", "/task", c.body)
			if a.status != 400 {
				t.Errorf("%s: %d, want 400: %s", c.name, a.status, a.body)
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				wantDetail(t, a, c.want...)
				if p := decode[api.Problem](t, a); p.Title != "Validation failed" || s.do("GET", "/batch/"+p.BatchID, nil).status != 404 {
					t.Errorf("title %q, batch %q", p.Title, p.BatchID)
				}
			})
		}
		nothingCreated(t, s)
	})
}

func nothingCreated(t *testing.T, s *service) {
	t.Helper()
	if a := s.want(200, "GET", "/task", nil); string(bytes.TrimSpace(a.body)) != "[]" {
		t.Errorf("tasks were created: %s", a.body)
	}
	if n := s.metrics()["tasks_created_total"]; n != 0 {
		t.Errorf("tasks_created_total %v", n)
	}
}

func TestUpdateRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, _ := s.create([]obj{r.newTask("a", "/run", nil)})
		id := tasks["a"].ID
		s.waitStatus(id, "Running")
		before := s.task(id)
		const none = "0198c0de-5a10-7000-8000-00000000ffff"
		many := func(n int, with obj) []obj {
			updates := make([]obj, n)
			for i := range updates {
				updates[i] = obj{"task_id": none, "new_success": 1}
			}
			updates[n-1] = with
			return updates
		}
		tooMany := make([]obj, 10_001)
		for i := range tooMany {
			tooMany[i] = obj{"id": id, "new_success": 1}
		}
		good := obj{"id": id, "status": "Success", "new_success": 1}
		cases := []struct {
			method, path string
			body         any
			status       int
			want         []string
		}{
			{"PATCH", "/task/" + id, obj{"status": "Failure"}, 400, []string{"failure_reason: is required"}},
			{"PATCH", "/task/" + id, obj{"status": "Failure", "failure_reason": " "}, 400, []string{"failure_reason: is required"}},
			{"PATCH", "/task/" + id, obj{"status": "Success", "failure_reason": "x"}, 400, []string{"failure_reason: goes with the status Failure only"}},
			{"PATCH", "/task/" + id, obj{"failure_reason": "x"}, 400, []string{"failure_reason: goes with the status Failure only"}},
			{"PATCH", "/task/" + id, obj{"status": "Running"}, 400, []string{"status: must be Success, Failure or Pending"}},
			{"PATCH", "/task/" + id, obj{"status": "success"}, 400, []string{`did you mean "Success"?`}},
			{"PATCH", "/task/" + id, obj{"status": "Canceled"}, 400, []string{"status: must be"}},
			{"PATCH", "/task/" + id, obj{"new_success": -1}, 400, []string{"new_success: must be between 0"}},
			{"PATCH", "/task/" + id, obj{"new_failures": "1"}, 400, []string{"new_failures: must be a number"}},
			{"PATCH", "/task/" + id, obj{"metadata": []int{}}, 400, []string{"metadata: must be an object"}},
			{"PATCH", "/task/" + id, obj{"metadata": obj{"a": strings.Repeat("x", 64<<10)}}, 400, []string{"metadata: must have at most 65536 bytes"}},
			{"PATCH", "/task/" + id, obj{"expected_count": -1}, 400, []string{"expected_count: must be between 0"}},
			{"PATCH", "/task/" + id, obj{"priority": 1001}, 400, []string{"priority: must be between -1000 and 1000"}},
			{"PATCH", "/task/" + id, obj{"new_sucess": 1, "new_failures": -1}, 400, []string{`unknown field "new_sucess", did you mean "new_success"?`, "new_failures"}},
			{"PATCH", "/task/" + id, `{"status": "Success"`, 400, []string{"not valid JSON"}},
			{"PATCH", "/task/" + id, "", 400, []string{"is empty"}},
			{"PATCH", "/task/" + none, obj{"status": "Success"}, 404, []string{none + " not found"}},
			{"PATCH", "/task/" + id, obj{"id": id}, 400, []string{`unknown field "id"`}},
			{"PATCH", "/task/" + id, []obj{good}, 400, []string{"must be an object, is array"}},
			{"PATCH", "/task", []obj{}, 400, []string{"updates: must not be empty"}},
			{"PATCH", "/task", good, 400, []string{"updates: must be an array, is object"}},
			{"PATCH", "/task", "", 400, []string{"is empty"}},
			{"PATCH", "/task", jsonOf([]obj{good}) + "]", 400, []string{"not valid JSON"}},
			{"PATCH", "/task", []any{good, 7}, 400, []string{"updates[1]: must be an object, is number"}},
			{"PATCH", "/task", []obj{good, {"status": "Success"}}, 400, []string{"updates[1].id: is required"}},
			{"PATCH", "/task", []obj{good, {"id": "x"}}, 400, []string{`updates[1].id: "x" is not a UUID`}},
			{"PATCH", "/task", []obj{good, {"id": "00000000-0000-0000-0000-000000000000"}}, 400, []string{"updates[1].id:", "is not a UUID"}},
			{"PATCH", "/task", []obj{good, good, good, {"id": id, "status": 1}}, 400, []string{"updates[3].status: must be a string, is number"}},
			{"PATCH", "/task", []obj{{"id": id, "statu": "Success"}, good, {"id": id, "status": "Failure"}}, 400, []string{`updates[0]: unknown field "statu", did you mean "status"?`, "updates[2].failure_reason: is required"}},
			{"PATCH", "/task", []obj{good, {"task_id": id}}, 400, []string{`updates[1]: unknown field "task_id"`}},
			{"PATCH", "/task", tooMany, 413, []string{"10000"}},
			{"PATCH", "/task/00000000-0000-0000-0000-000000000000", obj{"status": "Success"}, 400, []string{"is not a UUID"}},
			{"PATCH", "/task/not-an-id", obj{"status": "Success"}, 400, []string{`id: "not-an-id" is not a UUID`}},
			{"GET", "/task/" + none, nil, 404, []string{none + " not found"}},
			{"GET", "/task/" + strings.ReplaceAll(none, "-", ""), nil, 400, []string{"is not a UUID"}},
			{"GET", "/task/%7B" + none + "%7D", nil, 400, []string{"is not a UUID"}},
			{"GET", "/task/%00", nil, 400, []string{"is not a UUID"}},
			{"GET", "/task/%ff", nil, 400, []string{"is not a UUID"}},
			{"DELETE", "/task/" + none, nil, 404, []string{"not found"}},
			{"DELETE", "/task/7", nil, 400, []string{"is not a UUID"}},
			{"PATCH", "/task/pause/" + none, nil, 404, []string{"not found"}},
			{"PATCH", "/task/pause/x", nil, 400, []string{"is not a UUID"}},
			{"PATCH", "/task/resume/" + none, nil, 404, []string{"not found"}},
			{"PATCH", "/task/resume/x", nil, 400, []string{"is not a UUID"}},
			{"PATCH", "/task/resume/" + id, nil, 409, []string{"cannot be resumed"}},
			{"GET", "/batch/" + none, nil, 404, []string{"not found"}},
			{"GET", "/batch/x", nil, 400, []string{"is not a UUID"}},
			{"GET", "/dag/" + none, nil, 404, []string{"not found"}},
			{"GET", "/dag/x", nil, 400, []string{"is not a UUID"}},
			{"PUT", "/task", obj{"task_id": id}, 400, []string{"must not both be 0"}},
			{"PUT", "/task", obj{"task_id": id, "new_success": 0, "new_failures": 0}, 400, []string{"must not both be 0"}},
			{"PUT", "/task", obj{"task_id": id, "new_success": -1, "new_failures": 2}, 400, []string{"new_success: must be between 0"}},
			{"PUT", "/task", obj{"new_success": 1}, 400, []string{"task_id: is required"}},
			{"PUT", "/task", obj{"task_id": "x", "new_success": 1}, 400, []string{`task_id: "x" is not a UUID`}},
			{"PUT", "/task", obj{"task_id": id, "new_success": 1, "sucess": 1}, 400, []string{`unknown field "sucess"`}},
			{"PUT", "/task", obj{"task_id": none, "new_success": 1}, 404, []string{"not found"}},
			{"PUT", "/task", []obj{}, 400, []string{"must not be empty"}},
			{"PUT", "/task", []obj{{"task_id": id, "new_success": 1}, {"task_id": id, "new_failures": -1}}, 400, []string{"updates[1].new_failures: must be between 0"}},
			{"PUT", "/task", []any{obj{"task_id": id, "new_success": 1}, 7}, 400, []string{"updates[1]: must be an object"}},
			{"PUT", "/task", many(10_001, obj{"task_id": id, "new_success": 1}), 413, []string{"10000"}},
			{"PUT", "/task/" + id, obj{"task_id": none, "new_success": 1}, 400, []string{"task_id: differs from the path"}},
			{"PUT", "/task/" + id, []obj{{"new_success": 1}}, 400, []string{"must be an object"}},
			{"PUT", "/task/" + none, obj{"new_success": 1}, 404, []string{"not found"}},
			{"PUT", "/task/x", obj{"new_success": 1}, 400, []string{"is not a UUID"}},
			{"GET", "/task?status=Done", nil, 400, []string{`status: unknown status "Done"`}},
			{"GET", "/task?status=Running,", nil, 400, []string{"status: unknown status"}},
			{"GET", "/task?batch_id=x&page=a", nil, 400, []string{`batch_id: "x" is not a UUID`, "page: must be a whole number"}},
			{"GET", "/task?metadata={", nil, 400, []string{"metadata: not valid JSON"}},
			{"GET", "/task?metadata=[]", nil, 400, []string{"metadata: must be a JSON object"}},
			{"GET", "/task?timeout=0", nil, 400, []string{"timeout: must be whole seconds"}},
			{"GET", "/task?cursor=x", nil, 400, []string{"cursor"}},
			{"GET", "/task?kind=%00", nil, 400, []string{"kind"}},
			{"GET", "/task?name=%ff", nil, 400, []string{"name"}},
			{"GET", "/nothing", nil, 404, []string{"nothing at this path"}},
			{"GET", "/task/" + id + "/more", nil, 404, []string{"nothing at this path"}},
			{"POST", "/task/" + id, obj{}, 405, []string{"this path takes"}},
			{"DELETE", "/task", nil, 405, []string{"this path takes"}},
			{"PUT", "/metrics", obj{}, 405, []string{"this path takes"}},
			{"BREW", "/task", nil, 405, []string{"this path takes"}},
		}
		for _, c := range cases {
			a := s.do(c.method, c.path, c.body)
			name := strings.ReplaceAll(fmt.Sprintf("%s %s %.60s", c.method, c.path, jsonOf(c.body)), id, "ID")
			if a.status != c.status {
				t.Errorf("%s: %d, want %d: %s", name, a.status, c.status, a.body)
				continue
			}
			t.Run(name, func(t *testing.T) { wantDetail(t, a, c.want...) })
		}
		if after := s.task(id); jsonOf(after) != jsonOf(before) {
			t.Errorf("changed\nfrom %s\nto   %s", jsonOf(before), jsonOf(after))
		}
	})
}

// TestHostileInput: whatever comes, the answer is a problem below 500, and the service goes on.
func TestHostileInput(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		task := func(metadata string) string {
			return strings.Replace(jsonOf([]obj{r.newTask("a", "/run", obj{"metadata": "M"})}), `"M"`, metadata, 1)
		}
		many := "[" + strings.Repeat(`{"id":"a"},`, 10_000) + `{"id":"b"}]`
		bodies := []struct {
			name, body string
			status     int
		}{
			{"deep arrays", strings.Repeat("[", 1_000_000), 400},
			{"deep objects", strings.Repeat(`{"a":`, 500_000), 400},
			{"deep metadata", task(`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}"), 400},
			{"member twice, deep inside", task(`{"a":{"b":1,"\u0062":2}}`), 400},
			{"NUL in a text", task(`{"a":"x\u0000y"}`), 400},
			{"NUL in a name", task(`{"\u0000":1}`), 400},
			{"NUL as it is", task("{\"a\":\"\x00\"}"), 400},
			{"half of a pair", task(`{"a":"\ud83d"}`), 400},
			{"the other half", task(`{"a":"\ude00\ud83d"}`), 400},
			{"huge exponent", task(`{"a":1e999999999}`), 400},
			{"tiny exponent", task(`{"a":1e-999999999}`), 400},
			{"long number", task(`{"a":` + strings.Repeat("9", 10_000) + "}"), 400},
			{"huge timeout", strings.Replace(task("{}"), `"id"`, `"timeout":9223372036854775808,"id"`, 1), 400},
			{"not UTF-8", task("{\"a\":\"\xff\"}"), 400},
			{"overlong UTF-8", task("{\"a\":\"\xc0\x80\"}"), 400},
			{"surrogate in UTF-8", task("{\"a\":\"\xed\xa0\x80\"}"), 400},
			{"UTF-16", "\xff\xfe[\x00]\x00", 400},
			{"byte order mark", "\ufeff" + task("{}"), 400},
			{"two values", task("{}") + "[]", 400},
			{"NaN", task(`{"a":NaN}`), 400},
			{"comment", task(`{"a":1/**/}`), 400},
			{"single quotes", task(`{'a':1}`), 400},
			{"10 001 tasks", many, 413},
			{"40 MB", "[" + strings.Repeat(" ", 40_000_000) + "]", 413},
		}
		for _, b := range bodies {
			if a := s.do("POST", "/task", b.body); a.status != b.status {
				t.Errorf("POST of %s: %d, want %d: %.300s", b.name, a.status, b.status, a.body)
			} else {
				wantDetail(t, a)
			}
			for _, path := range []string{"/task", "/task/0198c0de-5a10-7000-8000-00000000ffff"} {
				for _, method := range []string{"PUT", "PATCH"} {
					if a, err := s.try(t.Context(), method, path, b.body); err == nil && (a.status < 400 || a.status >= 500) {
						t.Errorf("%s %s of %s: %d: %.300s", method, path, b.name, a.status, a.body)
					}
				}
			}
		}
		for _, h := range [][]string{
			{"Content-Type", "text/plain"}, {"Content-Type", "multipart/form-data"}, {"Content-Type", "application/xml"},
			{"Content-Type", "application/json; charset=utf-16"}, {"Content-Type", ";;;"}, {"Content-Encoding", "gzip"},
		} {
			wantDetail(t, s.want(415, "POST", "/task", task("{}"), h...))
		}
		wantDetail(t, s.want(400, "POST", "/task", task("{}"), "X-Requester", strings.Repeat("x", 256)), "requester")
		wantDetail(t, s.want(403, "POST", "/task", task("{}"), "Origin", "https://example.com", "Sec-Fetch-Site", "cross-site"))
		rawRequests(t, s)
		nothingCreated(t, s)
		for _, contentType := range []string{"application/json; charset=UTF-8", "application/x-www-form-urlencoded", "application/merge-patch+json"} {
			s.want(201, "POST", "/task", task("{}"), "Content-Type", contentType)
		}
	})
}

// rawRequests sends what an HTTP client would not.
func rawRequests(t *testing.T, s *service) {
	t.Helper()
	for _, request := range []string{
		"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n[",
		"POST /task HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
		"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"GET /task/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET //task HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /task?%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"nonsense\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(request)) // what cannot be written whole was refused before
		_ = conn.(*net.TCPConn).CloseWrite()
		var got bytes.Buffer
		_, _ = got.ReadFrom(conn)
		_ = conn.Close()
		if status, _, _ := strings.Cut(got.String(), "\r\n"); strings.HasPrefix(status, "HTTP/1.1 5") && !strings.HasPrefix(status, "HTTP/1.1 501") {
			t.Errorf("%.80q: %s", request, got.String())
		}
	}
	s.want(http.StatusOK, "GET", "/health", nil)
}

// TestOddMetadata: what is legal comes back as the same value, and can be looked for.
func TestOddMetadata(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		for i, metadata := range []string{
			`{}`, `null`, `{"":""}`, `{"a":null}`, `{"a":[],"b":{}}`, `{"A":1,"a":2}`, `{"a":1.0,"b":1e2,"c":-0,"d":0.1e-7}`,
			`{"n":12345678901234567890123456789.000000000000000000001}`, `{"n":1e400,"m":1e-400}`, `{"n":9007199254740993}`,
			`{"😀":"\ud83d\ude00","é":"e\u0301","\u2028":"\u2029"}`, `{"s":"\"\\\/\b\f\n\r\t\u001f"}`, `{"a.b":{"c[0]":1},"$ne":1,"%":"_"}`,
			`{"<script>":"</script>&amp;","'":"';--"}`, `{"__proto__":{"x":1},"constructor":0}`,
			`{"deep":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `}`, ` { "spaces" : [ 1 , 2 ] } `,
			`{"big":"` + strings.Repeat("ä", 30_000) + `"}`,
		} {
			body := strings.Replace(jsonOf([]obj{r.newTask("a", "/run", obj{"metadata": "M", "kind": fmt.Sprint("k", i)})}), `"M"`, metadata, 1)
			created := decode[[]api.Task](t, s.want(201, "POST", "/task", body))[0]
			if metadata == "null" {
				metadata = "{}" // left out
			}
			if !sameJSON(t, string(created.Metadata), metadata) {
				t.Errorf("created with %.100s, the answer has %.100s", metadata, created.Metadata)
			}
			if got := s.task(created.ID); !sameJSON(t, string(got.Metadata), metadata) {
				t.Errorf("created with %.100s, came back as %.100s", metadata, got.Metadata)
			}
			s.want(200, "PATCH", "/task/"+created.ID, fmt.Sprintf(`{"metadata":{"wrapped":%s}}`, strings.Replace(metadata, strings.Repeat("[", 60)+strings.Repeat("]", 60), "[]", 1)))
			s.want(200, "PATCH", "/task/"+created.ID, fmt.Sprintf(`{"metadata":%s}`, strings.Replace(metadata, strings.Repeat("[", 60)+strings.Repeat("]", 60), "[]", 1)))
			if len(metadata) < 1000 {
				metadata = strings.Replace(metadata, strings.Repeat("[", 60)+strings.Repeat("]", 60), "[]", 1)
				query := "/task?kind=k" + fmt.Sprint(i) + "&metadata=" + escape(metadata)
				if found := decode[[]api.TaskSummary](t, s.want(200, "GET", query, nil)); len(found) != 1 {
					t.Errorf("%d tasks contain %s, want 1", len(found), metadata)
				}
			}
		}
	})
}
