package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodStart = `"on_start":{"kind":"Webhook","params":{"url":"https://h/x","verb":"Post"}}`

// taskWith is a good task with more members.
func taskWith(id string, members ...string) string {
	all := append([]string{fmt.Sprintf(`"id":%q,"name":"N","kind":"k"`, id), goodStart}, members...)
	return "{" + strings.Join(all, ",") + "}"
}

// startWith is a task whose on_start has these params beside a good verb.
func startWith(params string) string {
	return `{"id":"a","name":"N","kind":"k","on_start":{"kind":"Webhook","params":{"verb":"Get",` + params + `}}}`
}

// startMore and endMore have more beside the params of an action.
func startMore(more string) string {
	return `{"id":"a","name":"N","kind":"k","on_start":{"kind":"Webhook","params":{"verb":"Get","url":"http://h"},` + more + `}}`
}

func endMore(more string) string {
	return taskWith("a", `"on_success":[{"kind":"Webhook","params":{"verb":"Get","url":"http://h"},`+more+`}]`)
}

func ruleWith(rule string) string {
	return taskWith("a", `"metadata":{"f":1,"g":null}`, `"rules":[`+rule+`]`)
}

func matcherWith(matcher string) string {
	return ruleWith(`{"type":"Concurency","max_concurency":1,"matcher":{` + matcher + `}}`)
}

func parse(body string) (*Batch, error) {
	return ParseBatch(strings.NewReader(body), ParseParams{MaxTasks: 100, NewID: counterIDs(), CheckURL: func(raw string) error {
		if strings.Contains(raw, "internal") {
			return errors.New("the address is not allowed")
		}
		return nil
	}})
}

