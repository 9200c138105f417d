-- Those of the kinds that are given as ids of which tasks leave a tally event when they change, and whether there is a rule
-- of Capacity about them. Index shape_tallied.
-- name: tallied_kinds
SELECT g.id, EXISTS (SELECT 1 FROM shape s WHERE s.kind = g.id AND (s.type <> 0 OR s.status <> 4) AND s.type = 1)
FROM given_id g WHERE EXISTS (SELECT 1 FROM shape s WHERE s.kind = g.id AND (s.type <> 0 OR s.status <> 4));

-- name: any_tallied
SELECT EXISTS (SELECT 1 FROM shape WHERE type <> 0 OR status <> 4);

-- The transaction is the only one that writes: reading locks.

-- name: lock_states
SELECT s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM given_id g CROSS JOIN task_state s ON s.id = g.id;

-- Those of the tasks that are given that retention has removed with their batch, and that are still to be deleted.
-- name: gone
SELECT t.id FROM given_id g CROSS JOIN task t ON t.id = g.id
WHERE NOT EXISTS (SELECT 1 FROM batch b WHERE b.id = t.batch_id);

-- name: facts
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at
FROM given_id g CROSS JOIN task t ON t.id = g.id;
