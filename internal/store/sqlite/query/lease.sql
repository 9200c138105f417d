-- What there is to do. Indexes delivery_due, running_check, gate_dirty and shape_version.
-- name: work
WITH RECURSIVE hosts (host) AS (
    SELECT min(host) FROM delivery WHERE state = 1
    UNION ALL
    SELECT (SELECT min(d.host) FROM delivery d WHERE d.state = 1 AND d.host > hosts.host) FROM hosts WHERE hosts.host IS NOT NULL
)
SELECT (SELECT min(host) FROM ready) IS NOT NULL
           OR coalesce((SELECT min(seq) FROM dep_event), (SELECT min(seq) FROM gate_delta), (SELECT min(seq) FROM batch_delta),
                       (SELECT min(seq) FROM tally_event), (SELECT min(id) FROM gate WHERE dirty)) IS NOT NULL
           OR coalesce((SELECT min(version) FROM shape) = 0, 0),
       EXISTS (SELECT 1 FROM hosts WHERE (SELECT min(next_at) FROM delivery WHERE state = 1 AND host = hosts.host) <= ?1),
       coalesce((SELECT min(check_at) FROM running) <= ?1, 0),
       (SELECT min(seq) FROM dead_end) IS NOT NULL,
       EXISTS (SELECT 1 FROM process WHERE expires < ?1 AND id <> ?2);

-- name: heartbeat
INSERT INTO process (id, expires) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;

-- name: leave
UPDATE process SET expires = 0 WHERE id = ?1;

-- Run once, before anything else: no process that had a lease lives any more.
-- name: leave_all
UPDATE process SET expires = 0;

-- Likewise for deliveries.
-- name: release_deliveries
UPDATE delivery SET leased = 0, next_at = ?1 WHERE state = 1 AND leased;

-- Not the one that asks: it lives, though its heartbeat may have waited for long behind a big create.
-- name: dead_processes
SELECT id FROM process WHERE expires < ?1 AND id <> ?2;

-- name: delete_processes
DELETE FROM process WHERE id IN (SELECT id FROM given_id);

-- Walks the whole of running; it does so only when a process has died.
-- name: lost_claims
SELECT task_id FROM running WHERE owner IN (SELECT id FROM given_id);

-- name: set_owner
UPDATE running SET owner = ?1 WHERE task_id IN (SELECT id FROM given_id);

-- Index running_check.
-- name: due
SELECT r.task_id, s.status, s.last_updated, s.timeout
FROM running r CROSS JOIN task_state s ON s.id = r.task_id
WHERE r.check_at <= ?1 ORDER BY r.check_at LIMIT ?2;

-- name: maybe_dead_ends
SELECT seq, task_id FROM dead_end ORDER BY seq LIMIT ?1;

-- Those of which no child has succeeded or may yet. An end is final; but a create may add a child, so whoever cancels them
-- asks again, under the lock on their states.
-- name: dead_ends
SELECT t.id FROM given_id g CROSS JOIN task t ON t.id = g.id CROSS JOIN task_state s ON s.id = g.id
WHERE NOT t.dead_end_barrier AND s.status NOT IN (6, 7, 8) AND NOT EXISTS (
    SELECT 1 FROM link l CROSS JOIN task_state c ON c.id = l.child_id
    WHERE l.parent_id = t.id AND c.status NOT IN (7, 8)
);

-- name: delete_dead_ends
DELETE FROM dead_end WHERE seq IN (SELECT id FROM given_id);
