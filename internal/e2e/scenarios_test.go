package e2e

import (
	"fmt"
	"strings"
)

// scenarios cover every endpoint in every dialect.
func scenarios() []scenario {
	all := []scenario{
		{"original dialect, from POST to the end", []exchange{
			{"POST /task\nX-Requester: nightly", `[{"id":"b","name":"B","kind":"<kind>","timeout":9,"metadata":{"tenant":7},"on_start":<hook /b Start>,"dependencies":[{"id":"a","requires_success":true}],
				"on_success":[<hook /done End Success>],"on_failure":[<hook /failed End Failure>],"rules":[{"Concurency":{"matcher":{"kind":"<kind>","status":"Running","fields":["tenant"]},"max_concurency":5}}]},{<task a>}]`,
				201, `[{"id":"~","local_id":"b","batch_id":"~","status":"Waiting","timeout":9,"priority":0,"metadata":{"tenant":7},"success":0,"failures":0,"expected_count":null,"failure_reason":null,
				"rules":[{"Concurency":{"matcher":{"kind":"<kind>","status":"Running","fields":["tenant"]},"max_concurency":5}}],"created_at":"~","claimed_at":null,"started_at":null,"ended_at":null,"last_updated":"~",
				"actions":[{"kind":"Webhook","trigger":"Start","params":{"url":"~/b","verb":"Post"},"failures":0,"last_status":null,"last_error":null},{"trigger":"End","condition":"Success"},{"trigger":"End","condition":"Failure"}],
				"dependencies":[{"id":"~","requires_success":true,"status":"~"}]},{"local_id":"a","timeout":60,"rules":[],"dependencies":[]}]`},
			{"CALL /a", "", 0, `{"calls":1,"method":"POST","task":"<a>","trigger":"start","key":"<a>:start","handle":"~/task/<a>"}`},
			{"GET /task/<a>", "", 200, `{"id":"<a>","status":"Running","claimed_at":"~","started_at":"~","ended_at":null}`},
			{"PUT /task", `{"task_id":"<a>","new_success":5,"new_failures":0}`, 202, `{"applied":1,"unknown":[]}`},
			{"PATCH /task/<a>", `{"status":"Success","new_success":10,"new_failures":2,"metadata":{"updated":true}}`, 200, `{"id":"<a>","status":"Success","success":15,"failures":2}`},
			{"CALL /b", "", 0, `{"calls":1,"trigger":"start","key":"<b>:start"}`},
			{"GET /task/<b>", "", 200, `{"status":"Running","dependencies":[{"id":"<a>","requires_success":true,"status":"Success"}]}`},
			{"PATCH /task/<b>", `{"status":"Success"}`, 200, `{"status":"Success"}`},
			{"CALL /done", "", 0, `{"calls":1,"task":"<b>","trigger":"end","key":"<b>:end:success","handle":"~/task/<b>"}`},
			{"GET /batch/<batch>", "", 200, `{"requester":"nightly","total_tasks":2,"total_success":15,"total_failures":2,"total_expected":null,"status_counts":{"success":2,"failure":0,"claimed":0}}`},
			{"CALL /failed", "", 0, `{"calls":0}`},
			{"PATCH /task/<b>", `{"status":"Success"}`, 200, ""},
			{"PATCH /task/<b>", `{"status":"Failure","failure_reason":"x"}`, 409, `{"status":409,"error":"~"}`},
		}},
		{"later dialect, from POST to the end", []exchange{
			{"POST /task?requester=nightly", `[{<task a>,"priority":7,"expected_count":20,"dead_end_barrier":true,"on_success":[<hook /done>],"on_failure":[<hook /failed>],
				"rules":[{"type":"Concurency","matcher":{"kind":"<kind>","status":"Running","fields":[]},"max_concurency":5}]},{<task b>,"expected_count":1,"dependencies":[{"id":"a"}],"on_failure":[<hook /cascade>]}]`,
				201, `[{"priority":7,"expected_count":20,"dead_end_barrier":true,"rules":[{"type":"Concurency","matcher":{"kind":"<kind>","status":"Running","fields":[]},"max_concurency":5}],
				"actions":[{"trigger":"Start"},{"trigger":"End","condition":"Success"},{"trigger":"End","condition":"Failure"}]},{"dependencies":[{"requires_success":true}]}]`},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
			{"PUT /task/<a>", `{"new_success":3,"new_failures":1}`, 202, `{"applied":1,"unknown":[]}`},
			{"PATCH /task/<a>", `{"status":"Failure"}`, 400, `{"details":["~failure_reason"]}`},
			{"PATCH /task/<a>", `{"status":"Failure","failure_reason":"broken"}`, 200, `{"status":"Failure","failure_reason":"broken","success":3,"failures":1}`},
			{"CALL /failed", "", 0, `{"calls":1,"trigger":"end","key":"<a>:end:failure"}`},
			{"CALL /cascade", "", 0, `{"calls":1,"key":"<b>:end:failure"}`},
			{"GET /task/<b>", "", 200, `{"status":"Failure","failure_reason":"Required parent task <a> failed"}`},
			{"GET /batch/<batch>", "", 200, `{"requester":"nightly","total_expected":21}`},
			{"CALL /b", "", 0, `{"calls":0}`},
			{"CALL /done", "", 0, `{"calls":0}`},
		}},
		{"answers to POST", []exchange{
			{"POST /task\nPrefer: return=minimal", `[{<task a>}]`, 201, `[{"id":"~","local_id":"a"}]`},
			{"GET /task/<a>", "", 200, `{"batch_id":"<batch>"}`},
			{"POST /task", `[]`, 204, "X-Batch-Id: <batch>"}, // of the answer itself
			{"POST /task?dry_run=true", `[{<task new>},{<task then>,"dependencies":[{"id":"new"}]}]`, 200, `{"tasks":2,"links":1,"waves":[["new"],["then"]]}`},
			{"POST /task", `[{<task x>,"timeout":0,"priority":2000},{<task x>,"metdata":"x"}]`, 400,
				`{"type":"about:blank","title":"Validation failed","error":"Validation failed","batch_id":"~","details":["~tasks[0].timeout","~tasks[0].priority","~did you mean","~tasks[1].id: duplicate"]}`},
			{"POST /task\nContent-Type: text/plain", `[]`, 415, `{"status":415}`},
			{"DELETE /task", "", 405, "Allow: GET, HEAD, PATCH, POST, PUT"},
			{"GET /task?batch_id=<batch>", "", 200, `[]`},
		}},
		{"Idempotency-Key", []exchange{
			{"POST /task\nIdempotency-Key: <kind>", `[{<task a>}]`, 201, `[{"local_id":"a"}]`},
			{"CALL /a", "", 0, `{"calls":1}`},
			{"POST /task\nIdempotency-Key: <kind>", `[{<task a>}]`, 200, `[{"id":"<a>","batch_id":"<batch>"}]`},
			{"POST /task\nIdempotency-Key: <kind>", `[{<task b>}]`, 422, `{"error":"~Idempotency-Key"}`},
			{"GET /task?kind=<kind>", "", 200, `[{"id":"<a>"}]`},
			{"CALL /a", "", 0, `{"calls":1}`},
		}},
		{"a batch as a whole", []exchange{
			{"POST /task", `{"tasks":[{<task a>}],"scope":"<kind>","metadata":{"run":17},"on_batch_complete":[{"kind":"Webhook","params":{"url":"http://127.0.0.1:1/","verb":"Post"}},<hook /complete>]}`, 201, `[{"local_id":"a"}]`},
			{"GET /batches?scope=<kind>&metadata=%7B%22run%22%3A17%7D", "", 200, `[{"batch_id":"<batch>","total_tasks":1}]`},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
			{"PATCH /task/<a>", `{"status":"Success"}`, 200, ""},
			{"CALL /complete", "", 0, `{"calls":1,"trigger":"batch","key":"batch:<batch>:complete:1","handle":"","body":{"batch_id":"<batch>","counts":{"success":1,"failure":0,"canceled":0},"completed_at":"~"}}`},
		}},
		{"deliveries", []exchange{
			{"POST /task", `[{<task a>,"on_success":[<hook /gone>,<hook /done>]}]`, 201, `[{"actions":[{"trigger":"Start","id":null,"next_attempt_at":null},{"trigger":"End","id":null,"state":null},{"trigger":"End"}]}]`},
			{"GET /task/<a>", "", 200, `{"status":"Running","actions":[{"state":"done"},{},{}]}`},
			{"PATCH /task/<a>", `{"status":"Success"}`, 200, ""},
			{"GET /task/<a>", "", 200, `{"actions":[{},{"id":"~","state":"dead","failures":1,"last_status":410,"last_error":"~410","next_attempt_at":null},{"state":"done","failures":0}]}`},
			{"GET /deliveries?task_id=<a>&state=dead", "", 200, `[{"id":"~","task_id":"<a>","batch_id":"<batch>","trigger":"End","condition":"Success","place":0,"idempotency_key":"<a>:end:success","host":"~","state":"dead","failures":1,"last_status":410,"created_at":"~","next_attempt_at":null}]`},
			{"GET /deliveries/<delivery>", "", 200, `{"id":"<delivery>","params":{"url":"~/gone","verb":"Post"},"attempts":[{"at":"~","duration_ms":"~","status":410,"error":"~410","answer":"out of order"}]}`},
			{"POST /deliveries/<delivery>/retry", "", 200, `{"id":"<delivery>","failures":1}`},
			{"CALL /gone", "", 0, `{"calls":2,"key":"<a>:end:success"}`},
			{"GET /webhook-deliveries?status=dead&batch_id=<batch>", "", 200, `[{"id":"<delivery>","failures":2}]`},
			{"POST /deliveries/retry", `{"task_id":"<a>"}`, 200, `{"retried":1}`},
			{"CALL /gone", "", 0, `{"calls":3,"key":"<a>:end:success"}`},
			{"GET /deliveries/<delivery>", "", 200, `{"state":"dead","failures":3,"attempts":[{},{},{}]}`},
			{"POST /deliveries/retry", `{}`, 400, `{"details":["~needs either some of host"]}`},
			{"GET /deliveries?task_id=<a>&per_page=1", "", 200, `[{"state":"done","place":1,"idempotency_key":"<a>:end:success:1"}]`},
			{"GET <next>", "", 200, `[{"state":"dead","place":0}]`},
			{"GET /deliveries?state=Dead", "", 400, `{"details":["~unknown state"]}`},
		}},
		{"arrays of reports", []exchange{
			{"POST /task", `[{<task a>},{<task b>}]`, 201, ""},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
			{"PUT /task", `[{"task_id":"<a>","new_success":1},{"task_id":"<b>","new_failures":2,"status":"Success"},{"task_id":"<batch>","new_success":1}]`, 202, `{"applied":2,"unknown":["<batch>"]}`},
			{"PUT /task", `[{"task_id":"<a>","new_success":1},{"task_id":"<b>"}]`, 400, `{"details":["~updates[1]"]}`},
			{"PUT /task", `{"task_id":"<batch>","new_success":1}`, 404, `{"error":"~<batch>"}`},
			{"PUT /task/<a>", `{"task_id":"<b>","new_success":1}`, 400, `{"details":["~task_id: differs from the path"]}`},
			{"PATCH /task", `[{"id":"<a>","status":"Success"},{"id":"<batch>","new_success":1}]`, 200, `{"results":[{"id":"<a>","status":200,"task":{"status":"Success","success":1}},{"status":404,"error":"~not found"}]}`},
			{"GET /task/<b>", "", 200, `{"success":0,"failures":2}`},
		}},
		{"cancel", []exchange{
			{"POST /task", `[{<task a>},{<task cancelable>,"on_failure":[<hook /failed>]},{<task b>,"dependencies":[{"id":"a"}]}]`, 201, ""},
			{"GET /task/<cancelable>", "", 200, `{"status":"Running","actions":[{"trigger":"Start"},{"trigger":"End"},{"trigger":"Cancel","params":{"url":"~/cancel","verb":"Delete"}}]}`},
			{"DELETE /task/<cancelable>", "", 200, `{"id":"<cancelable>","status":"Canceled"}`},
			{"CALL /cancel", "", 0, `{"calls":1,"method":"DELETE","trigger":"cancel","key":"<cancelable>:cancel","handle":"~/task/<cancelable>"}`},
			{"DELETE /task/<cancelable>", "", 409, `{"status":409}`},
			{"DELETE /task/<b>", "", 200, `{"status":"Canceled"}`},
			{"GET /task/<a>", "", 200, `{"status":"~"}`},
			{"CALL /failed", "", 0, `{"calls":0}`},
		}},
		{"pause and resume, by either request", []exchange{
			{"POST /task", `[{<task a>},{<task b>,"dependencies":[{"id":"a"}]}]`, 201, ""},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
			{"PATCH /task/pause/<a>", "", 200, `{"status":"Paused"}`},
			{"PATCH /task/pause/<a>", "", 409, ""},
			{"PATCH /task/resume/<a>", "", 200, `{"status":"Running"}`},
			{"PATCH /task/resume/<a>", "", 409, ""},
			{"PATCH /task/pause/<b>", "", 200, `{"status":"Paused"}`},
			{"PATCH /task/<b>", `{"status":"Pending"}`, 200, `{"status":"Waiting"}`},
			{"PATCH /task/<b>", `{"status":"Pending"}`, 409, ""},
			{"GET /task/<a>/history", "", 200, `[{"from":null,"to":"Pending","cause":"created"},{"to":"Claimed"},{"to":"Running","cause":"on_start accepted"},{"to":"Paused","cause":"paused"},{"to":"Running","cause":"resumed"}]`},
			{"GET /task/<b>/explain", "", 200, `{"id":"<b>","status":"Waiting","sentence":"~It waits for its parent","to_start":["~<a>"],"unmet":{"count":1,"tasks":[{"id":"<a>"}]},"rules":[]}`},
		}},
		{"a PATCH without status", []exchange{
			{"POST /task", `[{<task a>,"metadata":{"old":1}}]`, 201, ""},
			{"PATCH /task/<a>", `{"new_success":1,"metadata":{"new":[1]},"expected_count":9,"priority":-7}`, 200, `{"success":1}`},
			{"GET /task/<a>", "", 200, `{"metadata":{"new":[1]},"expected_count":9,"priority":-7}`},
			{"PATCH /task/<a>", `{"new_success":-1}`, 400, `{"details":["~new_success"]}`},
			{"PATCH /task/<a>", `{"failure_reason":"x"}`, 400, `{"details":["~failure_reason"]}`},
			{"PATCH /task/<a>", `{"prioritty":1}`, 400, `{"details":["~did you mean"]}`},
		}},
		{"lists of tasks", []exchange{
			{"POST /task", `[{<task a>,"metadata":{"x":{"y":1}}},{<task b>,"timeout":77},{<task c>,"dependencies":[{"id":"a"}]}]`, 201, ""},
			{"GET /task/<b>", "", 200, `{"status":"Running"}`},
			{"GET /task?page=0&per_page=2&kind=<kind>", "", 200, `[{"id":"<c>","local_id":"c","status":"Waiting"},{"id":"<b>"}]`},
			{"GET <next>", "", 200, `[{"id":"<a>"}]`}, // a cursor
			{"GET /task?page=1&page_size=2&kind=<kind>", "", 200, `[{"id":"<a>"}]`},
			{"GET /task?per_page=0&batch_id=<batch>", "", 200, `[{"id":"<c>"}]`},
			{"GET /task?status=Waiting,Paused&batch_id=<batch>", "", 200, `[{"id":"<c>"}]`},
			{"GET /task?name=sk+b&kind=<kind>", "", 200, `[{"id":"<b>"}]`},
			{"GET /task?timeout=77&kind=<kind>", "", 200, `[{"id":"<b>"}]`},
			{"GET /task?metadata=%7B%22x%22%3A%7B%22y%22%3A1%7D%7D&kind=<kind>", "", 200, `[{"id":"<a>"}]`},
			{"GET /task?kind=<kind>*&cursor=<c>&unknown=1", "", 200, `[{"id":"<b>"},{"id":"<a>"}]`},
			{"GET /task?ids=<c>,<a>", "", 200, `[{"id":"<c>"},{"id":"<a>"}]`},
			{"PUT /task/<a>", `{"new_success":1}`, 202, ""},
			{"GET /task?sort=updated&batch_id=<batch>&per_page=1", "", 200, `[{"id":"<a>"}]`},
			{"GET /task?status=Done&batch_id=7", "", 400, `{"details":["~batch_id","~status"]}`},
			{"GET /task/<a>", "", 200, "Content-Type: application/json"},
		}},
		{"duplicates", []exchange{
			{"POST /task", `[{<task a>,"metadata":{"tenant":7}}]`, 201, ""},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
			{"POST /task", `[{<task dup>,"metadata":{"tenant":7},"dedupe_strategy":[{"kind":"<kind>","status":"Running","fields":["tenant"]}]},{<task b>,"dependencies":[{"id":"dup"}]}]`,
				201, `[{"local_id":"b","status":"Waiting","dependencies":[{"id":"<a>"}]}]`},
			{"POST /task", `[{<task dup>,"metadata":{"tenant":7},"dedupe_strategy":[{"kind":"<kind>","status":"Running","fields":["tenant"]}]}]`, 204, "X-Batch-Id: <batch>"},
			{"PATCH /task/<a>", `{"status":"Success"}`, 200, ""},
			{"CALL /b", "", 0, `{"calls":1,"key":"<b>:start"}`},
			{"CALL /dup", "", 0, `{"calls":0}`},
		}},
		{"batches", []exchange{
			{"POST /task", `[{<task a>}]`, 201, ""},
			{"POST /task", `[{<task b>},{<task c 2>,"dependencies":[{"id":"b","requires_success":false}]}]`, 201, ""},
			{"GET /task/<b>", "", 200, `{"status":"Running"}`},
			{"GET /batches?kind=<kind>&page=0&page_size=1", "", 200, `[{"batch_id":"<batch>","total_tasks":2,"first_created_at":"~","latest_updated_at":"~","status_counts":{"waiting":1,"running":1},"kinds":["<kind>","<kind>-2"]}]`},
			{"GET <next>", "", 200, `[{"total_tasks":1}]`},
			{"GET /batches?kind=<kind>&per_page=1&page=1", "", 200, `[{"total_tasks":1}]`},
			{"GET /batches?kind=<kind>*&status=Waiting&name=Task&created_after=1999-01-01T00:00:00Z&created_before=2999-01-01T00:00:00Z", "", 200, `[{"batch_id":"<batch>"}]`},
			{"GET /batches?created_after=soon", "", 400, `{"details":["~created_after"]}`},
			{"GET /dag/<batch>", "", 200, `{"tasks":[{"id":"<b>"},{"id":"<c>"}],"links":[{"parent_id":"<b>","child_id":"<c>","requires_success":false}]}`},
			{"DELETE /batch/<batch>", "", 200, `{"batch_id":"<batch>","canceled_waiting":1,"canceled_pending":0,"canceled_claimed":0,"canceled_running":1,"canceled_paused":0,"already_terminal":0}`},
			{"GET /task/<c>", "", 200, `{"status":"Canceled","failure_reason":"Batch stopped"}`},
			{"DELETE /batch/<batch>", "", 200, `{"canceled_running":0,"already_terminal":2}`},
		}},
		{"dead ends", []exchange{
			{"POST /task", `[{<task a>,"dead_end_barrier":true},{<task b>,"dependencies":[{"id":"a"}]},{<task c>,"dependencies":[{"id":"b"}]}]`, 201, ""},
			{"DELETE /task/<c>", "", 200, ""},
			{"GET /task/<b>", "", 200, `{"status":"Canceled","failure_reason":"Dead end"}`},
			{"GET /task/<a>", "", 200, `{"status":"Running"}`},
		}},
		{"probes", []exchange{
			{"GET /health", "", 200, `{"status":"ok","database":"healthy","pool_size":"~","pool_idle":"~"}`},
			{"GET /ready", "", 200, `{"status":"ready"}`},
			{"GET /metrics", "", 200, "\ntasks_created_total "},
			{"GET /nowhere", "", 404, `{"type":"about:blank","status":404}`},
		}},
	}
	for _, rule := range []string{
		`{"Concurency":{"matcher":<matcher>,"max_concurency":1}}`,
		`{"Concurency":{"matcher":<matcher>,"max_concurrency":1}}`,
		`{"Concurrency":{"matcher":<matcher>,"max_concurrency":1}}`,
		`{"type":"Concurency","matcher":<matcher>,"max_concurency":1}`,
		`{"type":"Concurrency","matcher":<matcher>,"max_concurrency":1}`,
		`{"Capacity":{"matcher":<matcher>,"max_capacity":5}}`,
		`{"type":"Capacity","matcher":<matcher>,"max_capacity":5}`,
	} {
		all = append(all, ruleScenario(rule))
	}
	return all
}

