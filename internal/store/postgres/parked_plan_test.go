package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// manyParked are 200 000 parked tasks of 200 batches, each with a parent: half of them behind the one that is parked already, the
// others in 20 000 gates that 20 000 running ones hold.
const manyParked = `
INSERT INTO shape (id, type, kind, status, fields, version) VALUES (1, 0, 'k', 4, '["v"]', 1);
INSERT INTO gate SELECT n, 1, '{"v":' || n || '}', 1, '{1}', false FROM generate_series(1, 20000) n;

CREATE FUNCTION made_id(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;
INSERT INTO batch (id, requester, created_at, scope, metadata, alive_at)
SELECT made_id(n), '', now(), '', '{}', now() FROM generate_series(1, 200) n;
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at)
SELECT made_id(n), made_id(n % 200 + 1), '', '', 'k', 'h', -100, false, '{}', '[]', now() FROM generate_series(1, 220000) n;
INSERT INTO task_state (id, status, unmet, claimed_at, started_at, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT made_id(n), CASE WHEN n > 20000 THEN 2 ELSE 4 END, 0, now(), now(), now(), 'k', 60, true, false, false FROM generate_series(1, 220000) n;
INSERT INTO parked SELECT made_id(n), n % 20000 + 1, 1, 'h', 100 FROM generate_series(20001, 120000) n;
INSERT INTO parked SELECT made_id(n), p.gate_id, p.lane, p.host, 100
FROM generate_series(120001, 220000) n CROSS JOIN (SELECT * FROM parked WHERE rank = 0) p;
INSERT INTO running SELECT made_id(n), made_id(0), ARRAY[n], now() + interval '1 day' FROM generate_series(1, 20000) n;
INSERT INTO link SELECT made_id(n % 20000 + 1), made_id(n), false, true FROM generate_series(20001, 220000) n;
INSERT INTO batch_kind SELECT 'k', made_id(n) FROM generate_series(1, 200) n`

// With 200 000 parked tasks of which the planner knows no statement walks a table, nor does what happens to a few read more than
// those.
func TestPlansAtSize(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	l := &limited{s: s, p: pumpParams(t, s)}
	l.create(t, 2)
	l.holder = l.pump(t, 1)
	if _, err := s.pool.Exec(t.Context(), manyParked); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), "ANALYZE "+strings.Join(planTables(), ", ")); err != nil {
		t.Fatal(err)
	}
	checkPlans(t, s, lend(t, s), planTables())
	l.live(t) // so that statements are prepared
	before := readsOf(t, s)
	l.live(t)
	for table, r := range readsOf(t, s) {
		scans, entries := r.scans-before[table].scans, r.entries-before[table].entries
		if scans > 0 || entries > 100 {
			t.Errorf("table %s was walked %d times, and %d entries of its indexes were read", table, scans, entries)
		}
	}
}

// limited are tasks under a rule by which one of them runs at a time.
type limited struct {
	s      *Store
	p      store.PumpParams
	holder task.ID
}

// create creates n of them, of which the last is a child of the first.
func (l *limited) create(t *testing.T, n int) []*task.Task {
	t.Helper()
	b := batchOfTasks(n, task.Rule{Matcher: task.Matcher{Kind: "work", Status: task.Running}, Max: 1})
	if n > 2 {
		b.Tasks[n-1].Dependencies = []task.Dependency{{Parent: b.Tasks[0].ID}}
	}
	if _, err := l.s.Create(t.Context(), []store.Create{{Batch: b}}); err != nil {
		t.Fatal(err)
	}
	return b.Tasks
}

// pump claims as many as are wanted, and gives the last.
func (l *limited) pump(t *testing.T, want int) (last task.ID) {
	t.Helper()
	pumped, err := l.s.Pump(t.Context(), l.p)
	if err != nil || len(pumped.Claims) != want {
		t.Fatalf("%d claims, %v", len(pumped.Claims), err)
	}
	for _, c := range pumped.Claims {
		last = c.ID
	}
	return last
}

func (l *limited) settle(t *testing.T, o task.Outcome) {
	t.Helper()
	settled, err := l.s.Settle(t.Context(), []task.Outcome{o})
	if err != nil || settled.Results[0].Err != nil {
		t.Fatalf("%+v, %v", settled, err)
	}
}

// live takes a few through what may happen to them. One of them holds the gate in the end.
func (l *limited) live(t *testing.T) {
	t.Helper()
	tasks := l.create(t, 4)
	l.pump(t, 0) // they are parked
	claimed := []task.ID{l.holder}
	for _, status := range []task.Status{task.Success, task.Failure, task.Success} {
		l.settle(t, task.Outcome{ID: l.holder, Kind: task.Update, Status: status})
		l.holder = l.pump(t, 1)
		claimed = append(claimed, l.holder)
	}
	for _, k := range tasks {
		if !slices.Contains(claimed, k.ID) {
			l.settle(t, task.Outcome{ID: k.ID, Kind: task.Cancel})
		}
	}
	l.pump(t, 0)
	if _, err := l.s.Work(t.Context(), l.p.Owner); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.s.Due(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
}

// reads are how often a table was read page by page, and how many entries of its indexes were read.
type reads struct{ scans, entries int }

func readsOf(t *testing.T, s *Store) map[string]reads {
	t.Helper()
	flushStatistics(t, s)
	rows, err := s.pool.Query(t.Context(), `
		SELECT t.relname::text, t.seq_scan, (SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes i WHERE i.relid = t.relid)
		FROM pg_stat_user_tables t WHERE t.relid = ANY($1::text[]::regclass[])`, planTables())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]reads{}
	var table string
	var r reads
	if _, err := pgx.ForEachRow(rows, []any{&table, &r.scans, &r.entries}, func() error {
		all[table] = r
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
