-- name: insert_batch
INSERT INTO batch (id, requester, created_at, scope, metadata, on_complete) VALUES ($1, $2, $3, $4, $5::text::json, $6::text::json);

-- name: insert_progress
INSERT INTO batch_progress (batch_id, remaining) VALUES ($1, $2);

-- name: insert_kinds
INSERT INTO batch_kind (kind, batch_id) SELECT k, $1 FROM unnest($2::text[]) AS k;

-- name: insert_tasks
INSERT INTO task (id, batch_id, local_id, name, kind, host, priority, expected_count, dead_end_barrier,
                  metadata, rules, on_start, on_success, on_failure, created_at)
SELECT u.id, $1, u.local_id, u.name, u.kind, u.host, u.priority, u.expected_count, u.dead_end_barrier,
       u.metadata::json, u.rules::json, u.on_start::json, u.on_success::json, u.on_failure::json, $2
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $9::bigint[], $10::boolean[],
            $11::text[], $12::text[], $13::text[], $14::text[], $15::text[])
  AS u(id, local_id, name, kind, host, priority, expected_count, dead_end_barrier,
       metadata, rules, on_start, on_success, on_failure);

-- name: insert_states
INSERT INTO task_state (id, status, unmet, last_updated, kind, timeout, has_children, end_actions, tells_batch)
SELECT u.id, u.status, u.unmet, $1, u.kind, u.timeout, u.has_children, u.end_actions, u.tells_batch
FROM unnest($2::uuid[], $3::smallint[], $4::integer[], $5::text[], $6::integer[], $7::boolean[], $8::boolean[],
            $9::boolean[])
  AS u(id, status, unmet, kind, timeout, has_children, end_actions, tells_batch);

-- name: insert_links
INSERT INTO link (parent_id, child_id, requires_success)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]);

-- In the order of their ids, so that two creates with the same shapes do not wait for each other in a circle.
-- name: insert_shapes
INSERT INTO shape (id, type, kind, status, fields)
SELECT u.id, u.type, u.kind, u.status, u.fields::json
FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::smallint[], $5::text[]) AS u(id, type, kind, status, fields)
ORDER BY u.id
ON CONFLICT (id) DO NOTHING;
