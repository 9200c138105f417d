-- What there is to do. Every table is asked for its first row in the order of an index: what is empty may have been large,
-- and would be walked whole. Indexes delivery_due and running_check. The queues whose heads the pump remembers only if $3: when it
-- would read those, too.
-- name: work
WITH RECURSIVE hosts AS (
    (SELECT host FROM delivery WHERE state = 1 ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT d.host FROM delivery d WHERE d.state = 1 AND d.host > hosts.host ORDER BY d.host LIMIT 1)
    FROM hosts WHERE hosts.host IS NOT NULL
)
SELECT coalesce((SELECT seq FROM tally_event ORDER BY seq LIMIT 1), (SELECT id FROM gate WHERE dirty ORDER BY id LIMIT 1)) IS NOT NULL
           OR $3 AND ((SELECT host FROM ready ORDER BY host LIMIT 1) IS NOT NULL
                      OR coalesce((SELECT seq FROM dep_event ORDER BY seq LIMIT 1), (SELECT seq FROM gate_delta ORDER BY seq LIMIT 1),
                                  (SELECT seq FROM batch_delta ORDER BY seq LIMIT 1)) IS NOT NULL)
           OR coalesce((SELECT version FROM shape ORDER BY version LIMIT 1) = 0, false),
       EXISTS (
           SELECT FROM hosts
           WHERE (SELECT next_at FROM delivery WHERE state = 1 AND host = hosts.host ORDER BY next_at LIMIT 1) <= n.now
       ),
       coalesce((SELECT check_at FROM running ORDER BY check_at LIMIT 1) <= n.now, false),
       (SELECT seq FROM dead_end ORDER BY seq LIMIT 1) IS NOT NULL,
       EXISTS (SELECT FROM process WHERE expires < n.now AND id <> $2)
FROM (SELECT clock_timestamp() + $1::interval AS now OFFSET 0) n;

-- name: heartbeat
INSERT INTO process (id, expires) VALUES ($1, clock_timestamp() + $2::interval + $3::interval)
ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;

-- name: leave
UPDATE process SET expires = '-infinity' WHERE id = $1;

-- Nobody takes this process for dead until the transaction is over: what it claims must have an owner whose end is
-- noticed. Its own heartbeat does not wait.
-- name: hold_lease
SELECT id FROM process WHERE id = $1 FOR KEY SHARE;

-- Not the one that asks: it lives, though its heartbeat may be late.
-- name: dead_processes
SELECT id FROM process WHERE expires < clock_timestamp() + $1::interval AND id <> $2 FOR UPDATE SKIP LOCKED;

-- name: delete_processes
DELETE FROM process WHERE id = ANY($1::uuid[]);

-- Those that are still to be started. Walks the whole of running; it does so only when a process has died.
-- name: lost_claims
SELECT r.task_id FROM running r
WHERE r.owner = ANY($1::uuid[]) AND (SELECT started_at FROM task_state WHERE id = r.task_id) IS NULL;

-- name: set_owner
UPDATE running SET owner = $1 WHERE task_id = ANY($2::uuid[]);

-- name: due
SELECT r.task_id, s.status, s.last_updated, s.timeout
FROM (SELECT task_id FROM running WHERE check_at <= $1 ORDER BY check_at LIMIT $2 FOR UPDATE SKIP LOCKED) r
CROSS JOIN LATERAL (SELECT status, last_updated, timeout FROM task_state WHERE id = r.task_id OFFSET 0) s;

-- name: maybe_dead_ends
SELECT seq, task_id FROM dead_end ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED;

-- Those of which no child has succeeded or may yet. An end is final; but a create may add a child, so whoever cancels them
-- asks again, under the lock on their states.
-- name: dead_ends
SELECT t.id FROM task t
WHERE t.id = ANY($1::uuid[]) AND NOT t.dead_end_barrier
  AND (SELECT status FROM task_state WHERE id = t.id) NOT IN (6, 7, 8)
  AND NOT EXISTS (
    SELECT FROM (SELECT child_id FROM link WHERE parent_id = t.id OFFSET 0) l
    CROSS JOIN LATERAL (SELECT status FROM task_state WHERE id = l.child_id OFFSET 0) c
    WHERE c.status NOT IN (7, 8)
  )
ORDER BY t.id;

-- name: delete_dead_ends
DELETE FROM dead_end WHERE seq = ANY($1::bigint[]);