// ruleScenario has two tasks under a rule that lets one of them run; then it is replaced, and taken away.
func ruleScenario(rule string) scenario {
	at := func(field string) string {
		return strings.ReplaceAll(rule, "<matcher>", `{"kind":"<kind>","status":"Running","fields":[`+field+`]}`)
	}
	with := `"metadata":{"tenant":7},"expected_count":5,"rules":[` + at("") + `]`
	edit := func(rules string) string { return `{"kind":"<kind>","rules":[` + rules + `]}` }
	return scenario{"rule " + rule, []exchange{
		{"POST /task", fmt.Sprintf(`[{<task a>,%s},{<task b>,%s},{<task c>,%s}]`, with, with, with), 201,
			fmt.Sprintf(`[{"rules":[%s]},{"rules":[%s]},{"rules":[%s]}]`, at(""), at(""), at(""))},
		{"GET /task/<a>", "", 200, `{"status":"Running"}`},
		{"GET /task/<b>/explain", "", 200, `{"sentence":"~rule holds it back","rules":[{"rule":` + at("") + `,"holds_back":true,"place":{"number":1}}]}`},
		{"GET /limits?kind=<kind>", "", 200, `[{"id":"~","kind":"<kind>","status":"Running","fields":[],"values":{},"max":"~","waiting":2}]`},
		{"GET /hosts?page_size=100", "", 200, ""},
		{"GET /hosts?page_size=many", "", 400, `{"status":400}`},
		{"PATCH /task/<a>", `{"status":"Success"}`, 200, ""},
		{"CALL /b", "", 0, `{"calls":1,"key":"<b>:start"}`},
		{"GET /task/<b>", "", 200, `{"status":"Running"}`},
		{"PATCH /batch/<batch>/rules", edit(at(`"nowhere"`)), 400, `{"details":["~<b> has no field","~<c> has no field"]}`},
		{"PATCH /batch/<batch>/rules", edit(at(`"tenant"`)), 200, `{"batch_id":"<batch>","kind":"<kind>","updated_count":2}`},
		{"GET /task/<c>/explain", "", 200, `{"rules":[{"rule":` + at(`"tenant"`) + `,"gate":{"values":{"tenant":7}},"holds_back":true,"place":{"number":1}}]}`},
		{"CALL /c", "", 0, `{"calls":0}`},
		{"PATCH /batch/<batch>/rules", edit(""), 200, `{"updated_count":2}`},
		{"CALL /c", "", 0, `{"calls":1}`},
		{"GET /task/<c>", "", 200, `{"status":"Running","rules":[]}`},
	}}
}
