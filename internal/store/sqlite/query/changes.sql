-- name: update_states
UPDATE task_state
SET status = g.status, unmet = g.unmet, success = g.success, failures = g.failures, attempt = g.attempt,
    start_failures = g.start_failures, start_status = g.start_status, start_error = g.start_error,
    claimed_at = g.claimed_at, started_at = g.started_at, ended_at = g.ended_at, last_updated = g.last_updated,
    failure_reason = g.failure_reason
FROM given_state g
WHERE task_state.id = g.id;

-- name: edit_tasks
UPDATE task
SET metadata = g.metadata, rules = g.rules, priority = g.priority, expected_count = g.expected_count, on_cancel = g.on_cancel
FROM given_edit g
WHERE task.id = g.id;

-- A slot is given back by whoever deletes the row, so exactly once. The deltas are summed up in Go.
-- name: release
DELETE FROM running WHERE task_id IN (SELECT id FROM given_id) RETURNING gates;

-- name: unqueue_ready
DELETE FROM ready WHERE (host, rank, task_id) IN (
    SELECT t.host, -t.priority, t.id FROM given_id g CROSS JOIN task t ON t.id = g.id
);

-- name: unqueue_parked
DELETE FROM parked WHERE task_id IN (SELECT id FROM given_id);

-- name: enqueue
INSERT INTO ready (host, rank, task_id)
SELECT t.host, -t.priority, t.id FROM given_id g CROSS JOIN task t ON t.id = g.id;

-- name: insert_ready
INSERT INTO ready (host, rank, task_id) SELECT g.host, g.rank, g.id FROM given_ready g;

-- name: insert_deltas
INSERT INTO gate_delta (gate_id, delta) SELECT g.gate_id, g.delta FROM given_delta g;

-- name: insert_tally_events
INSERT INTO tally_event (task_id) SELECT g.id FROM given_id g;

-- name: set_checks
UPDATE running SET check_at = g.check_at FROM given_check g WHERE running.task_id = g.id;

-- name: insert_events
INSERT INTO dep_event (parent_id, succeeded) SELECT g.parent_id, g.succeeded FROM given_event g;

-- One row for each batch.
-- name: insert_batch_deltas
INSERT INTO batch_delta (batch_id, success, failure, canceled, ended_at)
SELECT t.batch_id, sum(g.status = 6), sum(g.status = 7), sum(g.status = 8), max(g.ended_at)
FROM given_end g CROSS JOIN task t ON t.id = g.id GROUP BY t.batch_id;

-- name: count_late
UPDATE batch SET late = late + 1 WHERE id IN (SELECT t.batch_id FROM given_id g CROSS JOIN task t ON t.id = g.id);

-- name: insert_deliveries
INSERT INTO delivery (id, source_id, "trigger", place, host, next_at, created_at)
SELECT g.id, g.source_id, g."trigger", g.place, g.host, ?1, ?1 FROM given_delivery g WHERE true
ON CONFLICT DO NOTHING;

-- name: insert_history
INSERT INTO history (task_id, at, cause, status) SELECT g.task_id, g.at, g.cause, g.status FROM given_history g;

-- name: trim_history
DELETE FROM history WHERE seq IN (
    SELECT h.seq FROM given_id g CROSS JOIN history h ON h.task_id = g.id
    WHERE h.seq <= (SELECT n.seq FROM history n WHERE n.task_id = g.id ORDER BY n.seq DESC LIMIT 1 OFFSET ?1)
);

-- A parent whose only children are of other batches was wanted for itself, and is no dead end.
-- name: insert_dead_ends
INSERT INTO dead_end (task_id)
SELECT l.parent_id FROM given_id g CROSS JOIN link l ON l.child_id = g.id CROSS JOIN task p ON p.id = l.parent_id
WHERE EXISTS (
    SELECT 1 FROM link o CROSS JOIN task c ON c.id = o.child_id WHERE o.parent_id = p.id AND c.batch_id = p.batch_id
);
