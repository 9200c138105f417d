-- Takes keys that are free or older than $5, for the first create with each. It waits for creates that have taken the same
-- ones and are under way; in the order of the keys, so that no two wait for each other in a circle. A key that is taken is locked,
-- so that nobody forgets it before it is read.
-- name: take_keys
INSERT INTO idempotency_key AS k (key, digest, batch_id, created_at)
SELECT DISTINCT ON (u.key) u.key, u.digest, u.batch_id, clock_timestamp() + $4::interval
FROM unnest($1::text[], $2::bytea[], $3::uuid[]) WITH ORDINALITY AS u(key, digest, batch_id, n)
ORDER BY u.key, u.n
ON CONFLICT (key) DO UPDATE
SET digest = excluded.digest, batch_id = excluded.batch_id, created_at = excluded.created_at
WHERE k.created_at <= excluded.created_at - $5::interval;

-- name: keys
SELECT k.key, k.digest, k.batch_id
FROM unnest($1::text[]) AS u(key) CROSS JOIN LATERAL (SELECT * FROM idempotency_key WHERE key = u.key OFFSET 0) k;

-- The next three read a batch whole, along index task_batch. Each row of another table is looked up in a subquery of its
-- own, as in changes.sql.
-- name: batch_tasks
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = t.id OFFSET 0) s
WHERE t.batch_id = (SELECT id FROM batch WHERE id = $1) ORDER BY t.id;

-- name: batch_parents
SELECT t.id, l.parent_id, l.requires_success, (SELECT status FROM task_state WHERE id = l.parent_id)
FROM task t CROSS JOIN LATERAL (
    SELECT parent_id, requires_success FROM link WHERE child_id = t.id OFFSET 0
) l
WHERE t.batch_id = $1 ORDER BY t.id, l.parent_id;

-- name: batch_deliveries
SELECT d.source_id, d.id, d.trigger, d.place, d.state, d.failures, d.last_status, d.last_error,
       CASE WHEN d.state = 1 AND NOT d.leased THEN d.next_at END
FROM task t CROSS JOIN LATERAL (SELECT * FROM delivery WHERE source_id = t.id OFFSET 0) d
WHERE t.batch_id = $1 ORDER BY t.id, d.trigger, d.place;

-- The oldest $3 of those older than $2, but what a create holds just now. Index idempotency_key_created.
-- name: purge_keys
DELETE FROM idempotency_key WHERE key = ANY(ARRAY(
    SELECT key FROM idempotency_key WHERE created_at <= clock_timestamp() + $1::interval - $2::interval
    ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING true;
