-- Opens every transaction that writes: bounds, so that a process that froze holds up nobody for long; and plans driven
-- from the arrays of ids, made once for each connection: the planner's guess for an array is often far off, a join over a
-- table of 200 000 rows costs ten times the look-ups, and planning costs more than most of these statements. (Without
-- sequential scans a hash join has nothing but what is looked up, too.)
-- The mark has the token of the transaction, by which to ask what became of it when the answer to COMMIT is lost.
-- name: open
WITH mark AS (INSERT INTO mark (token, committed) VALUES ($1, true))
SELECT set_config('lock_timeout', '10s', true),
       set_config('idle_in_transaction_session_timeout', '5s', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true);

-- Waits for the transaction if it is not over. False: it is not committed and never can be, since this mark is in the
-- way of its own.
-- name: became
INSERT INTO mark (token, committed) VALUES ($1, false)
ON CONFLICT (token) DO UPDATE SET committed = mark.committed RETURNING committed;

-- name: forget
DELETE FROM mark WHERE token = ANY($1::uuid[]);

-- What processes that died had not forgotten.
-- name: forget_old
DELETE FROM mark WHERE at < clock_timestamp() - interval '1 day';

-- The clock of the database, read after the locks are held.
-- name: now
SELECT clock_timestamp();

-- Those of the kinds $1 of which tasks leave a tally event when they change, and whether there is a rule of Capacity about
-- them. Index shape_tallied. Whoever reads it has an id as a transaction by then: see mark_horizons.
-- name: tallied_kinds
SELECT k.kind, EXISTS (SELECT FROM shape WHERE kind = k.kind AND (type <> 0 OR status <> 4) AND type = 1)
FROM unnest($1::text[]) AS k(kind)
WHERE EXISTS (SELECT FROM shape WHERE kind = k.kind AND (type <> 0 OR status <> 4));

-- The same for the kinds of the tasks $1. Where there is no tallied shape at all they are not looked at.
-- name: tallied_kinds_of
SELECT k.kind, EXISTS (SELECT FROM shape WHERE kind = k.kind AND (type <> 0 OR status <> 4) AND type = 1)
FROM (
    SELECT DISTINCT kind FROM task_state
    WHERE id = ANY($1::uuid[]) AND EXISTS (SELECT FROM shape WHERE type <> 0 OR status <> 4)
) k
WHERE EXISTS (SELECT FROM shape WHERE kind = k.kind AND (type <> 0 OR status <> 4));

-- In id order: whoever waits for several rows waits in the same order as everybody.
-- name: lock_states
SELECT id, status, unmet, success, failures, attempt, start_failures, start_status, start_error, claimed_at, started_at,
       ended_at, last_updated, failure_reason, kind, timeout, has_children, end_actions, tells_batch,
       ctid
FROM task_state WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE;

-- Those of the tasks $1 that retention has removed with their batch, and that are still to be deleted.
-- name: gone
SELECT u.id
FROM unnest($1::uuid[]) AS u(id) CROSS JOIN LATERAL (SELECT batch_id FROM task WHERE id = u.id OFFSET 0) t
WHERE NOT EXISTS (SELECT FROM (SELECT FROM batch WHERE id = t.batch_id OFFSET 0) b);

-- name: facts
SELECT id, batch_id, local_id, name, kind, priority, expected_count, dead_end_barrier, metadata, rules, on_start,
       on_success, on_failure, on_cancel, created_at
FROM task WHERE id = ANY($1::uuid[]);
