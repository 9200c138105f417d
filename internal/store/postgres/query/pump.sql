-- All of this runs under the lock of the pump, which is taken by a statement of its own, before anything is read: a
-- statement that waited for the lock would read as of before it. Those that follow it in the same round trip ask whether
-- it got the lock, if they lock or delete anything.

-- Nobody takes this process for dead until the transaction is over: what it claims must have an owner whose end is
-- noticed. The setting must not be made before the row is locked, so this cannot be one SELECT. A tick that follows outcomes ($2)
-- locks rows in an order that is not everybody's, and their callers wait: it gives up soon where it has to wait.
-- name: lock_pump
SELECT set_config('taskrunner.pump', 'locked', true),
       set_config('lock_timeout', CASE WHEN $2 THEN '50ms' ELSE current_setting('lock_timeout') END, true),
       EXISTS (SELECT FROM process WHERE id = $1 FOR KEY SHARE), l.epoch
FROM (SELECT epoch FROM pump WHERE shard = 0 FOR UPDATE SKIP LOCKED) l;

-- name: tell_pump
SELECT nextval('pump_busy');

-- Behind all that locks: the time is that of this statement. Whether there are unknown shapes, dirty gates, and tally events.
-- Each table is asked for its first row, as in work.
-- name: look_for_rare
SELECT clock_timestamp(), (SELECT last_value + is_called::integer FROM pump_busy),
       coalesce((SELECT version FROM shape ORDER BY version LIMIT 1) = 0, false)
           OR coalesce((SELECT version FROM shape ORDER BY version DESC LIMIT 1) > $1, false),
       (SELECT id FROM gate WHERE dirty AND id > $2 ORDER BY id LIMIT 1) IS NOT NULL,
       (SELECT seq FROM tally_event ORDER BY seq LIMIT 1) IS NOT NULL;

-- name: unknown_shapes
SELECT id, type, kind, status, fields, version, coalesce(horizon > '0'::xid8, false),
       coalesce(horizon > '0'::xid8 AND pg_snapshot_xmin(pg_current_snapshot()) > horizon, false), walked_to
FROM shape WHERE version = 0
UNION ALL
SELECT id, type, kind, status, fields, version, false, false, walked_to FROM shape WHERE version > $1;

-- Two ticks mark a shape. The first one has seen it committed; the second one got its id after that, and so did every
-- transaction with a greater id: all that those read later has the shape. Once the ids up to it are over, everybody knows.
-- (The snapshot's xmax would not do: it is the first id that is not over yet, and others may have been given.)
-- name: mark_horizons
UPDATE shape SET horizon = CASE WHEN horizon IS NULL THEN '0'::xid8 ELSE pg_current_xact_id() END WHERE id = ANY($1::bigint[]);

-- Index task_kind.
-- name: walk_kinds
SELECT w.n, s.id, s.status, s.claimed_at
FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS w(kind, after, n)
CROSS JOIN LATERAL (SELECT id FROM task WHERE kind = w.kind AND id > w.after ORDER BY id LIMIT $3) t
CROSS JOIN LATERAL (SELECT id, status, claimed_at FROM task_state WHERE id = t.id OFFSET 0) s
ORDER BY w.n, s.id;

-- name: set_walked
UPDATE shape SET walked_to = u.after FROM unnest($1::bigint[], $2::uuid[]) AS u(id, after)
WHERE shape.id = u.id AND shape.id = ANY($1);

-- name: take_tally_events
DELETE FROM tally_event WHERE seq = ANY(ARRAY(SELECT seq FROM tally_event ORDER BY seq LIMIT $1))
                          AND current_setting('taskrunner.pump', true) = 'locked'
RETURNING task_id;

-- name: tallied_tasks
SELECT t.metadata, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM unnest($1::uuid[]) AS u(id)
CROSS JOIN LATERAL (SELECT metadata, expected_count FROM task WHERE id = u.id OFFSET 0) t
CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = u.id OFFSET 0) s;

-- name: tallies
SELECT y.task_id, y.n, y.gate_id, coalesce(g.shape_id, 0), coalesce(g.vals, ''), coalesce(g.used, 0),
       coalesce(g.lanes, '{}'), coalesce(g.dirty, false)
