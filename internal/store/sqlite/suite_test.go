package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/store/storetest"
)

func openSuite(tb testing.TB, clock *storetest.Clock) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), Options{Path: filepath.Join(tb.TempDir(), "suite.db"), Now: clock.Now, DeadEnds: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := s.Migrate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { checkPlaces(tb, s) })
	return s
}

// StallList is a list that does not end before ctx.
func (s *Store) StallList(ctx context.Context) error {
	return s.list(ctx, func(*tx) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

// Rows counts the rows of all tables.
func (s *Store) Rows(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	err := s.read(ctx, func(t *tx) error {
		t.query("tables", "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", func(r *row) error {
			counts[r.text()] = 0
			return nil
		})
		for table := range counts {
			t.query(table, "SELECT count(*) FROM "+table, func(r *row) error {
				counts[table] = r.int()
				return nil
			})
		}
		return t.err
	})
	return counts, err
}

// misplaced are tasks that are not in the one place that their state names, and those parked in a lane that their gate
// does not know, which nobody would ever wake; and batches that do not know how many of their tasks have ended.
const misplaced = `
SELECT hex(s.id) || ' in state ' || s.status || iif(r.task_id IS NULL, '', ' is ready') ||
       iif(p.task_id IS NULL, '', ' is parked') || iif(x.task_id IS NULL, '', ' is running')
FROM task_state s LEFT JOIN ready r ON r.task_id = s.id LEFT JOIN parked p ON p.task_id = s.id
LEFT JOIN running x ON x.task_id = s.id
WHERE (r.task_id IS NOT NULL) + (p.task_id IS NOT NULL) <> (s.status = 2)
   OR (x.task_id IS NOT NULL) <> (s.status IN (3, 4) OR s.status = 5 AND s.claimed_at IS NOT NULL)
UNION ALL
SELECT hex(p.task_id) || ' is parked in lane ' || p.lane || ', which its gate does not know'
FROM parked p
WHERE NOT EXISTS (SELECT 1 FROM gate g WHERE g.id = p.gate_id AND p.lane IN (SELECT value FROM json_each(g.lanes)))
UNION ALL
SELECT hex(p.batch_id) || ' waits for ' || p.remaining || ' tasks'
FROM batch_progress p
WHERE p.remaining <> (SELECT count(*) FROM task t JOIN task_state s ON s.id = t.id WHERE t.batch_id = p.batch_id AND s.status < 6)
    + (SELECT coalesce(sum(d.success + d.failure + d.canceled), 0) FROM batch_delta d WHERE d.batch_id = p.batch_id)`

func checkPlaces(tb testing.TB, s *Store) {
	tb.Helper()
	err := s.read(context.WithoutCancel(tb.Context()), func(t *tx) error {
		t.query("misplaced", misplaced, func(r *row) error {
			tb.Errorf("misplaced: %s", r.text())
			return nil
		})
		return t.err
	})
	if err != nil {
		tb.Error(err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	var unused storetest.Unused
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(tb testing.TB, clock *storetest.Clock) store.Store {
			s := openSuite(tb, clock)
			tb.Cleanup(func() { unused.Keep(s.Unused()) })
			return s
		})
	})
	unused.Check(t)
}

func BenchmarkStore(b *testing.B) {
	b.Run("driver=sqlite", func(b *testing.B) {
		storetest.Bench(b, func(tb testing.TB, clock *storetest.Clock) store.Store { return openSuite(tb, clock) })
	})
}
