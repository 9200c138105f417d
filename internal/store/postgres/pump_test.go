package postgres

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// What a tick reads while another process pumps must not be remembered: a new shape that was taken for known would be
// counted twice.
func TestBusyTickLearnsNothing(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	p := store.PumpParams{Owner: uuid.Must(uuid.NewV7()), Room: task.Room{Total: 100, PerHost: 100}}
	if err := s.Heartbeat(t.Context(), p.Owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	b := &task.Batch{ID: uuid.Must(uuid.NewV7())}
	for range 3 {
		b.Tasks = append(b.Tasks, &task.Task{
			ID: uuid.Must(uuid.NewV7()), BatchID: b.ID, Kind: "work", Timeout: time.Hour, Metadata: json.RawMessage("{}"),
			OnStart: task.Action{URL: "http://a.test/run", Verb: "Post"},
			Rules:   []task.Rule{{Max: 2, Matcher: task.Matcher{Kind: "work", Status: task.Running}}},
		})
	}
	if _, err := s.Create(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	if pumped, err := s.Pump(t.Context(), p); err != nil || !pumped.Busy {
		t.Fatalf("Pump while another one does: %+v, %v", pumped, err)
	}
	do(t, conn, "rollback")
	pumped, err := s.Pump(t.Context(), p)
	if err != nil || len(pumped.Claims) != 2 {
		t.Errorf("%d tasks were claimed under a limit of 2, %v", len(pumped.Claims), err)
	}
}