FROM unnest($1::uuid[]) AS u(id)
CROSS JOIN LATERAL (SELECT task_id, gate_id, n FROM tally WHERE task_id = u.id OFFSET 0) y
LEFT JOIN LATERAL (SELECT * FROM gate WHERE id = y.gate_id OFFSET 0) g ON true;

-- name: upsert_tallies
INSERT INTO tally (task_id, gate_id, n) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
ON CONFLICT (task_id, gate_id) DO UPDATE SET n = excluded.n;

-- name: delete_tallies
DELETE FROM tally WHERE ctid = ANY(ARRAY(
    SELECT (SELECT ctid FROM tally WHERE task_id = u.task_id AND gate_id = u.gate_id)
    FROM unnest($1::uuid[], $2::bigint[]) AS u(task_id, gate_id)
));

-- name: mark_shapes
UPDATE shape SET version = (SELECT max(version) + 1 FROM shape) WHERE id = ANY($1::bigint[]) RETURNING version;

-- Running rows of kinds that a new shape counts; locked, so that none of them ends uncounted.
-- name: holders
WITH held AS MATERIALIZED (SELECT task_id FROM running ORDER BY task_id FOR UPDATE)
SELECT held.task_id, t.kind, t.metadata
FROM held CROSS JOIN LATERAL (SELECT kind, metadata FROM task WHERE id = held.task_id OFFSET 0) t
WHERE t.kind = ANY($1::text[]);

-- The batches that were told of ends, each with how many rows told it, and with its actions if it is complete now. Nobody
-- else writes batch_progress.
-- name: fold_batches
WITH taken AS (
    DELETE FROM batch_delta WHERE seq = ANY(ARRAY(SELECT seq FROM batch_delta WHERE seq >= $2 ORDER BY seq LIMIT $1))
                              AND current_setting('taskrunner.pump', true) = 'locked'
    RETURNING seq, batch_id, success, failure, canceled, ended_at
), summed AS (
    SELECT batch_id, sum(success)::integer AS success, sum(failure)::integer AS failure, sum(canceled)::integer AS canceled,
           max(ended_at) AS ended_at, count(*)::integer AS n, max(seq) AS last
    FROM taken GROUP BY batch_id
), folded AS (
    UPDATE batch_progress p
    SET remaining = p.remaining - u.success - u.failure - u.canceled, success = p.success + u.success,
        failure = p.failure + u.failure, canceled = p.canceled + u.canceled, ended_at = greatest(p.ended_at, u.ended_at)
    FROM (
        SELECT summed.*, (SELECT ctid FROM batch_progress WHERE batch_id = summed.batch_id) AS at FROM summed
        OFFSET 0
    ) u
    WHERE p.ctid = u.at
    RETURNING p.batch_id, p.remaining, u.n, u.last
)
SELECT batch_id, n, last, remaining = 0, CASE WHEN remaining = 0 THEN (SELECT on_complete FROM batch WHERE id = batch_id) END
FROM folded;

-- A gate of which there are deltas is there: its slots are still counted as used. So is the progress of a batch, above.
-- name: take_deltas
WITH taken AS (
    DELETE FROM gate_delta WHERE seq = ANY(ARRAY(SELECT seq FROM gate_delta WHERE seq >= $2 ORDER BY seq LIMIT $1))
                             AND current_setting('taskrunner.pump', true) = 'locked'
    RETURNING seq, gate_id, delta
), summed AS (
    SELECT gate_id, sum(delta)::integer AS delta, count(*)::integer AS n, max(seq) AS last FROM taken GROUP BY gate_id
)
SELECT g.id, g.shape_id, g.vals, g.used, g.lanes, g.dirty, summed.delta, summed.n, summed.last
FROM summed CROSS JOIN LATERAL (SELECT * FROM gate WHERE id = summed.gate_id OFFSET 0) g;

-- name: dirty_gates
SELECT id, shape_id, vals, used, lanes, dirty FROM gate WHERE dirty AND id > $2 ORDER BY id LIMIT $1;

-- name: gates
SELECT id, shape_id, vals, used, lanes, dirty FROM gate WHERE id = ANY($1::bigint[]);

