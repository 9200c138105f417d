-- name: insert_batch
INSERT INTO batch (id, requester, created_at, scope, metadata, on_complete) VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: insert_progress
INSERT INTO batch_progress (batch_id, remaining) VALUES (?1, ?2);

-- name: insert_kinds
INSERT INTO batch_kind (kind, batch_id) SELECT g.id, ?1 FROM given_id g;

-- name: insert_tasks
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, expected_count, dead_end_barrier,
                  metadata, rules, on_start, on_success, on_failure, created_at)
SELECT g.id, ?1, g.local_id, g.name, g.kind, g.host, g.priority, g.expected_count, g.dead_end_barrier,
       g.metadata, g.rules, g.on_start, g.on_success, g.on_failure, ?2
FROM given_task g;

-- name: insert_states
INSERT INTO task_state (id, status, unmet, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT g.id, g.status, g.unmet, g.last_updated, g.kind, g.timeout, g.has_children, g.end_actions, g.tells_batch
FROM given_state g;

-- name: insert_links
INSERT INTO link (parent_id, child_id, requires_success)
SELECT g.parent_id, g.child_id, g.requires_success FROM given_link g;

-- name: insert_shapes
INSERT INTO shape (id, type, kind, status, fields)
SELECT g.id, g.type, g.kind, g.status, g.fields FROM given_shape g WHERE true
ON CONFLICT (id) DO NOTHING;