var badTasks = []struct {
	name string
	task string // the only one of the array
	want []string
}{
	{"not an object", `7`, []string{`tasks[0]: must be an object, is number`}},
	{"nothing", `{}`, []string{`tasks[0].id: is required`, `tasks[0].name: is required`, `tasks[0].kind: is required`,
		`tasks[0].on_start: is required`}},
	{"blank", `{"id":" ","name":"","kind":"\t",` + goodStart + `}`, []string{`tasks[0].id: must not be empty`,
		`tasks[0].name: must not be empty`, `tasks[0].kind: must not be empty`}},
	{"null", `{"id":null,"name":1,"kind":[],"on_start":null}`, []string{`tasks[0].id: is required`,
		`tasks[0].name: must be a string, is number`, `tasks[0].kind: must be a string, is array`,
		`tasks[0].on_start: is required`}},
	{"too long", `{"id":"` + strings.Repeat("é", 256) + `","name":"` + strings.Repeat("é", 256) + `","kind":"` +
		strings.Repeat("é", 101) + `",` + goodStart + `}`, []string{`tasks[0].id: must have at most 255 characters, has 256`,
		`tasks[0].name: must have at most 255 characters, has 256`, `tasks[0].kind: must have at most 100 characters, has 101`}},
	{"timeout 0", taskWith("a", `"timeout":0`), []string{`tasks[0].timeout: must be between 1 and 86400, is 0`}},
	{"timeout high", taskWith("a", `"timeout":86401`), []string{`tasks[0].timeout: must be between 1 and 86400, is 86401`}},
	{"timeout text", taskWith("a", `"timeout":"60"`), []string{`tasks[0].timeout: must be a number, is string`}},
	{"timeout part", taskWith("a", `"timeout":1.5`), []string{`tasks[0].timeout: must be a whole number, is 1.5`}},
	{"priority", taskWith("a", `"priority":-1001`), []string{`tasks[0].priority: must be between -1000 and 1000, is -1001`}},
	{"expected", taskWith("a", `"expected_count":-1`),
		[]string{`tasks[0].expected_count: must be between 0 and 1000000000000, is -1`}},
	{"barrier", taskWith("a", `"dead_end_barrier":1`), []string{`tasks[0].dead_end_barrier: must be a boolean, is number`}},
	{"dedupe", taskWith("a", `"dedupe_strategy":[{},{"kind":"k","status":"Claimed"},{"kind":"k","status":"Pending","feilds":[]}]`), []string{
		`tasks[0].dedupe_strategy[0].kind: is required`, `tasks[0].dedupe_strategy[0].status: is required`,
		`tasks[0].dedupe_strategy[1].status: must not be Claimed: what is claimed is found as Pending`,
		`tasks[0].dedupe_strategy[2]: unknown field "feilds", did you mean "fields"?`}},
	{"dedupe shapes", dedupeKinds(MaxLookups + 1), []string{`tasks: must have at most 100 different matchers in their dedupe_strategy, have 101`}},
	{"dedupe kind", taskWith("a", `"dedupe_strategy":{}`), []string{`tasks[0].dedupe_strategy: must be an array, is object`}},
	{"dedupe many", taskWith("a", `"dedupe_strategy":[`+strings.Repeat(`{"kind":"k","status":"Pending"},`, MaxDedupe)+`{}]`), []string{
		`tasks[0].dedupe_strategy: must have at most 20 matchers`}},
	{"unknown", taskWith("a", `"tiemout":5`), []string{`tasks[0]: unknown field "tiemout", did you mean "timeout"?`}},
	{"metadata kind", taskWith("a", `"metadata":[]`), []string{`tasks[0].metadata: must be an object, is array`}},
	{"metadata size", taskWith("a", `"metadata":{"a":"`+strings.Repeat("x", MaxMetadata-7)+`"}`),
		[]string{`tasks[0].metadata: must have at most 65536 bytes, has 65537`}},
	{"duplicate member", taskWith("a", `"metadata":{"x":1,"x":2}`),
		[]string{`tasks[0].metadata: duplicate member name "x" at line 1, column 127`}},

	{"itself", taskWith("a", `"dependencies":[{"id":"a"}]`), []string{`tasks[0].dependencies: a task cannot depend on itself, "a"`}},
	{"unknown id", taskWith("a", `"dependencies":[{"id":"ingest-9"}]`), []string{`tasks[0].dependencies: unknown id "ingest-9"`}},
	{"dependency types", taskWith("a", `"dependencies":[1,{"id":1,"requires_success":"x"},{"requires":true}]`), []string{
		`tasks[0].dependencies[0]: must be an object, is number`,
		`tasks[0].dependencies[1].id: must be a string, is number`,
		`tasks[0].dependencies[1].requires_success: must be a boolean, is string`,
		`tasks[0].dependencies[2]: unknown field "requires"`,
		`tasks[0].dependencies[2].id: is required`}},
	{"dependencies type", taskWith("a", `"dependencies":{}`), []string{`tasks[0].dependencies: must be an array, is object`}},

	{"action", `{"id":"a","name":"N","kind":"k","on_start":{"kind":"webhook","parms":1}}`, []string{
		`tasks[0].on_start: unknown field "parms", did you mean "params"?`,
		`tasks[0].on_start.kind: must be Webhook, is "webhook"`, `tasks[0].on_start.params: is required`}},
	{"action empty", `{"id":"a","name":"N","kind":"k","on_start":{"params":{}}}`, []string{
		`tasks[0].on_start.kind: is required`, `tasks[0].on_start.params.url: is required`, `tasks[0].on_start.params.verb: is required`}},
	{"trigger", `{"id":"a","name":"N","kind":"k","on_start":{"kind":"Webhook","trigger":"End","condition":"Success",` +
		`"params":{"url":"http://h","verb":"GET"}}}`, []string{
		`tasks[0].on_start.trigger: must be Start here, is "End"`,
		`tasks[0].on_start.condition: does not belong here`,
		`tasks[0].on_start.params.verb: must be Get, Post, Put, Patch or Delete, is "GET", did you mean "Get"?`}},
	{"ends", taskWith("a", `"on_success":[{"kind":"Webhook","trigger":"Start","params":{"url":"http://h","verb":"Put"}}]`,
		`"on_failure":[null,{"kind":"Webhook","trigger":"End","condition":"Success","params":{"url":"http://h","verb":"Put"}}]`),
		[]string{`tasks[0].on_success[0].trigger: must be End here, is "Start"`,
			`tasks[0].on_failure[0]: must be an object, is null`,
			`tasks[0].on_failure[1].condition: must be Failure here, is "Success"`}},
	{"ends type", taskWith("a", `"on_success":{}`), []string{`tasks[0].on_success: must be an array, is object`}},
	{"many actions", taskWith("a", `"on_failure":[`+strings.Repeat(`{"kind":"Webhook","params":{"url":"http://h","verb":"Put"}},`, 20)+`1]`),
		[]string{`tasks[0].on_failure: must have at most 20 actions`}},

	{"url type", startWith(`"url":1`), []string{`tasks[0].on_start.params.url: must be a string, is number`}},
	{"url empty", startWith(`"url":""`), []string{`tasks[0].on_start.params.url: must not be empty`}},
	{"url scheme", startWith(`"url":"ftp://h/"`), []string{`tasks[0].on_start.params.url: must be absolute: http:// or https://, and a host`}},
	{"url relative", startWith(`"url":"/x"`), []string{`tasks[0].on_start.params.url: must be absolute: http:// or https://, and a host`}},
	{"url host", startWith(`"url":"http://:80/"`), []string{`tasks[0].on_start.params.url: must be absolute: http:// or https://, and a host`}},
	{"url opaque", startWith(`"url":"http:h"`), []string{`tasks[0].on_start.params.url: must be absolute: http:// or https://, and a host`}},
	{"url user", startWith(`"url":"http://u:p@h/"`), []string{
		`tasks[0].on_start.params.url: must not have a user name or password, which would be shown in clear: send a header instead`}},
	{"url control", startWith(`"url":"http://h/\n"`), []string{`tasks[0].on_start.params.url: is not a valid URL`}},
	{"url space", startWith(`"url":"http://h/?a=b c"`), []string{`tasks[0].on_start.params.url: must not have spaces: write %20`}},
	{"url port", startWith(`"url":"http://h:65536/"`), []string{`tasks[0].on_start.params.url: must have a port between 1 and 65535`}},
	{"url length", startWith(`"url":"http://h/` + strings.Repeat("x", 2040) + `"`), []string{
		`tasks[0].on_start.params.url: must have at most 2048 characters, has 2049`}},
	{"url guard", startWith(`"url":"http://internal/"`), []string{`tasks[0].on_start.params.url: the address is not allowed`}},

	{"headers type", startWith(`"url":"http://h","headers":[]`), []string{`tasks[0].on_start.params.headers: must be an object, is array`}},
	{"headers", startWith(`"url":"http://h","headers":{"X-A":1,"":"x","b c":"x","X-B":"a\r\nb","x-c":"1","X-C":"2"}`), []string{
		`tasks[0].on_start.params.headers.X-A: must be a string, is number`,
		`tasks[0].on_start.params.headers: "" is not the name of a header`,
		`tasks[0].on_start.params.headers: "b c" is not the name of a header`,
		`tasks[0].on_start.params.headers.X-B: must not have line breaks or other control characters`,
		`tasks[0].on_start.params.headers: duplicate "X-C", which is the same as "x-c"`}},
	{"header that was not shown", startWith(`"url":"http://h","headers":{"Authorization":"•••","X-A":"••••"}`), []string{
		`tasks[0].on_start.params.headers.Authorization: is "•••", which stands for a value that is not shown: send the value itself`}},
	{"header size", startWith(`"url":"http://h","headers":{"A":"` + strings.Repeat("x", 16384) + `"}`), []string{
		`tasks[0].on_start.params.headers: must have at most 16384 bytes together, have 16385`}},
	{"header count", startWith(`"url":"http://h","headers":{` + manyHeaders(51) + `}`), []string{
		`tasks[0].on_start.params.headers: must have at most 50 headers`}},

	{"action timeout", startMore(`"timeout":0`), []string{`tasks[0].on_start.timeout: must be between 1 and 60, is 0`}},
	{"action timeout high", endMore(`"timeout":61`), []string{`tasks[0].on_success[0].timeout: must be between 1 and 60, is 61`}},
	{"action timeout part", startMore(`"timeout":1.5`), []string{`tasks[0].on_start.timeout: must be a whole number, is 1.5`}},
	{"action timeout text", startMore(`"timeout":"5s"`), []string{`tasks[0].on_start.timeout: must be a number, is string`}},
	{"retry type", startMore(`"retry":3`), []string{`tasks[0].on_start.retry: must be an object, is number`}},
	{"retry unknown", startMore(`"retry":{"max_atempts":1,"delay":1},"retries":{}`), []string{
		`tasks[0].on_start: unknown field "retries"`,
		`tasks[0].on_start.retry: unknown field "max_atempts", did you mean "max_attempts"?`,
		`tasks[0].on_start.retry: unknown field "delay"`}},
	{"retry in params", startWith(`"url":"http://h","retry":{}`), []string{`tasks[0].on_start.params: unknown field "retry"`}},
	{"retry low", endMore(`"retry":{"max_attempts":0,"initial":0,"factor":0.999,"max":-1}`), []string{
		`tasks[0].on_success[0].retry.max_attempts: must be between 1 and 100, is 0`,
		`tasks[0].on_success[0].retry.initial: must be between 0.001 and 86400, is 0`,
		`tasks[0].on_success[0].retry.max: must be between 0.001 and 86400, is -1`,
		`tasks[0].on_success[0].retry.factor: must be between 1 and 100, is 0.999`}},
	{"retry high", endMore(`"retry":{"max_attempts":101,"initial":86400.001,"factor":100.1,"max":1e300}`), []string{
		`tasks[0].on_success[0].retry.max_attempts: must be between 1 and 100, is 101`,
		`tasks[0].on_success[0].retry.initial: must be between 0.001 and 86400, is 86400.001`,
		`tasks[0].on_success[0].retry.max: must be between 0.001 and 86400, is 1e300`,
		`tasks[0].on_success[0].retry.factor: must be between 1 and 100, is 100.1`}},
	{"retry of on_start", startMore(`"retry":{"initial":601,"max":86400}`), []string{
		`tasks[0].on_start.retry.initial: must be between 0.001 and 600, is 601`,
		`tasks[0].on_start.retry.max: must be between 0.001 and 600, is 86400`}},
	{"retry order", startMore(`"retry":{"initial":2.5,"max":2}`), []string{
		`tasks[0].on_start.retry.max: must not be less than initial, 2.5, is 2`}},
	{"retry types", startMore(`"retry":{"max_attempts":"3","initial":"1s","factor":true,"max":[]}`), []string{
		`tasks[0].on_start.retry.max_attempts: must be a number, is string`,
		`tasks[0].on_start.retry.initial: must be a number, is string`,
		`tasks[0].on_start.retry.max: must be a number, is array`,
		`tasks[0].on_start.retry.factor: must be a number, is boolean`}},
	{"retry places", startMore(`"retry":{"max_attempts":1.5,"initial":0.0001,"factor":1.0001}`), []string{
		`tasks[0].on_start.retry.max_attempts: must be a whole number, is 1.5`,
		`tasks[0].on_start.retry.initial: must have at most 3 decimal places, is 0.0001`,
		`tasks[0].on_start.retry.factor: must have at most 3 decimal places, is 1.0001`}},

	{"rules type", taskWith("a", `"rules":{}`), []string{`tasks[0].rules: must be an array, is object`}},
	{"rule type", ruleWith(`1`), []string{`tasks[0].rules[0]: must be an object, is number`}},
	{"rule empty", ruleWith(`{}`), []string{`tasks[0].rules[0]: must be {"Concurency": {…}} or {"type": "Concurency", …}`}},
	{"rule two", ruleWith(`{"Concurency":{},"Capacity":{}}`), []string{
		`tasks[0].rules[0]: must be {"Concurency": {…}} or {"type": "Concurency", …}`}},
	{"rule name", ruleWith(`{"concurrency":{}}`), []string{`tasks[0].rules[0]: unknown field "concurrency", did you mean "Concurrency"?`}},
	{"rule tag", ruleWith(`{"type":"Concurent"}`), []string{
		`tasks[0].rules[0].type: must be Concurency or Capacity, is "Concurent", did you mean "Concurency"?`}},
	{"rule tag type", ruleWith(`{"type":1}`), []string{`tasks[0].rules[0].type: must be a string, is number`}},
	{"capacity", ruleWith(`{"Capacity":{}},{"type":"Capacity"}`), []string{
		`tasks[0].rules[0].Capacity.matcher: is required`,
		`tasks[0].rules[0].Capacity.max_capacity: is required`,
		`tasks[0].rules[1].matcher: is required`,
		`tasks[0].rules[1].max_capacity: is required`,
		`tasks[0].rules[0]: the task has no expected_count, which a Capacity rule needs`,
		`tasks[0].rules[1]: the task has no expected_count, which a Capacity rule needs`}},
	{"capacity members", taskWith("a", `"expected_count":1`, `"rules":[{"Capacity":{"matcher":{"kind":"k","status":"Success"},"max_capacity":0,"type":"Capacity"}},
		{"type":"Capacity","max_concurency":1,"matcher":{"kind":"k","status":"Running","fields":["f"]},"max_capacity":1000000000000001}]`), []string{
		`tasks[0].rules[0].Capacity: unknown field "type"`,
		`tasks[0].rules[0].Capacity.matcher.status: must be Running in a Capacity rule, is Success`,
		`tasks[0].rules[0].Capacity.max_capacity: must be between 1 and 1000000000000000, is 0`,
		`tasks[0].rules[1]: unknown field "max_concurency"`,
		`tasks[0].rules[1].max_capacity: must be between 1 and 1000000000000000, is 1000000000000001`,
		`tasks[0].rules[1]: the task's metadata has no field "f"`}},
	{"rule members", ruleWith(`{"Concurency":{"max":1}},{"type":"Concurency","max_concurency":0}`), []string{
		`tasks[0].rules[0].Concurency: unknown field "max"`,
		`tasks[0].rules[0].Concurency.matcher: is required`,
		`tasks[0].rules[0].Concurency.max_concurency: is required`,
		`tasks[0].rules[1].matcher: is required`,
		`tasks[0].rules[1].max_concurency: must be between 1 and 1000000000, is 0`}},
	{"rule both", ruleWith(`{"Concurrency":{"matcher":{"kind":"k","status":"Running"},"max_concurency":1,"max_concurrency":1}}`),
		[]string{`tasks[0].rules[0].Concurrency: must have one of max_concurency and max_concurrency, has both`}},
	{"rule high", ruleWith(`{"Concurrency":{"matcher":{"kind":"k","status":"Running"},"max_concurrency":1000000001}}`),
		[]string{`tasks[0].rules[0].Concurrency.max_concurrency: must be between 1 and 1000000000, is 1000000001`}},
	{"matcher empty", matcherWith(``), []string{`tasks[0].rules[0].matcher.kind: is required`, `tasks[0].rules[0].matcher.status: is required`}},
	{"matcher", matcherWith(`"kind":"","status":"Pending","fields":"f"`), []string{
		`tasks[0].rules[0].matcher.kind: must not be empty`,
		`tasks[0].rules[0].matcher.fields: must be an array, is string`}},
	{"claimed", matcherWith(`"kind":"k","status":"Claimed"`), []string{
		`tasks[0].rules[0].matcher.status: must not be Claimed: what is claimed counts as Running`}},
	{"status", matcherWith(`"kind":"k","status":"running","fields":[]`), []string{
		`tasks[0].rules[0].matcher.status: unknown status "running", did you mean "Running"?`}},
	{"fields", matcherWith(`"kind":"k","status":"Running","fields":["f","",1,"f"]`), []string{
		`tasks[0].rules[0].matcher.fields[1]: must not be empty`,
		`tasks[0].rules[0].matcher.fields[2]: must be a string, is number`,
		`tasks[0].rules[0].matcher.fields[3]: duplicate "f"`}},
	{"field missing", matcherWith(`"kind":"k","status":"Running","fields":["f","h","g"]`), []string{
		`tasks[0].rules[0]: the task's metadata has no field "h"`}},
	{"many rules", ruleWith(strings.Repeat(`{"Concurency":{"matcher":{"kind":"k","status":"Running"},"max_concurency":1}},`, 20) + `1`),
		[]string{`tasks[0].rules: must have at most 20 rules`}},
}

