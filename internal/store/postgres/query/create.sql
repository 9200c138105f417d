-- name: insert_batches
INSERT INTO batch (id, requester, created_at, scope, metadata, on_complete, key, alive_at)
SELECT u.id, u.requester, $1, u.scope, u.metadata::json, u.on_complete::json, u.key, $1
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
  AS u(id, requester, scope, metadata, on_complete, key);

-- name: insert_progress
INSERT INTO batch_progress (batch_id, remaining) SELECT * FROM unnest($1::uuid[], $2::integer[]);

-- name: insert_kinds
INSERT INTO batch_kind (batch_id, kind) SELECT * FROM unnest($1::uuid[], $2::text[]);

-- Why unnest stands in the select list is said at update_states.
-- name: insert_tasks
INSERT INTO task (created_at, id, batch_id, local_id, name, kind, host, priority, expected_count, dead_end_barrier,
                  metadata, rules, on_start, on_success, on_failure)
SELECT $1, unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::text[]), unnest($5::text[]), unnest($6::text[]), unnest($7::text[]),
       unnest($8::smallint[]), unnest($9::bigint[]), unnest($10::boolean[]), unnest($11::text[])::json,
       unnest($12::text[])::json, unnest($13::text[])::json, unnest($14::text[])::json, unnest($15::text[])::json;

-- One that depends on a task that has failed already fails at once.
-- name: insert_states
INSERT INTO task_state (last_updated, id, status, unmet, ended_at, failure_reason, kind, timeout, has_children, end_actions,
                        tells_batch)
SELECT $1::timestamptz, u.id, u.status, u.unmet, CASE WHEN u.status = 7 THEN $1::timestamptz END, u.failure_reason, u.kind,
       u.timeout, u.has_children, u.end_actions, u.tells_batch
FROM (
    SELECT unnest($2::uuid[]) AS id, unnest($3::smallint[]) AS status, unnest($4::integer[]) AS unmet,
           unnest($5::text[]) AS failure_reason, unnest($6::text[]) AS kind, unnest($7::integer[]) AS timeout,
           unnest($8::boolean[]) AS has_children, unnest($9::boolean[]) AS end_actions, unnest($10::boolean[]) AS tells_batch
) u;

-- name: insert_links
INSERT INTO link (parent_id, child_id, requires_success, settled)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::boolean[]);

-- Under the lock of the rows.
-- name: adopt_parents
UPDATE task_state SET has_children = true
WHERE ctid = ANY(ARRAY(SELECT (SELECT ctid FROM task_state WHERE id = u.id) FROM unnest($1::uuid[]) AS u(id)))
  AND NOT has_children;

-- Whoever looks for duplicates by the same shapes waits here, so that it sees what the other has created. In the order of
-- the locks, of which there are 256: one request may name 200 000 shapes, and the memory for locks, which all databases of
-- a server share, has room for some thousand. Shapes that have one lock wait for each other in vain, for a commit.
-- name: lock_lookups
SELECT pg_advisory_xact_lock(u.lock)
FROM (SELECT DISTINCT id & 255 AS lock FROM unnest($1::bigint[]) AS u(id) ORDER BY lock OFFSET 0) u;

-- The newest task at each gate, and what has changed since its tallies were found, but for those that are being removed. It is one
-- statement, so that the pump cannot fold a change between the two.
-- name: find_duplicates
SELECT s.id, s.status, t.kind, t.metadata
FROM (
    SELECT (
        SELECT task_id FROM tally y
        WHERE gate_id = g.id AND NOT EXISTS (SELECT FROM tally_event e WHERE e.task_id = y.task_id OFFSET 0)
          AND NOT EXISTS (SELECT FROM expired WHERE batch_id = (SELECT batch_id FROM task WHERE id = y.task_id) OFFSET 0)
        ORDER BY task_id DESC LIMIT 1
    ) AS task_id
    FROM unnest($1::bigint[]) AS g(id)
    UNION ALL
    SELECT DISTINCT task_id FROM tally_event
) f
CROSS JOIN LATERAL (SELECT batch_id, kind, metadata FROM task WHERE id = f.task_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT id, status FROM task_state WHERE id = f.task_id OFFSET 0) s
WHERE t.kind = ANY($2::text[]) AND s.status = ANY($3::smallint[])
  AND NOT EXISTS (SELECT FROM expired WHERE batch_id = t.batch_id OFFSET 0);

-- All tasks of kinds, for shapes that the pump has not walked yet. Index task_kind.
-- name: of_kinds
SELECT s.id, s.status, t.kind, t.metadata
FROM unnest($1::text[]) AS k(kind)
CROSS JOIN LATERAL (SELECT id, batch_id, kind, metadata FROM task WHERE kind = k.kind OFFSET 0) t
CROSS JOIN LATERAL (SELECT id, status FROM task_state WHERE id = t.id OFFSET 0) s
WHERE s.status = ANY($2::smallint[]) AND NOT EXISTS (SELECT FROM expired WHERE batch_id = t.batch_id OFFSET 0);

-- In the order of their ids, so that two creates with the same shapes do not wait for each other in a circle.
-- name: insert_shapes
INSERT INTO shape (id, type, kind, status, fields)
SELECT u.id, u.type, u.kind, u.status, u.fields::json
FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::smallint[], $5::text[]) AS u(id, type, kind, status, fields)
ORDER BY u.id
ON CONFLICT (id) DO NOTHING;
