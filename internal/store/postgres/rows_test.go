package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
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
