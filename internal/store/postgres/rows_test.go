package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Every settled task is an element of a dozen arrays: an element must not need memory of its own.
func TestArraysAllocateAsAWhole(t *testing.T) { // not parallel: it counts allocations
	const n = 1000
	ids, at := make(uuids, n), make(times, n)
	for i := range n {
		ids[i], at[i] = store.NewID(), nullTime(time.Unix(int64(i), 0))
	}
	at[0] = nullTime(time.Time{})
	m, buffer := pgtype.NewMap(), make([]byte, 0, 64<<10)
	for _, test := range []struct {
		name  string
		oid   uint32
		array any
	}{{"uuids", pgtype.UUIDArrayOID, ids}, {"times", pgtype.TimestamptzArrayOID, at}} {
		allocs := testing.AllocsPerRun(10, func() {
			if _, err := m.Encode(test.oid, pgtype.BinaryFormatCode, test.array, buffer); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > n/10 {
			t.Errorf("%s: %.0f allocations for %d elements", test.name, allocs, n)
		}
	}
	raw, err := m.Encode(pgtype.TimestamptzArrayOID, pgtype.BinaryFormatCode, at, nil)
	var got []pgtype.Timestamptz
	if err == nil {
		err = m.Scan(pgtype.TimestamptzArrayOID, pgtype.BinaryFormatCode, raw, &got)
	}
	if err != nil || len(got) != n || got[0].Valid || !got[1].Time.Equal(at[1].Time) {
		t.Errorf("%d times came back, the first ones %v, error %v", len(got), got[:min(2, len(got))], err)
	}
}

// What does not find a row by its place undoes the transaction, though COMMIT travels with it.
func TestLostPlaceUndoes(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	k := createTasks(t, s, 1)[0]
	for name, queue := range map[string]func(t *tx){
		"update_states": func(t *tx) { t.updateStates([]task.State{{ID: k.ID, Status: task.Success}}) },
		"delete_ready":  func(t *tx) { t.writePlaces(&store.Tick{Unready: []store.ReadyKey{{ID: k.ID}}}, task.ID{}) },
	} {
		err := s.run(t.Context(), func(_ context.Context, t *tx) error {
			t.exec("insert_events", uuids{k.ID}, []bool{true})
			queue(t)
			return nil
		})
		var events int
		if counted := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM dep_event").Scan(&events); counted != nil {
			t.Fatal(counted)
		}
		if err == nil || events != 0 {
			t.Errorf("%s: %d events were committed beside it, error %v", name, events, err)
		}
	}
}
