-- Takes keys that are free or not younger than ?2, for the first create with each.
-- name: take_keys
INSERT INTO idempotency_key AS k (key, digest, batch_id, created_at)
SELECT g.key, g.digest, g.batch_id, ?1 FROM given_key g WHERE true
ON CONFLICT (key) DO UPDATE
SET digest = excluded.digest, batch_id = excluded.batch_id, created_at = excluded.created_at
WHERE k.created_at <= ?2;

-- name: keys
SELECT k.key, k.digest, k.batch_id FROM given_key g CROSS JOIN idempotency_key k ON k.key = g.key;

-- The next three read a batch whole, along index task_batch.
-- name: batch_tasks
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = (SELECT id FROM batch WHERE id = ?1) ORDER BY t.id;

-- name: batch_parents
SELECT l.child_id, l.parent_id, l.requires_success, s.status
FROM task t CROSS JOIN link l ON l.child_id = t.id CROSS JOIN task_state s ON s.id = l.parent_id
WHERE t.batch_id = ?1 ORDER BY t.id, l.parent_id;

-- name: batch_deliveries
SELECT d.source_id, d.id, d."trigger", d.place, d.state, d.failures, d.last_status, d.last_error,
       CASE WHEN d.state = 1 AND NOT d.leased THEN d.next_at END
FROM task t CROSS JOIN delivery d ON d.source_id = t.id
WHERE t.batch_id = ?1 ORDER BY t.id, d."trigger", d.place;

-- The oldest ?2 of those not younger than ?1. Index idempotency_key_created.
-- name: purge_keys
DELETE FROM idempotency_key
WHERE key IN (SELECT key FROM idempotency_key WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)
RETURNING 1;
