-- Retention works under a lock of its own, so that one process at a time does. It is the advisory lock with the number of a
-- table, which no schema of the database has twice.
-- name: lock_retention
SELECT pg_try_advisory_xact_lock('expired'::regclass::oid::bigint);

-- Those that may be over for longest, and until when each was needed: $1, which is now, while something of it is still to
-- come, else the end of its last task. What is to come are tasks, deliveries, and tasks that wait for one of it: a
-- parent's end may not have been told to them yet. Index batch_alive; the tasks of a batch along index task_batch, the
-- newest first, for these end last.
-- name: aged_batches
SELECT b.id, coalesce((
    SELECT $1::timestamptz
    FROM (SELECT id FROM task WHERE batch_id = b.id ORDER BY id DESC OFFSET 0) t
    CROSS JOIN LATERAL (SELECT ended_at, has_children FROM task_state WHERE id = t.id OFFSET 0) s
    WHERE s.ended_at IS NULL
       OR EXISTS (SELECT FROM (SELECT state FROM delivery WHERE source_id = t.id OFFSET 0) d WHERE d.state = 1)
       OR s.has_children AND EXISTS (
           SELECT FROM (SELECT child_id FROM link WHERE parent_id = t.id OFFSET 0) l
           CROSS JOIN LATERAL (SELECT ended_at FROM task_state WHERE id = l.child_id OFFSET 0) c WHERE c.ended_at IS NULL
       )
    LIMIT 1
), (
    SELECT $1::timestamptz
    WHERE EXISTS (SELECT FROM (SELECT remaining FROM batch_progress WHERE batch_id = b.id OFFSET 0) p WHERE p.remaining > 0)
       OR EXISTS (SELECT FROM (SELECT state FROM delivery WHERE source_id = b.id OFFSET 0) d WHERE d.state = 1)
), (
    SELECT max(s.ended_at)
    FROM (SELECT id FROM task WHERE batch_id = b.id OFFSET 0) t
    CROSS JOIN LATERAL (SELECT ended_at FROM task_state WHERE id = t.id OFFSET 0) s
), $1::timestamptz)
FROM (SELECT id FROM batch WHERE alive_at <= $2 ORDER BY alive_at LIMIT $3) b;

-- name: keep_alive
UPDATE batch b SET alive_at = u.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, at)
WHERE b.id = u.id AND b.id = ANY($1) AND b.alive_at < u.at;

-- Not those that somebody has kept alive since they were looked at. From here on no reader finds them.
-- name: expire_batches
WITH gone AS (DELETE FROM batch WHERE id = ANY($1::uuid[]) AND alive_at <= $2 RETURNING id, key),
     kept AS (INSERT INTO expired (batch_id) SELECT id FROM gone)
SELECT id, key FROM gone;

-- Not a key that has another batch by now.
-- name: delete_keys
DELETE FROM idempotency_key WHERE key = ANY($1::text[]) AND batch_id = ANY($2::uuid[]);

-- name: delete_progress
DELETE FROM batch_progress WHERE batch_id = ANY($1::uuid[]);

-- name: expired_batches
SELECT batch_id FROM expired ORDER BY batch_id LIMIT $1;

-- name: expired_tasks
SELECT t.id
FROM unnest($1::uuid[]) AS e(id) CROSS JOIN LATERAL (SELECT id FROM task WHERE batch_id = e.id ORDER BY id LIMIT $2) t
LIMIT $2;

-- Those to parents and to children, also of other batches. One between two of these tasks is found twice.
-- Nobody changes a link.
-- name: delete_links
DELETE FROM link WHERE ctid = ANY(ARRAY(
    SELECT l.at
    FROM unnest($1::uuid[]) AS u(id)
    CROSS JOIN LATERAL (
        SELECT ctid AS at FROM link WHERE parent_id = u.id UNION ALL SELECT ctid FROM link WHERE child_id = u.id
    ) l
    LIMIT $2
)) RETURNING true;

-- In the order of everybody who waits for several.
-- name: lock_deliveries_of
SELECT FROM (SELECT id FROM (SELECT id FROM delivery WHERE source_id = ANY($1::uuid[]) OFFSET 0) d ORDER BY id OFFSET 0) u
CROSS JOIN LATERAL (SELECT FROM delivery d WHERE d.id = u.id FOR UPDATE) l;

-- name: delete_attempts
DELETE FROM delivery_attempt WHERE delivery_id = ANY(ARRAY(SELECT id FROM delivery WHERE source_id = ANY($1::uuid[])));

-- name: delete_deliveries
DELETE FROM delivery WHERE source_id = ANY($1::uuid[]);

-- name: delete_history
DELETE FROM history WHERE task_id = ANY($1::uuid[]);

-- name: delete_rare_status
DELETE FROM rare_status WHERE status IN (7, 8) AND task_id = ANY($1::uuid[]);

-- The kinds of the batches of these tasks: with its last task, a batch has none left.
-- name: delete_kinds
DELETE FROM batch_kind WHERE ctid = ANY(ARRAY(
    SELECT (SELECT k.ctid FROM batch_kind k WHERE k.kind = t.kind AND k.batch_id = t.batch_id)
    FROM (SELECT DISTINCT kind, batch_id FROM (SELECT kind, batch_id FROM task WHERE id = ANY($1::uuid[]) OFFSET 0) t) t
));

-- name: delete_states
DELETE FROM task_state WHERE id = ANY($1::uuid[]);

-- name: delete_tasks
DELETE FROM task WHERE id = ANY($1::uuid[]);

-- name: delete_expired
DELETE FROM expired WHERE batch_id = ANY($1::uuid[])
                      AND NOT EXISTS (SELECT FROM (SELECT FROM task WHERE batch_id = expired.batch_id OFFSET 0) t);

-- Shapes of the type Lookup that have no task to find. So they have no tallies either. Index task_kind.
-- name: idle_lookups
SELECT id FROM shape
WHERE type = 2 AND version > 0 AND NOT EXISTS (SELECT FROM (SELECT FROM task WHERE kind = shape.kind OFFSET 0) t);

-- Behind the pump, and under the locks of the creates that look by them: none goes by a shape that the pump has forgotten.
-- name: next_epoch
UPDATE pump SET epoch = epoch + 1 WHERE shard = 0;

-- name: delete_lookups
DELETE FROM shape
WHERE id = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM (SELECT FROM task WHERE kind = shape.kind OFFSET 0) t);

-- Keeps the batches of deliveries from retention, and gives those deliveries that are not on their way out already. In the
-- order of the ids of batches, before the locks on deliveries.
-- name: keep_batches
WITH given AS MATERIALIZED (
    SELECT d.id, coalesce((SELECT batch_id FROM task WHERE id = d.source_id), d.source_id) AS batch_id
    FROM unnest($1::uuid[]) AS u(id) CROSS JOIN LATERAL (SELECT id, source_id FROM delivery WHERE id = u.id OFFSET 0) d
), kept AS (
    UPDATE batch SET alive_at = greatest(alive_at, clock_timestamp() + $2::interval)
    WHERE id = ANY(ARRAY(SELECT DISTINCT batch_id FROM given ORDER BY batch_id)) RETURNING id
)
SELECT given.id FROM given WHERE given.batch_id IN (SELECT id FROM kept);
