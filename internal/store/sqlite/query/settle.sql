-- The kinds of which tasks leave a tally event when they change. Index shape_tallied.
-- name: tallied_kinds
SELECT DISTINCT kind FROM shape WHERE type <> 0 OR status <> 4;

-- The transaction is the only one that writes: reading locks.

-- name: lock_states
SELECT s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM given_id g CROSS JOIN task_state s ON s.id = g.id;

-- name: facts
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at
FROM given_id g CROSS JOIN task t ON t.id = g.id;
