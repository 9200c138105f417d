package sqlite

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/store"
	"taskrunner/internal/store/storetest"
	"taskrunner/internal/task"
)

// A tick that fails takes no outcomes with it, and claims nothing.
func TestFollowingTickFails(t *testing.T) {
	t.Parallel()
	s := openSuite(t, &storetest.Clock{})
	b := &task.Batch{ID: uuid.Must(uuid.NewV7()), Metadata: []byte("{}")}
	for range 2 {
		b.Tasks = append(b.Tasks, &task.Task{
			ID: uuid.Must(uuid.NewV7()), BatchID: b.ID, Kind: "work", Timeout: time.Hour, Metadata: json.RawMessage("{}"),
			OnStart: task.Action{URL: "http://a.test/run", Verb: "Post"},
		})
	}
	b.Tasks[1].Dependencies = []task.Dependency{{Parent: b.Tasks[0].ID}}
	if _, err := s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	p := store.PumpParams{Owner: uuid.Must(uuid.NewV7()), Room: task.Room{Total: 9, PerHost: 9}}
	if err := s.Heartbeat(t.Context(), p.Owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 {
		t.Fatal(pumped, err)
	}
	do := func(sql string) {
		t.Helper()
		c := <-s.writers
		defer func() { s.writers <- c }()
		if err := c.exec(t.Context(), sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	ends := []task.Outcome{{ID: b.Tasks[0].ID, Kind: task.Update, Status: task.Success}}
	do("CREATE TRIGGER fail BEFORE INSERT ON running BEGIN SELECT RAISE(ABORT, 'broken'); END")
	_, pumped, err := s.SettleAndPump(t.Context(), ends, func() (store.PumpParams, bool) { return p, true })
	if !errors.Is(err, store.ErrUndone) || pumped != nil {
		t.Errorf("%+v, %v", pumped, err)
	}
	settled, err := s.Settle(t.Context(), ends)
	if err != nil || !settled.Pump || settled.Results[0].From != task.Claimed || settled.Results[0].State.Status != task.Success {
		t.Errorf("%+v, %v", settled, err)
	}
	do("DROP TRIGGER fail")
	if pumped, err := s.Pump(t.Context(), p); err != nil || len(pumped.Claims) != 1 || pumped.Claims[0].ID != b.Tasks[1].ID {
		t.Errorf("%+v, %v", pumped, err)
	}
}
