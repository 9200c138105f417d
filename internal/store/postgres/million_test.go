//go:build long

package postgres

import (
	"testing"

	"taskrunner/internal/store/storetest"
)

// million is what storetest.Million says.
const million = `
CREATE FUNCTION made_id(at bigint, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(to_hex(at), 12, '0') || '7' || lpad(to_hex(n), 3, '0') || '8000000000000000')::uuid $$;

INSERT INTO batch (id, requester, created_at, scope, metadata, alive_at)
SELECT made_id((1767225600 + b * 60) * 1000::bigint, 0), '', to_timestamp(1767225600 + b * 60), '', '{}', to_timestamp(1767225600 + b * 60) FROM generate_series(0, 999) b;

INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at)
SELECT made_id((1767225600 + n / 1000 * 60) * 1000::bigint + n % 1000, 1), made_id((1767225600 + n / 1000 * 60) * 1000::bigint, 0), n::text,
       'task ' || n, 'kind-' || n % 20, 'h', 0, false, json_build_object('tenant', n % 50, 'run', n / 1000, 'n', n),
       '[{"kind":"Webhook","params":{"url":"http://h.test/run","verb":"Post"}}]', to_timestamp(1767225600 + n / 1000 * 60 + n % 1000 / 1000.0)
FROM generate_series(0, 999999) n;

INSERT INTO task_state (id, status, unmet, claimed_at, started_at, ended_at, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT t.id, s.status, (s.status = 1)::integer, t.created_at, t.created_at, CASE WHEN s.status IN (6, 7, 8) THEN t.created_at END,
       t.created_at, t.kind, CASE WHEN s.n = 70007 THEN 77 WHEN s.n % 10 = 0 THEN 120 ELSE 60 END, false, false, false
FROM task t CROSS JOIN LATERAL (SELECT n, CASE WHEN n % 1000 IN (11, 211, 411, 611, 811) THEN 2 WHEN n % 100 = 2 AND n % 1000 <> 2 THEN 2
    WHEN n % 200 = 3 THEN 4 WHEN n % 1000 = 4 THEN 7 WHEN n % 100000 = 6 THEN 5 WHEN n % 1000 = 8 THEN 1 ELSE 6 END AS status
    FROM CAST(t.local_id AS integer) n) s ORDER BY t.id;

INSERT INTO ready SELECT 'h', 0, s.id FROM task_state s JOIN task t ON t.id = s.id WHERE s.status = 2 AND t.local_id LIKE '%11';
INSERT INTO parked SELECT s.id, 1, 1, 'h', 0 FROM task_state s JOIN task t ON t.id = s.id WHERE s.status = 2 AND t.local_id LIKE '%2';
INSERT INTO running SELECT s.id, s.id, '{}' FROM task_state s WHERE s.status = 4;
INSERT INTO rare_status SELECT status, id FROM task_state WHERE status IN (5, 7, 8);
INSERT INTO batch_kind SELECT DISTINCT kind, batch_id FROM task`

func TestMillion(t *testing.T) {
	s := openForCommits(t)
	for _, sql := range []string{million, "VACUUM ANALYZE"} {
		if _, err := s.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	storetest.MeasureLists(t, s)
}
