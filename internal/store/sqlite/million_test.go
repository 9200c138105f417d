//go:build long

package sqlite

import (
	"path/filepath"
	"testing"

	"taskrunner/internal/store/storetest"
)

// million is what storetest.Million says.
const million = `
CREATE TEMP TABLE made AS
WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 999999)
SELECT n, unhex(printf('%08x-%04x-7001-8000-000000000000', ((1767225600 + n / 1000 * 60) * 1000 + n % 1000) >> 16,
                 ((1767225600 + n / 1000 * 60) * 1000 + n % 1000) & 0xffff), '-') AS id,
       unhex(printf('%08x-%04x-7000-8000-000000000000', ((1767225600 + n / 1000 * 60) * 1000) >> 16,
              ((1767225600 + n / 1000 * 60) * 1000) & 0xffff), '-') AS batch_id,
       'kind-' || (n % 20) AS kind, (1767225600 + n / 1000 * 60) * 1000000 + n % 1000 * 1000 AS at,
       CASE WHEN n % 1000 IN (11, 211, 411, 611, 811) THEN 2 WHEN n % 100 = 2 AND n % 1000 <> 2 THEN 2
            WHEN n % 200 = 3 THEN 4 WHEN n % 1000 = 4 THEN 7 WHEN n % 100000 = 6 THEN 5 WHEN n % 1000 = 8 THEN 1 ELSE 6 END AS status
FROM n;

INSERT INTO batch (id, requester, created_at, scope, metadata, alive_at) SELECT batch_id, '', min(at), '', '{}', min(at) FROM made GROUP BY batch_id;
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, dead_end_barrier, metadata, on_start, created_at)
SELECT id, batch_id, n, 'task ' || n, kind, 'h', 0, 0, json_object('tenant', n % 50, 'run', n / 1000, 'n', n),
       '[{"kind":"Webhook","params":{"url":"http://h.test/run","verb":"Post"}}]', at FROM made;
INSERT INTO task_state (id, status, unmet, claimed_at, started_at, ended_at, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT id, status, status = 1, at, at, iif(status > 5, at, NULL), at, kind, CASE WHEN n = 70007 THEN 77 WHEN n % 10 = 0 THEN 120 ELSE 60 END, 0, 0, 0 FROM made;
INSERT INTO ready SELECT 'h', 0, id FROM made WHERE status = 2 AND n % 100 = 11;
INSERT INTO parked SELECT id, 1, 1, 'h', 0 FROM made WHERE status = 2 AND n % 100 = 2;
INSERT INTO running SELECT id, id, '[]', NULL FROM made WHERE status = 4;
INSERT INTO batch_kind SELECT DISTINCT kind, batch_id FROM made;
DROP TABLE made;`

func TestMillion(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	c := <-s.writers
	err := c.script(t.Context(), "BEGIN;"+million+"COMMIT;")
	s.writers <- c
	if err != nil {
		t.Fatal(err)
	}
	storetest.MeasureLists(t, s)
}