// matcherOf is a task with the same bad rule and the same bad address for every id.
func matcherOf(id string) string {
	return taskWith(id, `"rules":[{"type":"Concurency","max_concurency":1,"matcher":{"kind":"k"}}]`,
		`"on_success":[{"kind":"Webhook","params":{"url":"http://internal/","verb":"Get"}}]`)
}

func manyHeaders(n int) string {
	headers := make([]string, n)
	for i := range headers {
		headers[i] = fmt.Sprintf(`"H%d":""`, i)
	}
	return strings.Join(headers, ",")
}

func TestBadTasks(t *testing.T) {
	t.Parallel()
	for _, c := range badTasks {
		checkProblems(t, c.name, "["+c.task+"]", c.want...)
	}
}

func checkProblems(t *testing.T, name, body string, want ...string) {
	t.Helper()
	batch, err := parse(body)
	problems, _ := errors.AsType[Problems](err)
	if diff := cmp.Diff(want, problems.Strings()); diff != "" {
		t.Errorf("%s: problems -want +got:\n%s", name, diff)
	}
	if batch == nil || batch.ID == (ID{}) || batch.Tasks != nil {
		t.Errorf("%s: the batch of an error has its id and nothing else, is %+v", name, batch)
	}
}

func TestBadBatches(t *testing.T) {
	t.Parallel()
	dependsOn := func(ids ...string) string {
		for i, id := range ids {
			ids[i] = fmt.Sprintf(`{"id":%q}`, id)
		}
		return `"dependencies":[` + strings.Join(ids, ",") + `]`
	}
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"no JSON", `nothing`, []string{`not valid JSON: 'n' where a value should stand at line 1, column 1`}},
		{"broken", `[{"id":"a",}]`, []string{`tasks[0]: not valid JSON: '}' where a member's name should stand at line 1, column 12`}},
		{"nothing", ``, []string{`is empty, JSON was expected at line 1, column 1`}},
		{"text", `"x"`, []string{`must be an array of tasks, or an object with "tasks", is string`}},
		{"duplicate ids", "[" + taskWith("a") + "," + taskWith("b") + "," + taskWith("a") + "]", []string{
			`tasks[2].id: duplicate "a", already the id of tasks[0]`}},
		{"duplicate dependency", "[" + taskWith("a", dependsOn("b", "b")) + "," + taskWith("b") + "]", []string{
			`tasks[0].dependencies: duplicate id "b"`}},
		{"cycle from its first task", "[" + taskWith("x", dependsOn("a")) + "," + taskWith("a", dependsOn("b", "y")) + "," +
			taskWith("b", dependsOn("c")) + "," + taskWith("c", dependsOn("a")) + "," + taskWith("y") + "]", []string{
			`tasks[1].dependencies: cycle a → b → c → a`}},
		{"two cycles", "[" + taskWith("c", dependsOn("d")) + "," + taskWith("d", dependsOn("c")) + "," +
			taskWith("a", dependsOn("b\n")) + "," + taskWith("b\n", dependsOn("a")) + "]", []string{
			`tasks[0].dependencies: cycle c → d → c`, `tasks[2].dependencies: cycle a → "b\n" → a`}},
		{"what repeats is told each time", "[" + matcherOf("a") + "," + matcherOf("b") + "]", []string{
			`tasks[0].rules[0].matcher.status: is required`, `tasks[0].on_success[0].params.url: the address is not allowed`,
			`tasks[1].rules[0].matcher.status: is required`, `tasks[1].on_success[0].params.url: the address is not allowed`}},
		{"all at once", "[" + taskWith("a", `"timeout":0`, dependsOn("b")) + "," + taskWith("b", `"x":1`, dependsOn("a", "z")) + "]",
			[]string{
				`tasks[0].timeout: must be between 1 and 86400, is 0`, `tasks[1]: unknown field "x"`,
				`tasks[1].dependencies: unknown id "z"`, `tasks[0].dependencies: cycle a → b → a`}},
	} {
		checkProblems(t, c.name, c.body, c.want...)
	}
}

