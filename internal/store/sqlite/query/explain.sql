-- What explains why a task waits. Run on the readers, all in one snapshot.

-- name: unmet_parents
SELECT l.parent_id, t.name, s.status, l.requires_success
FROM link l CROSS JOIN task_state s ON s.id = l.parent_id CROSS JOIN task t ON t.id = l.parent_id
WHERE l.child_id = ?1 AND s.status NOT IN (6, 7, 8) ORDER BY l.parent_id LIMIT ?2;

-- Where it is parked, and how many are in front of it, of all hosts, up to ?2: index parked_lane. The plus signs take the
-- types off the columns; with them, only the first one would be looked up in the index.
-- name: parked_place
WITH RECURSIVE hosts (gate_id, lane, host) AS (
    SELECT p.gate_id, p.lane, (SELECT min(q.host) FROM parked q WHERE q.gate_id = p.gate_id AND q.lane = p.lane)
    FROM parked p WHERE p.task_id = ?1
    UNION ALL
    SELECT h.gate_id, h.lane, (SELECT min(q.host) FROM parked q WHERE q.gate_id = h.gate_id AND q.lane = h.lane AND q.host > h.host)
    FROM hosts h WHERE h.host IS NOT NULL
)
SELECT p.gate_id, (SELECT count(*) FROM (
    SELECT 1 FROM hosts h CROSS JOIN parked q
    WHERE q.gate_id = h.gate_id AND q.lane = h.lane AND q.host = h.host AND (q.rank, q.task_id) < (+p.rank, +p.task_id) LIMIT ?2
))
FROM parked p WHERE p.task_id = ?1;

-- The same for its place in the line for its host: primary key of ready.
-- name: ready_place
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM ready q WHERE q.host = t.host AND (q.rank, q.task_id) < (+r.rank, +r.task_id) LIMIT ?2
))
FROM task t CROSS JOIN ready r ON r.host = t.host AND r.rank = -t.priority AND r.task_id = t.id WHERE t.id = ?1;

-- name: orphaned
SELECT coalesce((SELECT expires FROM process WHERE id = r.owner) < ?2, 1) FROM running r WHERE r.task_id = ?1;

-- name: counted_shapes
SELECT id FROM shape WHERE id IN (SELECT value FROM json_each(?1)) AND version > 0;

-- name: gates_of
SELECT id, shape_id, vals, used, lanes, dirty FROM gate WHERE id IN (SELECT value FROM json_each(?1));

-- Walks what was given back since the last tick, which is little.
-- name: pending_deltas
SELECT gate_id, sum(delta) FROM gate_delta WHERE gate_id IN (SELECT value FROM json_each(?1)) GROUP BY gate_id;

-- Tasks of the kinds ?2 that have changed since their tallies were found, of the first ?1 changes, and those tallies.
-- name: unfolded_tasks
SELECT t.metadata, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM (SELECT DISTINCT task_id FROM (SELECT task_id FROM tally_event ORDER BY seq LIMIT ?1)) u
CROSS JOIN task t ON t.id = u.task_id CROSS JOIN task_state s ON s.id = u.task_id
WHERE t.kind IN (SELECT value FROM json_each(?2));

-- name: unfolded_tallies
SELECT y.task_id, y.n, y.gate_id, coalesce(t.shape_id, 0), coalesce(t.vals, ''), coalesce(t.used, 0), coalesce(t.lanes, '[]'),
       coalesce(t.dirty, 0)
FROM (SELECT DISTINCT task_id FROM (SELECT task_id FROM tally_event ORDER BY seq LIMIT ?1)) u
CROSS JOIN tally y ON y.task_id = u.task_id LEFT JOIN gate t ON t.id = y.gate_id;

-- Those that hold a slot of gate ?1, no more than there are: walks running as far as the last of them. An index on
-- gates would cost every start and every end. Few rows pass the search of the text, which costs much less.
-- name: gate_holders
SELECT task_id FROM running
WHERE instr(gates, ?1) > 0 AND ?1 IN (SELECT CAST(value AS TEXT) FROM json_each(running.gates))
ORDER BY task_id LIMIT ?2;

-- Those of a tallied gate. Index tally_gate.
-- name: tally_holders
SELECT task_id FROM tally WHERE gate_id = ?1 ORDER BY task_id LIMIT ?2;

-- A page of gates, which one of those that follow picks, in the order of their ids.
-- name: limits
SELECT g.id, g.shape_id, g.vals, g.used, (
           SELECT json_group_array(l.value) FROM json_each(g.lanes) l
           WHERE EXISTS (SELECT 1 FROM parked p WHERE p.gate_id = g.id AND p.lane = l.value)
       ), g.dirty, s.type, s.kind, s.status, s.fields,
       (SELECT count(*) FROM (SELECT 1 FROM parked p WHERE p.gate_id = g.id LIMIT ?3))
FROM (
%s
) p CROSS JOIN gate g ON g.id = p.id CROSS JOIN shape s ON s.id = g.shape_id
ORDER BY p.id;

-- name: limits_by_id
SELECT id FROM gate WHERE id > ?1 ORDER BY id LIMIT ?2

-- The first of each shape of a kind, of which a page is sorted: index gate_shape. There are few shapes.
-- name: limits_by_kind
SELECT g.id
FROM shape s CROSS JOIN gate g ON g.id IN (SELECT id FROM gate WHERE shape_id = s.id AND id > ?1 ORDER BY id LIMIT ?2)
WHERE (?4 = '' OR s.kind = ?4) AND (?5 = '' OR instr(s.kind, ?5) = 1)
ORDER BY g.id LIMIT ?2