-- Children are locked in id order, like everywhere, so in another order than that of the events. Those that start by an
-- event alone come with their facts, unless they were edited while it waited for the lock; see ready.
-- name: events
SELECT c.seq, c.parent_id, c.succeeded, c.requires_success,
       t.id IS NOT NULL, coalesce(t.priority, 0), coalesce(t.host, ''), t.metadata, t.rules, t.on_start, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch, s.ctid
FROM (
    SELECT * FROM (
        SELECT e.seq, e.parent_id, e.succeeded, l.child_id, coalesce(l.requires_success, false) AS requires_success
        FROM (SELECT seq, parent_id, succeeded, after_child FROM dep_event WHERE seq >= $2 ORDER BY seq LIMIT $1) e
        LEFT JOIN LATERAL (
            SELECT child_id, requires_success FROM link
            WHERE parent_id = e.parent_id AND child_id > e.after_child AND NOT settled ORDER BY child_id LIMIT $1
        ) l ON true
        WHERE current_setting('taskrunner.pump', true) = 'locked'
        ORDER BY e.seq, l.child_id LIMIT $1
    ) l ORDER BY child_id LIMIT $1
) c LEFT JOIN LATERAL (SELECT *, ctid, xmin AS version FROM task_state WHERE id = c.child_id FOR UPDATE) s ON true
LEFT JOIN LATERAL (
    SELECT * FROM task
    WHERE id = s.id AND s.status = 1 AND s.unmet = 1 AND (c.succeeded OR NOT c.requires_success)
      AND s.version = (SELECT xmin FROM task_state WHERE id = s.id)
    OFFSET 0
) t ON true
ORDER BY c.seq, s.id;

-- Where each queue begins. It walks what is dead before that.
-- name: queue_heads
WITH RECURSIVE lanes AS (
    (SELECT host, rank, task_id FROM ready ORDER BY host, rank, task_id LIMIT 1)
    UNION ALL
    SELECT next.host, next.rank, next.task_id FROM lanes CROSS JOIN LATERAL (
        SELECT host, rank, task_id FROM ready WHERE host > lanes.host ORDER BY host, rank, task_id LIMIT 1
    ) next
)
SELECT 'ready', host, rank, 0::bigint, task_id FROM lanes
UNION ALL SELECT 'dep_event', '', 0::smallint, seq, '00000000-0000-0000-0000-000000000000'::uuid FROM (SELECT seq FROM dep_event ORDER BY seq LIMIT 1) q
UNION ALL SELECT 'gate_delta', '', 0::smallint, seq, '00000000-0000-0000-0000-000000000000'::uuid FROM (SELECT seq FROM gate_delta ORDER BY seq LIMIT 1) q
UNION ALL SELECT 'batch_delta', '', 0::smallint, seq, '00000000-0000-0000-0000-000000000000'::uuid FROM (SELECT seq FROM batch_delta ORDER BY seq LIMIT 1) q;

-- The first $5 by priority and age, of so many of each lane from its head on.
-- The state rows are locked if that needs no waiting: others may hold one and wait for a child that the pump holds. The
-- lock gives the newest version of a state row; the rest is as of the beginning of the statement. An edit in between
-- writes both, so a row that still has the version that was seen at the beginning has the facts that were seen; the
-- others are given without a state.
-- name: ready
SELECT r.place, t.id, t.kind, t.priority, t.host, t.metadata, t.rules, t.on_start, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch, s.ctid
FROM (
    SELECT r.task_id, r.place
    FROM unnest($1::text[], $2::smallint[], $3::uuid[], $4::integer[]) AS lane(host, rank, task_id, n)
    CROSS JOIN LATERAL (
        SELECT rank, task_id, ctid AS place FROM ready
        WHERE host = lane.host AND (rank, task_id) >= (lane.rank, lane.task_id) ORDER BY rank, task_id LIMIT lane.n
    ) r
    WHERE current_setting('taskrunner.pump', true) = 'locked'
    ORDER BY r.rank, r.task_id LIMIT $5
) r
CROSS JOIN LATERAL (SELECT * FROM task WHERE id = r.task_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT ctid, xmin FROM task_state WHERE id = r.task_id OFFSET 0) seen
LEFT JOIN LATERAL (SELECT *, ctid, xmin AS version FROM task_state WHERE ctid = seen.ctid FOR UPDATE SKIP LOCKED) s
       ON s.version = seen.xmin;

