package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares an answer, indented, with a file of testdata.
func golden(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	golden(t, "created", s.do("POST", "/task", diamond))
	golden(t, "task-new", s.do("GET", "/task/"+testID(5).String(), ""))

	// a has run and failed; its deliveries have seen some of everything.
	at := time.Date(2026, 1, 1, 1, 2, 3, 450_000_999, time.FixedZone("", 3600))
	a := s.tasks[testID(2)]
	a.Task.OnCancel = []task.Action{{
		Verb: "Delete", URL: "https://example.com/cancel", Timeout: 30 * time.Second,
		Retry: task.Retry{MaxAttempts: 5, Initial: 1235 * time.Millisecond, Factor: 1.001, Max: 5 * time.Minute},
	}}
	a.State = task.State{
		ID: testID(2), Status: task.Failure, Success: 3, Failures: 2, Attempt: 1,
		StartFailures: 2, StartStatus: 503, StartError: "503 Service Unavailable",
		ClaimedAt: at, StartedAt: at.Add(time.Second), EndedAt: at.Add(time.Minute), LastUpdated: at.Add(time.Minute),
		FailureReason: "Timeout",
	}
	a.Deliveries = []store.DeliveryRecord{
		{ID: testID(31), Trigger: task.TriggerSuccess, Place: 1, State: store.DeliveryDead, Failures: 10, LastError: "connection refused"},
		{ID: testID(32), Trigger: task.TriggerFailure, Place: 0, State: store.DeliveryDone, Failures: 1, LastStatus: 204},
		{ID: testID(33), Trigger: task.TriggerCancel, Place: 0, State: store.DeliveryPending, NextAt: at.Add(time.Hour)},
	}
	s.tasks[testID(3)].State = task.State{Status: task.Claimed, ClaimedAt: at, LastUpdated: at}
	s.tasks[testID(4)].State = task.State{Status: task.Paused, ClaimedAt: at, LastUpdated: at}
	golden(t, "task-ended", s.do("GET", "/task/"+testID(2).String(), ""))
	golden(t, "history", s.do("GET", "/task/"+testID(2).String()+"/history", ""))
	golden(t, "list", s.do("GET", "/task", ""))
	golden(t, "batches", s.do("GET", "/batches", ""))
	golden(t, "batch", s.do("GET", "/batch/"+testID(1).String(), ""))
	golden(t, "dag", s.do("GET", "/dag/"+testID(1).String(), ""))
	golden(t, "problem", s.do("POST", "/task", `[{"id":"x","naem":"n","kind":"k","timeout":0,"on_start":null,
		"dependencies":[{"id":"y"}]}]`))
	golden(t, "patched", s.do("PATCH", "/task/"+testID(3).String(),
		`{"status":"Failure","failure_reason":"disk <full>","new_success":1,"new_failures":2}`))
	golden(t, "updated", s.do("PATCH", "/task", `[{"id":"`+testID(4).String()+`","new_success":1},
		{"id":"`+testID(3).String()+`","status":"Success"},{"id":"`+testID(0xffff).String()+`"},
		{"id":"`+testID(2).String()+`","status":"Failure","failure_reason":"x"}]`))
	golden(t, "counted", s.do("PUT", "/task/"+testID(3).String(), `{"new_success":1}`))
	golden(t, "stopped", s.do("DELETE", "/batch/"+testID(1).String(), ""))
	golden(t, "health", s.do("GET", "/health", ""))
}

// A batch that has everything that one can have.
func TestShapeOfBatch(t *testing.T) {
	t.Parallel()
	s := newService(t)
	w := s.do("POST", "/task", `{"scope":"nightly <1>","metadata":{"run": 17},"on_batch_complete":[
		{"kind":"Webhook","params":{"url":"https://example.com/done","verb":"Post","headers":{"X-Token":"t"},"body":{"a": 1}}},
		{"kind":"Webhook","params":{"url":"https://example.com/done2","verb":"Get"}}],"tasks":`+diamond+`}`, "X-Requester: me")
	if w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	s.deliveries = []store.DeliveryRecord{
		{ID: testID(34), Trigger: task.TriggerBatchComplete, Place: 1, State: store.DeliveryDead, Failures: 10, LastStatus: 503, LastError: "503 Service Unavailable"},
	}
	golden(t, "batch-object", s.do("GET", "/batch/"+testID(1).String(), ""))
	golden(t, "batches-object", s.do("GET", "/batches", ""))
}

// What is sent can be read with the same structs, without losing anything.
func TestStructsReadWhatTheyWrite(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	w := s.do("GET", "/task/"+testID(2).String(), "")
	sent := w.Body.String()
	var again bytes.Buffer
	if err := encoder(&again).Encode(decode[api.Task](t, w)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, again.String()); diff != "" {
		t.Error(diff)
	}
}
