-- The writer's lock is the lock of the pump: there is one process, and one transaction at a time that writes.

-- name: known_shapes
SELECT id, type, kind, status, fields, version FROM shape WHERE version > ?1;

-- name: new_shapes
SELECT id, type, kind, status, fields, walked_to FROM shape WHERE version = 0;

-- Index task_kind.
-- name: walk_kind
SELECT s.id, s.status, s.claimed_at FROM task t CROSS JOIN task_state s ON s.id = t.id
WHERE t.kind = ?1 AND t.id > ?2 ORDER BY t.id LIMIT ?3;

-- name: set_walked
UPDATE shape SET walked_to = ?2 WHERE id = ?1;

-- name: take_tally_events
DELETE FROM tally_event WHERE seq IN (SELECT seq FROM tally_event ORDER BY seq LIMIT ?1) RETURNING task_id;

-- name: tallied_tasks
SELECT t.metadata, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM given_id g CROSS JOIN task t ON t.id = g.id CROSS JOIN task_state s ON s.id = g.id;

-- name: tallies
SELECT y.task_id, y.n, y.gate_id, coalesce(t.shape_id, 0), coalesce(t.vals, ''), coalesce(t.used, 0), coalesce(t.lanes, '[]'),
       coalesce(t.dirty, 0)
FROM given_id g CROSS JOIN tally y ON y.task_id = g.id LEFT JOIN gate t ON t.id = y.gate_id;

-- name: upsert_tallies
INSERT INTO tally (task_id, gate_id, n) SELECT g.task_id, g.gate_id, g.n FROM given_tally g WHERE true
ON CONFLICT (task_id, gate_id) DO UPDATE SET n = excluded.n;

-- name: delete_tallies
DELETE FROM tally WHERE (task_id, gate_id) IN (SELECT task_id, gate_id FROM given_tally);

-- name: mark_shapes
UPDATE shape SET version = (SELECT max(version) + 1 FROM shape) WHERE id IN (SELECT id FROM given_id) RETURNING version;

-- Running rows of kinds that a new shape counts. The kinds are given as ids.
-- name: holders
SELECT t.id, t.kind, t.metadata
FROM running r CROSS JOIN task t ON t.id = r.task_id
WHERE t.kind IN (SELECT id FROM given_id);

-- name: take_deltas
DELETE FROM gate_delta WHERE seq IN (SELECT seq FROM gate_delta ORDER BY seq LIMIT ?1) RETURNING gate_id, delta;

-- name: take_batch_deltas
DELETE FROM batch_delta WHERE seq IN (SELECT seq FROM batch_delta ORDER BY seq LIMIT ?1)
RETURNING batch_id, success, failure, canceled, ended_at;

-- No batch is given twice. Those that are complete now give their actions.
-- name: fold_batches
UPDATE batch_progress
SET remaining = remaining - g.success - g.failure - g.canceled, success = batch_progress.success + g.success,
    failure = batch_progress.failure + g.failure, canceled = batch_progress.canceled + g.canceled,
    ended_at = max(coalesce(batch_progress.ended_at, 0), g.ended_at)
FROM given_batch_delta g WHERE batch_progress.batch_id = g.batch_id
RETURNING batch_id, remaining = 0, iif(remaining = 0, (SELECT on_complete FROM batch WHERE id = batch_progress.batch_id), NULL);

-- Index gate_dirty.
-- name: dirty_gates
SELECT id, shape_id, vals, used, lanes, dirty FROM gate WHERE dirty AND id > ?2 ORDER BY id LIMIT ?1;

-- name: gates
SELECT t.id, t.shape_id, t.vals, t.used, t.lanes, t.dirty FROM given_id g CROSS JOIN gate t ON t.id = g.id;

-- Both in the order of their keys, so it stops at the limit.
-- name: events
SELECT e.seq, e.parent_id, e.succeeded, l.requires_success, s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM dep_event e LEFT JOIN link l ON l.parent_id = e.parent_id AND l.child_id > e.after_child AND NOT l.settled
LEFT JOIN task_state s ON s.id = l.child_id
ORDER BY e.seq, l.child_id LIMIT ?1;

-- The first ?3 by priority and age, ?1 of each host, but what ?2 says for those in it. The walk goes to the first of all hosts, and
-- then to the next one of its host: what it has not been to yet is a queue with one of each. So beyond finding the hosts it costs
-- what ?3 says. For a limit that is ?3 alone, SQLite would plan anew whenever ?3 changes; for the plus signs see woken.
-- name: ready
WITH RECURSIVE heads (host, rank, task_id) AS (
    SELECT * FROM (
        SELECT host, rank, task_id FROM ready WHERE host = (SELECT min(host) FROM ready) ORDER BY rank, task_id LIMIT 1
    )
    UNION ALL
    SELECT r.host, r.rank, r.task_id
    FROM heads h CROSS JOIN ready r
    WHERE (r.host, r.rank, r.task_id) = (
        SELECT q.host, q.rank, q.task_id FROM ready q WHERE q.host > h.host ORDER BY q.host, q.rank, q.task_id LIMIT 1
    )
), limits (host, n) AS MATERIALIZED (
    SELECT key, value FROM json_each(?2)
), walk (host, steps, rank, task_id) AS (
    SELECT h.host, coalesce(n, ?1), h.rank, h.task_id
    FROM heads h LEFT JOIN limits ON limits.host = h.host WHERE coalesce(n, ?1) > 0
    UNION ALL
    SELECT w.host, w.steps - 1, r.rank, r.task_id
    FROM walk w CROSS JOIN ready r
    WHERE w.steps > 1 AND r.host = w.host AND (r.rank, r.task_id) = (
        SELECT q.rank, q.task_id FROM ready q
        WHERE q.host = w.host AND (q.rank, q.task_id) > (+w.rank, +w.task_id) ORDER BY q.rank, q.task_id LIMIT 1
    )
    ORDER BY 3, 4 LIMIT ?3 + 0
)
SELECT t.id, t.kind, t.priority, t.host, t.metadata, t.rules, t.on_start, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM walk w CROSS JOIN task t ON t.id = w.task_id CROSS JOIN task_state s ON s.id = w.task_id;

