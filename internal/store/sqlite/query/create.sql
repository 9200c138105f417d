-- name: insert_batches
INSERT INTO batch (id, requester, created_at, scope, metadata, on_complete, key, alive_at)
SELECT g.id, g.requester, ?1, g.scope, g.metadata, g.on_complete, g.key, ?1 FROM given_batch g;

-- name: insert_progress
INSERT INTO batch_progress (batch_id, remaining) SELECT g.batch_id, g.remaining FROM given_progress g;

-- name: insert_kinds
INSERT INTO batch_kind (batch_id, kind) SELECT g.batch_id, g.kind FROM given_kind g;

-- name: insert_tasks
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, expected_count, dead_end_barrier,
                  metadata, rules, on_start, on_success, on_failure, created_at)
SELECT g.id, g.batch_id, g.local_id, g.name, g.kind, g.host, g.priority, g.expected_count, g.dead_end_barrier,
       g.metadata, g.rules, g.on_start, g.on_success, g.on_failure, ?1
FROM given_task g;

-- name: insert_states
INSERT INTO task_state (id, status, unmet, last_updated, ended_at, failure_reason, kind, timeout, has_children, end_actions,
                        tells_batch)
SELECT g.id, g.status, g.unmet, g.last_updated, g.ended_at, g.failure_reason, g.kind, g.timeout, g.has_children, g.end_actions, g.tells_batch
FROM given_state g;

-- name: insert_links
INSERT INTO link (parent_id, child_id, requires_success, settled)
SELECT g.parent_id, g.child_id, g.requires_success, g.settled FROM given_link g;

-- name: adopt_parents
UPDATE task_state SET has_children = 1 WHERE id IN (SELECT id FROM given_id) AND NOT has_children;

-- name: known_shapes_of
SELECT s.id FROM given_id g CROSS JOIN shape s ON s.id = g.id WHERE s.version > 0;

-- The newest task at each gate, but for what has changed since its tallies were found, and what is being removed.
-- name: find_duplicates
SELECT s.id, s.status, t.kind, t.metadata
FROM (
    SELECT (
        SELECT y.task_id FROM tally y
        WHERE y.gate_id = g.id AND NOT EXISTS (SELECT 1 FROM tally_event e WHERE e.task_id = y.task_id)
          AND NOT EXISTS (SELECT 1 FROM expired x WHERE x.batch_id = (SELECT t.batch_id FROM task t WHERE t.id = y.task_id))
        ORDER BY y.task_id DESC LIMIT 1
    ) AS task_id
    FROM given_id g
) f CROSS JOIN task t ON t.id = f.task_id CROSS JOIN task_state s ON s.id = f.task_id;

-- name: changed_tasks
SELECT s.id, s.status, t.kind, t.metadata
FROM (SELECT DISTINCT task_id FROM tally_event) e CROSS JOIN task t ON t.id = e.task_id CROSS JOIN task_state s ON s.id = e.task_id
WHERE NOT EXISTS (SELECT 1 FROM expired x WHERE x.batch_id = t.batch_id);

-- All tasks of kinds, which are given as ids, for shapes that the pump has not walked yet. Index task_kind.
-- name: of_kinds
SELECT s.id, s.status, t.kind, t.metadata
FROM given_id g CROSS JOIN task t ON t.kind = g.id CROSS JOIN task_state s ON s.id = t.id
WHERE NOT EXISTS (SELECT 1 FROM expired x WHERE x.batch_id = t.batch_id);

-- name: insert_shapes
INSERT INTO shape (id, type, kind, status, fields)
SELECT g.id, g.type, g.kind, g.status, g.fields FROM given_shape g WHERE true
ON CONFLICT (id) DO NOTHING;