-- name: pump_facts
SELECT id, kind, priority, host, metadata, rules, on_start, expected_count, on_failure FROM task WHERE id = ANY($1::uuid[]);

-- The first n of a lane by priority and age, of the heads of every host's part of it: as many as there is room for, $4 for a
-- host, but what $5 says for those in it; where there is none still one, behind all others, so that the lane does not seem
-- empty. Locked like ready tasks.
-- name: woken
SELECT w.gate_id, w.lane, t.id, t.kind, t.priority, t.host, t.metadata, t.rules, t.on_start, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch, s.ctid
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w(gate_id, lane, n)
CROSS JOIN LATERAL (
    WITH RECURSIVE hosts AS (
        (SELECT host FROM parked WHERE gate_id = w.gate_id AND lane = w.lane ORDER BY host LIMIT 1)
        UNION ALL
        SELECT (
            SELECT q.host FROM parked q WHERE q.gate_id = w.gate_id AND q.lane = w.lane AND q.host > hosts.host ORDER BY q.host LIMIT 1
        )
        FROM hosts WHERE hosts.host IS NOT NULL
    ), lanes AS (
        SELECT hosts.host, coalesce(($5::jsonb ->> hosts.host)::integer, $4) AS room FROM hosts WHERE hosts.host IS NOT NULL
    )
    SELECT q.task_id
    FROM lanes
    CROSS JOIN LATERAL (
        SELECT rank, task_id FROM parked
        WHERE parked.gate_id = w.gate_id AND parked.lane = w.lane AND parked.host = lanes.host
        ORDER BY rank, task_id LIMIT least(w.n, greatest(lanes.room, 1))
    ) q
    ORDER BY lanes.room = 0, q.rank, q.task_id LIMIT w.n
) p
CROSS JOIN LATERAL (SELECT * FROM task WHERE id = p.task_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT ctid, xmin FROM task_state WHERE id = p.task_id OFFSET 0) seen
LEFT JOIN LATERAL (SELECT *, ctid, xmin AS version FROM task_state WHERE ctid = seen.ctid FOR UPDATE SKIP LOCKED) s
       ON s.version = seen.xmin;

-- name: delete_events
DELETE FROM dep_event WHERE seq = ANY($1::bigint[]);

-- name: advance_event
UPDATE dep_event SET seq = DEFAULT, after_child = $2 WHERE seq = $1;

-- name: insert_running
INSERT INTO running (task_id, owner, gates, check_at)
SELECT u.id, $1, u.gates::bigint[], u.check_at
FROM unnest($2::uuid[], $3::text[], $4::timestamptz[]) AS u(id, gates, check_at);

-- As update_states.
-- name: delete_ready
WITH gone AS (DELETE FROM ready WHERE ctid = ANY($1::tid[]) RETURNING true)
SELECT CASE WHEN count(*) <> cardinality($1) THEN ('delete_ready: not ' || cardinality($1) || ' but ' || count(*))::integer END
FROM gone;

-- name: upsert_parked
INSERT INTO parked (task_id, gate_id, lane, host, rank)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[])
ON CONFLICT (task_id) DO UPDATE SET gate_id = excluded.gate_id, lane = excluded.lane;

-- name: hold_gates
UPDATE running r SET gates = r.gates || u.gates
FROM (
    SELECT array_agg(h.gate_id) AS gates, (SELECT ctid FROM running WHERE task_id = h.id) AS at
    FROM unnest($1::uuid[], $2::bigint[]) AS h(id, gate_id) GROUP BY h.id
    OFFSET 0
) u
WHERE r.ctid = u.at;

-- name: upsert_gates
INSERT INTO gate (id, shape_id, vals, used, lanes, dirty)
SELECT u.id, u.shape_id, u.vals, u.used, u.lanes::bigint[], u.dirty
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::boolean[])
  AS u(id, shape_id, vals, used, lanes, dirty)
ON CONFLICT (id) DO UPDATE SET used = excluded.used, lanes = excluded.lanes, dirty = excluded.dirty;

-- name: delete_gates
DELETE FROM gate WHERE id = ANY($1::bigint[]);
