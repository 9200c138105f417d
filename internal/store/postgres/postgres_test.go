package postgres_test

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
	"taskrunner/internal/store"
	"taskrunner/internal/store/postgres"
	"taskrunner/internal/store/storetest"
	"taskrunner/internal/task"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestStore(t *testing.T) {
	t.Parallel()
	var unused storetest.Unused
	databases := &databases{tb: t}
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(tb testing.TB, clock *storetest.Clock) store.Store {
			s := databases.open(tb, clock)
			tb.Cleanup(func() { unused.Keep(s.Unused()) })
			return s
		})
	})
	unused.Check(t, "became", "forget", "notifications", "tell_pump") // by commit_test.go, open_test.go and cursors_test.go
}

func BenchmarkStore(b *testing.B) {
	databases := &databases{tb: b}
	b.Run("driver=postgres", func(b *testing.B) {
		storetest.Bench(b, func(tb testing.TB, clock *storetest.Clock) store.Store { return databases.open(tb, clock) })
	})
}

// opened can be opened again, as by another process.
type opened struct {
	*postgres.Store
	tb    testing.TB
	url   string
	clock *storetest.Clock
	stall sync.Once
}

// StallList waits for a table that somebody else has locked, until ctx or the test ends.
func (o *opened) StallList(ctx context.Context) error {
	o.stall.Do(func() {
		conn, err := pgx.Connect(o.tb.Context(), o.url)
		if err != nil {
			o.tb.Error(err)
			return
		}
		o.tb.Cleanup(func() { _ = conn.Close(context.WithoutCancel(o.tb.Context())) })
		if _, err := conn.Exec(o.tb.Context(), "BEGIN; LOCK TABLE rare_status"); err != nil {
			o.tb.Error(err)
		}
	})
	_, err := o.Tasks(ctx, store.Filter{Statuses: []task.Status{task.Failure}, Limit: 1})
	return err
}

func (o *opened) Another() store.Store {
	s, err := postgres.Open(o.tb.Context(), postgres.Options{URL: o.url, Skew: o.clock.Skew, DeadEnds: true})
	if err != nil {
		o.tb.Fatal(err)
	}
	o.tb.Cleanup(func() { _ = s.Close() })
	return s
}

// Rows counts the rows of all tables.
func (o *opened) Rows(ctx context.Context) (map[string]int, error) {
	conn, err := pgx.Connect(ctx, o.url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	tables, err := tablesOf(ctx, conn)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, table := range tables {
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{table}.Sanitize()).Scan(&n); err != nil {
			return nil, err
		}
		counts[table] = n
	}
	return counts, nil
}

func tablesOf(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT tablename::text FROM pg_tables
		WHERE schemaname = current_schema() AND tablename NOT IN ('migration', 'pump') ORDER BY tablename`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// databases are those that no test is using. Making one takes longer than most tests.
type databases struct {
	tb   testing.TB // outlives the tests
	mu   sync.Mutex
	urls []string
}

// open opens an empty store for tb alone.
func (d *databases) open(tb testing.TB, clock *storetest.Clock) *opened {
	tb.Helper()
	o := &opened{tb: tb, url: d.take(), clock: clock}
	tb.Cleanup(func() { d.check(tb, o.url) })
	s, err := postgres.Open(tb.Context(), postgres.Options{URL: o.url, Skew: clock.Skew, DeadEnds: true})
	if err != nil {
		tb.Fatal(err)
	}
	o.Store = s
	tb.Cleanup(func() { _ = s.Close() })
	if err := s.Migrate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return o
}

func (d *databases) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.urls); n > 0 {
		url := d.urls[n-1]
		d.urls = d.urls[:n-1]
		return url
	}
	return pgtest.URL(d.tb)
}

// misplaced are tasks that are not in the one place that their state names, and those parked in a lane that their gate
// does not know, which nobody would ever wake; and batches that do not know how many of their tasks have ended.
const misplaced = `
SELECT s.id::text || ' in state ' || s.status || CASE WHEN r.task_id IS NOT NULL THEN ' is ready' ELSE '' END ||
       CASE WHEN p.task_id IS NOT NULL THEN ' is parked' ELSE '' END ||
       CASE WHEN x.task_id IS NOT NULL THEN ' is running' ELSE '' END
FROM task_state s LEFT JOIN ready r ON r.task_id = s.id LEFT JOIN parked p ON p.task_id = s.id
LEFT JOIN running x ON x.task_id = s.id
WHERE (r.task_id IS NOT NULL)::integer + (p.task_id IS NOT NULL)::integer <> (s.status = 2)::integer
   OR (x.task_id IS NOT NULL) <> (s.status IN (3, 4) OR s.status = 5 AND s.claimed_at IS NOT NULL)
UNION ALL
SELECT p.task_id::text || ' is parked in lane ' || p.lane || ', which its gate does not know'
FROM parked p WHERE NOT EXISTS (SELECT FROM gate g WHERE g.id = p.gate_id AND p.lane = ANY(g.lanes))
UNION ALL
SELECT p.batch_id::text || ' waits for ' || p.remaining || ' tasks'
FROM batch_progress p
WHERE p.remaining <> (SELECT count(*) FROM task t JOIN task_state s ON s.id = t.id WHERE t.batch_id = p.batch_id AND s.status < 6)
    + (SELECT coalesce(sum(d.success + d.failure + d.canceled), 0) FROM batch_delta d WHERE d.batch_id = p.batch_id)`

// check looks at what a test has left behind, and then empties the database for the next one.
func (d *databases) check(tb testing.TB, url string) {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		tb.Error(err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, misplaced)
	if err != nil {
		tb.Error(err)
		return
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(found) > 0 {
		tb.Errorf("misplaced tasks (%v): %d, such as %v", err, len(found), found[:min(3, len(found))])
	}
	// Far quicker than TRUNCATE where there is little. In this order gates go before the shapes they refer to.
	tables, err := tablesOf(ctx, conn)
	if err != nil {
		tb.Error(err)
		return
	}
	for _, table := range tables {
		if _, err := conn.Exec(ctx, "DELETE FROM "+table); err != nil {
			tb.Error(err)
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.urls = append(d.urls, url)
}
