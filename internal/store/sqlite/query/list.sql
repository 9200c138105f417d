-- Run on the readers, which see one moment but hold up nobody.

-- name: task
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.id = ?1;

-- name: parents
SELECT l.parent_id, l.requires_success, s.status
FROM link l CROSS JOIN task_state s ON s.id = l.parent_id WHERE l.child_id = ?1 ORDER BY l.parent_id;

-- name: deliveries
SELECT "trigger", place, state, failures, last_status, last_error
FROM delivery WHERE task_id = ?1 ORDER BY "trigger", place;

-- The lists begin like this; one of the three that follow, their conditions and order are added.
-- name: tasks
SELECT t.id, t.batch_id, t.local_id, t.name, t.priority, t.expected_count, t.dead_end_barrier, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions

-- By the facts: the newest, those of a batch or a kind (indexes task_batch, task_kind).
-- name: tasks_by_facts
FROM task t CROSS JOIN task_state s ON s.id = t.id

-- When only the state decides: its rows are much smaller.
-- name: tasks_by_state
FROM task_state s CROSS JOIN task t ON t.id = s.id

-- When only tasks in a place are wanted. Each part but ready is in order.
-- name: tasks_by_place
FROM (
    SELECT task_id FROM running UNION ALL SELECT task_id FROM parked UNION ALL SELECT task_id FROM ready
    ORDER BY task_id DESC
) p CROSS JOIN task_state s ON s.id = p.task_id CROSS JOIN task t ON t.id = p.task_id

-- name: tasks_by_running
FROM running p CROSS JOIN task_state s ON s.id = p.task_id CROSS JOIN task t ON t.id = p.task_id

-- Whether there are few ready tasks: they have to be sorted by age for a list.
-- name: few_ready
SELECT count(*) < ?1 FROM (SELECT 1 FROM ready LIMIT ?1);

-- name: batch
SELECT requester, created_at FROM batch WHERE id = ?1;

-- Index task_batch alone has the ids.
-- name: batch_counts
SELECT s.status, count(*)
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = ?1 GROUP BY s.status;

-- Sums in two parts, high and low: one could be greater than a number can.
-- name: batch_sums
SELECT count(*), count(t.expected_count),
       coalesce(sum(s.success >> 32), 0), coalesce(sum(s.success & 0xffffffff), 0),
       coalesce(sum(s.failures >> 32), 0), coalesce(sum(s.failures & 0xffffffff), 0),
       coalesce(sum(t.expected_count >> 32), 0), coalesce(sum(t.expected_count & 0xffffffff), 0)
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = ?1;

-- name: dag_links
SELECT l.parent_id, l.child_id, l.requires_success
FROM task t CROSS JOIN link l ON l.child_id = t.id WHERE t.batch_id = ?1 ORDER BY l.child_id, l.parent_id;

-- One statement, so one moment: what running rows hold against what gates say, deltas on their way included.
-- name: drift
SELECT count(*) FROM (
    SELECT gate_id FROM (
        SELECT held.value AS gate_id, 1 AS n FROM running CROSS JOIN json_each(running.gates) held
        UNION ALL SELECT id, -used FROM gate
        UNION ALL SELECT gate_id, -delta FROM gate_delta
    ) GROUP BY gate_id HAVING sum(n) <> 0
);