-- name: pump_facts
SELECT t.id, t.kind, t.priority, t.host, t.metadata, t.rules, t.on_start, t.expected_count, t.on_failure
FROM given_id g CROSS JOIN task t ON t.id = g.id;

-- The first n of a lane by priority and age, of the heads of every host's part of it: as many as there is room for, ?1 for a
-- host, but what ?2 says for those in it; where there is none still one, behind all others, so that the lane does not seem
-- empty. Each step of the walk goes to the next one of a host in index parked_lane. The plus signs take the types off the
-- columns; with them, only the first one would be looked up in the index.
-- name: woken
WITH RECURSIVE hosts (gate_id, lane, n, host) AS (
    SELECT g.gate_id, g.lane, g.n, (SELECT min(q.host) FROM parked q WHERE q.gate_id = g.gate_id AND q.lane = g.lane)
    FROM given_wake g
    UNION ALL
    SELECT h.gate_id, h.lane, h.n, (SELECT min(q.host) FROM parked q WHERE q.gate_id = h.gate_id AND q.lane = h.lane AND q.host > h.host)
    FROM hosts h WHERE h.host IS NOT NULL
), rooms (host, room) AS MATERIALIZED (
    SELECT key, value FROM json_each(?2)
), lanes (gate_id, lane, n, host, room) AS (
    SELECT h.gate_id, h.lane, h.n, h.host, coalesce(r.room, ?1) FROM hosts h LEFT JOIN rooms r ON r.host = h.host WHERE h.host IS NOT NULL
), walk (gate_id, lane, n, host, room, steps, rank, task_id) AS (
    SELECT gate_id, lane, n, host, room, min(n, max(room, 1)), -1000000, x'' FROM lanes
    UNION ALL
    SELECT w.gate_id, w.lane, w.n, w.host, w.room, w.steps - 1, p.rank, p.task_id
    FROM walk w CROSS JOIN parked p
    WHERE w.steps > 0 AND p.task_id = (
        SELECT q.task_id FROM parked q
        WHERE q.gate_id = w.gate_id AND q.lane = w.lane AND q.host = w.host AND (q.rank, q.task_id) > (+w.rank, +w.task_id)
        ORDER BY q.rank, q.task_id LIMIT 1
    )
), heads (gate_id, lane, n, task_id, place) AS (
    SELECT gate_id, lane, n, task_id, row_number() OVER (PARTITION BY gate_id, lane ORDER BY room = 0, rank, task_id)
    FROM walk WHERE task_id <> x''
)
SELECT w.gate_id, w.lane, t.id, t.kind, t.priority, t.host, t.metadata, t.rules, t.on_start, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM heads w CROSS JOIN task t ON t.id = w.task_id CROSS JOIN task_state s ON s.id = w.task_id
WHERE w.place <= w.n;

-- name: delete_events
DELETE FROM dep_event WHERE seq IN (SELECT id FROM given_id);

-- name: advance_event
UPDATE dep_event SET seq = (SELECT max(seq) + 1 FROM dep_event), after_child = ?2 WHERE seq = ?1;

-- name: insert_running
INSERT INTO running (task_id, owner, gates, check_at) SELECT g.id, ?1, g.gates, g.check_at FROM given_claim g;

-- name: delete_ready
DELETE FROM ready WHERE (host, rank, task_id) IN (SELECT host, rank, id FROM given_ready);

-- name: upsert_parked
INSERT INTO parked (task_id, gate_id, lane, host, rank) SELECT g.id, g.gate_id, g.lane, g.host, g.rank FROM given_parked g WHERE true
ON CONFLICT (task_id) DO UPDATE SET gate_id = excluded.gate_id, lane = excluded.lane;

-- Appends arrays to arrays. No task is given twice.
-- name: hold_gates
UPDATE running
SET gates = (SELECT json_group_array(value) FROM (SELECT value FROM json_each(running.gates)
                                                  UNION ALL SELECT value FROM json_each(g.gates)))
FROM given_hold g WHERE running.task_id = g.id;

-- name: upsert_gates
INSERT INTO gate (id, shape_id, vals, used, lanes, dirty)
SELECT g.id, g.shape_id, g.vals, g.used, g.lanes, g.dirty FROM given_gate g WHERE true
ON CONFLICT (id) DO UPDATE SET used = excluded.used, lanes = excluded.lanes, dirty = excluded.dirty;

-- name: delete_gates
DELETE FROM gate WHERE id IN (SELECT id FROM given_id);