func TestHeadersThatAreNotTheirs(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{
		"is set by the service": {"idempotency-key", "X-Task-Id", "x-task-", "X-TASK-FOO", "Webhook-Signature", "traceparent",
			"Idempotency_Key", "x_task_id", "WEBHOOK_ID"},
		"belongs to the connection": {"HOST", "Content-Length", "connection", "Keep-Alive", "Proxy-Authorization", "te", "Trailer",
			"Transfer-Encoding", "upgrade", "Expect", "HTTP2-Settings", "Content_Length", "transfer_encoding", "Proxy_Connection"},
		"": {"Content-Type", "Authorization", "X-Tasks", "Team", "Hosts", "Webhook", "Proxy", "User-Agent", "X_Own", "Expected"},
	} {
		for _, name := range names {
			for trigger := TriggerStart; trigger <= TriggerBatchComplete; trigger++ {
				if got := headerNameProblem(name, trigger); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		}
	}
	for trigger, want := range map[Trigger]string{TriggerBatchComplete: "is set by the service", TriggerStart: "", TriggerCancel: ""} {
		if got := headerNameProblem("x-batch-ID", trigger); got != want {
			t.Errorf("X-Batch-Id of trigger %d: %q, want %q", trigger, got, want)
		}
	}
}

func TestTooManyTasks(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{0: false, 100: false, 101: true, 500: true} {
		batch, err := parse(string(typicalBatch(n)))
		if errors.Is(err, ErrTooManyTasks) != want || batch.ID == (ID{}) {
			t.Errorf("%d of at most 100 tasks: %v", n, err)
		}
		if !want && len(batch.Tasks) != n {
			t.Errorf("%d tasks, want %d", len(batch.Tasks), n)
		}
	}
}

func TestProblemsOfManyTasks(t *testing.T) {
	t.Parallel()
	_, err := parse("[" + strings.Repeat("{},", 99) + "{}]")
	problems, _ := errors.AsType[Problems](err)
	if len(problems) != 101 || problems[100].String() != "and 300 more" {
		t.Errorf("%d problems, the last one %v", len(problems), problems[len(problems)-1])
	}
	_, err = parse(`{"tasks":[` + strings.Repeat("{},", 99) + `{}],"scope":7,"x":1}`)
	problems, _ = errors.AsType[Problems](err)
	if len(problems) != 101 || problems[1].Path != "scope" || problems[2].Path != "tasks[0].id" || problems[100].String() != "and 302 more" {
		t.Errorf("%d problems, the first ones %v, the last one %v", len(problems), problems[:3], problems[len(problems)-1])
	}
}

func TestParseBatch(t *testing.T) {
	t.Parallel()
	got, err := parse(`[
	{"id": "b", "name": "B", "kind": "k", "timeout": 86400, "priority": -5, "expected_count": 0, "dead_end_barrier": true,
	 "metadata": { "t" : [ 1, "a b" ] , "n": null}, "dedupe_strategy": [],
	 "on_start": {"kind": "Webhook", "trigger": "Start", "params": {"url": "HTTPS://h:8080/p?q=1#f", "verb": "Delete",
	   "headers": {"Content-Type": "text/plain"}, "body": [ 1 , {"a" : "b c"} ]},
	   "timeout": 60, "retry": {"max_attempts": 100, "initial": 0.5, "factor": 1.25, "max": 600}},
	 "on_success": [{"kind": "Webhook", "trigger": "End", "condition": "Success", "params": {"url": "http://s", "verb": "Get", "body": null},
	   "retry": {"max": 86400}, "timeout": 1}],
	 "on_failure": [{"kind": "Webhook", "trigger": "End", "params": {"url": "http://f", "verb": "Patch", "headers": {}},
	   "timeout": null, "retry": {}}],
	 "dependencies": [{"id": "a"}, {"requires_success": false, "id": "c"}],
	 "rules": [{"Concurency": {"matcher": {"kind": "k", "status": "Running", "fields": ["n", "t"]}, "max_concurrency": 5}},
	           {"max_concurency": 1000000000, "matcher": {"kind": "other", "status": "Running", "fields": null}, "type": "Concurrency"}]},
	{"id": "c", "name": "C", "kind": "k", ` + goodStart + `, "metadata": null, "timeout": null, "priority": null,
	 "expected_count": null, "dead_end_barrier": null, "dependencies": null, "on_success": null, "rules": null,
	 "dedupe_strategy": [{"kind": "k", "status": "Running"}, {"fields": ["n"], "status": "Success", "kind": "other"}]},
	{"id": "a", "name": "\u0041", "kind": "k", ` + goodStart + `, "dependencies": [{"id":"c","requires_success":true}]}]`)
	if err != nil {
		t.Fatal(err)
	}
	id := func(n byte) ID { return ID{15: n} }
	post := Action{Verb: "Post", URL: "https://h/x"}
	want := &Batch{ID: id(1), Metadata: json.RawMessage(`{}`), Tasks: []*Task{{
		ID: id(2), BatchID: id(1), LocalID: "b", Name: "B", Kind: "k", Timeout: 24 * time.Hour, Priority: -5,
		ExpectedCount: new(int64(0)), DeadEndBarrier: true, Metadata: json.RawMessage(`{"t":[1,"a b"],"n":null}`),
		Rules: []Rule{
			{Matcher: Matcher{"k", Running, []string{"n", "t"}}, Max: 5, Form: RuleForm{MaxRR: true}},
			{Matcher: Matcher{"other", Running, nil}, Max: 1_000_000_000, Form: RuleForm{Tagged: true, TypeRR: true}},
		},
		OnStart: Action{Verb: "Delete", URL: "HTTPS://h:8080/p?q=1#f", Headers: map[string]string{"Content-Type": "text/plain"},
			Body:    json.RawMessage(`[1,{"a":"b c"}]`),
			Timeout: time.Minute, Retry: Retry{100, 500 * time.Millisecond, 1.25, 10 * time.Minute}},
		OnSuccess:    []Action{{Verb: "Get", URL: "http://s", Timeout: time.Second, Retry: Retry{Max: 24 * time.Hour}}},
		OnFailure:    []Action{{Verb: "Patch", URL: "http://f"}},
		Dependencies: []Dependency{{id(4), true}, {id(3), false}},
	}, {
		ID: id(3), BatchID: id(1), LocalID: "c", Name: "C", Kind: "k", Timeout: time.Minute, Metadata: json.RawMessage(`{}`),
		OnStart: post, Dedupe: []Matcher{{"k", Running, nil}, {"other", Success, []string{"n"}}},
	}, {
		ID: id(4), BatchID: id(1), LocalID: "a", Name: "A", Kind: "k", Timeout: time.Minute, Metadata: json.RawMessage(`{}`),
		OnStart: post, Dependencies: []Dependency{{id(3), true}},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// dedupeKinds has tasks that look for n kinds, two each.
func dedupeKinds(n int) string {
	var tasks []string
	for i := 0; i < n; i += 2 {
		tasks = append(tasks, taskWith(fmt.Sprint("t", i),
			fmt.Sprintf(`"dedupe_strategy":[{"kind":"k%d","status":"Pending"},{"kind":"k%d","status":"Pending"}]`, i, min(i+1, n-1))))
	}
	return strings.Join(tasks, ",")
}

// TestBodyIsNotKept: a body is read through a window, which is filled again and again.
func TestBodyIsNotKept(t *testing.T) {
	t.Parallel()
	const n = 500
	got, err := ParseBatch(bytes.NewReader(typicalBatch(n)), ParseParams{NewID: counterIDs()})
	if err != nil || len(got.Tasks) != n {
		t.Fatalf("%d tasks, %v", len(got.Tasks), err)
	}
	alone, err := ParseBatch(bytes.NewReader(typicalBatch(1)), ParseParams{NewID: counterIDs()})
	if err != nil {
		t.Fatal(err)
	}
	for i, task := range got.Tasks {
		want := *alone.Tasks[0]
		want.ID, want.LocalID = task.ID, fmt.Sprintf("task-%d", i)
		if diff := cmp.Diff(&want, task); diff != "" {
			t.Fatalf("task %d, -want +got:\n%s", i, diff)
		}
	}
}
