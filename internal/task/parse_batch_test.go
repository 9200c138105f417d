package task

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// completeWith is a create in the object form whose one action has these params beside a good URL and verb.
func completeWith(params string) string {
	return `{"tasks":[],"on_batch_complete":[{"kind":"Webhook","params":{"url":"https://h","verb":"Post",` + params + `}}]}`
}

func TestObjectForm(t *testing.T) {
	t.Parallel()
	tasks := "[" + taskWith("a", `"dependencies":[{"id":"b"}]`) + "," + taskWith("b") + "]"
	array, err := parse(tasks)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(b *Batch)) *Batch {
		b := *array
		if change != nil {
			change(&b)
		}
		return &b
	}
	for body, want := range map[string]*Batch{
		`{"tasks":` + tasks + `}`: with(nil),
		` {"scope":null,"on_batch_complete":null,"metadata":null,"tasks": ` + tasks + `} `: with(nil),
		`{"on_batch_complete":[],"metadata":{},"tasks":` + tasks + `}`:                     with(nil),
		`{"metadata": {"run" : [17, "a b"]}, "scope": "` + strings.Repeat("ä", MaxScope) + `", "tasks":` + tasks + `}`: with(func(b *Batch) {
			b.Scope, b.Metadata = strings.Repeat("ä", MaxScope), json.RawMessage(`{"run":[17,"a b"]}`)
		}),
		`{"tasks":` + tasks + `,"on_batch_complete":[
			{"kind":"Webhook","params":{"url":"https://h/done","verb":"Post","headers":{"X-A":"b"},"body":{ "a" : 1 }}},
			{"kind":"Webhook","params":{"url":"https://h/get","verb":"Get","body":null},"timeout":9,"retry":{"factor":3}}]}`: with(func(b *Batch) {
			b.OnComplete = []Action{
				{Verb: "Post", URL: "https://h/done", Headers: map[string]string{"X-A": "b"}, Body: json.RawMessage(`{"a":1}`)},
				{Verb: "Get", URL: "https://h/get", Timeout: 9 * time.Second, Retry: Retry{Factor: 3}},
			}
		}),
		`{"tasks":[]}`: {ID: array.ID, Metadata: json.RawMessage(`{}`)},
	} {
		got, err := parse(body)
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

func TestBadObjectForm(t *testing.T) {
	t.Parallel()
	const params = `"params":{"url":"https://h","verb":"Post"}`
	for body, want := range map[string][]string{
		`{}`:                                  {`tasks: is required`},
		`{"tasks":null}`:                      {`tasks: must be an array, is null`},
		`{"tasks":{},"scope":7}`:              {`scope: must be a string, is number`, `tasks: must be an array, is object`},
		`{"taks":[],"Scope":"x"}`:             {`unknown field "taks", did you mean "tasks"?`, `unknown field "Scope", did you mean "scope"?`, `tasks: is required`},
		`{"tasks":[],"scope":" "}`:            {`scope: must not be empty`},
		`{"tasks":[],"metadata":[]}`:          {`metadata: must be an object, is array`},
		`{"tasks":[],"tasks":[]}`:             {`duplicate member name "tasks" at line 1, column 13`},
		`{"tasks":[{"id":"a",}]}`:             {`tasks[0]: not valid JSON: '}' where a member's name should stand at line 1, column 21`},
		`{"tasks":[1]}`:                       {`tasks[0]: must be an object, is number`},
		`{"tasks":[],"on_batch_complete":{}}`: {`on_batch_complete: must be an array, is object`},
		`{"tasks":[],"scope":"` + strings.Repeat("ä", MaxScope+1) + `"}`: {`scope: must have at most 255 characters, has 256`},
		`{"tasks":[],"metadata":{"a":"` + strings.Repeat("x", MaxMetadata) + `"}}`: {
			fmt.Sprintf(`metadata: must have at most 65536 bytes, has %d`, MaxMetadata+8)},
		`{"tasks":[` + taskWith("a", `"timeout":0`, `"dependencies":[{"id":"z"}]`) + `,` + taskWith("a") + `],"scope":""}`: {
			`scope: must not be empty`, `tasks[0].timeout: must be between 1 and 86400, is 0`,
			`tasks[1].id: duplicate "a", already the id of tasks[0]`, `tasks[0].dependencies: unknown id "z"`},
		`{"tasks":[],"on_batch_complete":[{"kind":"Webhook","trigger":"End","condition":"Success",` + params + `}]}`: {
			`on_batch_complete[0].trigger: does not belong here`, `on_batch_complete[0].condition: does not belong here`},
		`{"tasks":[],"on_batch_complete":[{"kind":"Webhook",` + params + `},{"params":{"url":"http://internal/","verb":"post"}}]}`: {
			`on_batch_complete[1].kind: is required`, `on_batch_complete[1].params.url: the address is not allowed`,
			`on_batch_complete[1].params.verb: must be Get, Post, Put, Patch or Delete, is "post", did you mean "Post"?`},
		`{"tasks":[],"on_batch_complete":[` + strings.Repeat(`{"kind":"Webhook",`+params+`},`, MaxActions) + `1]}`: {
			`on_batch_complete: must have at most 20 actions`},
		`{"tasks":[],"on_batch_complete":[{"kind":"Webhook",` + params + `,"timeout":0,"retry":{"max":"1h"}}]}`: {
			`on_batch_complete[0].timeout: must be between 1 and 60, is 0`,
			`on_batch_complete[0].retry.max: must be a number, is string`},
		completeWith(`"body":[1]`): {`on_batch_complete[0].params.body: must be an object, is array`},
		completeWith(`"body":"x"`): {`on_batch_complete[0].params.body: must be an object, is string`},
		completeWith(`"headers":{"x-batch-id":"1","Idempotency-Key":"k"}`): {
			`on_batch_complete[0].params.headers: "x-batch-id" is set by the service`,
			`on_batch_complete[0].params.headers: "Idempotency-Key" is set by the service`},
	} {
		checkProblems(t, body, body, want...)
	}
}

func TestCompletionBody(t *testing.T) {
	t.Parallel()
	c := Completion{
		Batch: ID{15: 7}, Success: 3, Failure: 1, Canceled: 2,
		At: time.Date(2026, 1, 2, 4, 4, 5, 120_000_999, time.FixedZone("", 3600)),
	}
	const ours = `"batch_id":"00000000-0000-0000-0000-000000000007","counts":{"success":3,"failure":1,"canceled":2},` +
		`"completed_at":"2026-01-02T03:04:05.120000Z"}`
	for given, want := range map[string]string{
		"":                                    "{" + ours,
		"{}":                                  "{" + ours,
		`{"a":[1,{"counts":2}],"ä\"\n":null}`: `{"a":[1,{"counts":2}],"ä\"\n":null,` + ours,
		`{"batch_id":1,"x":1.50,"counts":{},"completed_at":"no"}`: `{"x":1.50,` + ours,
		`{"c\u006funts":1}`: "{" + ours,
	} {
		var body json.RawMessage
		if given != "" {
			body = json.RawMessage(given)
		}
		if got := string(c.Body(body)); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n got %s\nwant %s", given, got, want)
		}
	}
}

func TestIdempotencyKeyOfBatch(t *testing.T) {
	t.Parallel()
	for place, want := range []string{":complete", ":complete:1", ":complete:2"} {
		id := ID{15: 7}
		if got := IdempotencyKey(id, TriggerBatchComplete, place); got != "batch:"+id.String()+want {
			t.Errorf("%d: %s", place, got)
		}
	}
}
