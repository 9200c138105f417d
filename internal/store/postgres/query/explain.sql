-- What explains why a task waits, all in one snapshot, and in plans that are pinned like those of the hot path: it must
-- cost the same however many tasks are parked.

-- name: pin_plans
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: unmet_parents
SELECT l.parent_id, (SELECT name FROM task WHERE id = l.parent_id), s.status, l.requires_success
FROM (SELECT parent_id, requires_success FROM link WHERE child_id = $1 OFFSET 0) l
CROSS JOIN LATERAL (SELECT status FROM task_state WHERE id = l.parent_id OFFSET 0) s
WHERE s.status NOT IN (6, 7, 8) ORDER BY l.parent_id LIMIT $2;

-- Where it is parked, and how many are in front of it, of all hosts, up to $2: index parked_lane.
-- name: parked_place
SELECT p.gate_id, (SELECT count(*)::integer FROM (
    WITH RECURSIVE hosts AS (
        (SELECT host FROM parked WHERE gate_id = p.gate_id AND lane = p.lane ORDER BY host LIMIT 1)
        UNION ALL
        SELECT (
            SELECT q.host FROM parked q WHERE q.gate_id = p.gate_id AND q.lane = p.lane AND q.host > hosts.host ORDER BY q.host LIMIT 1
        )
        FROM hosts WHERE hosts.host IS NOT NULL
    )
    SELECT FROM hosts CROSS JOIN LATERAL (
        SELECT FROM parked q
        WHERE q.gate_id = p.gate_id AND q.lane = p.lane AND q.host = hosts.host AND (q.rank, q.task_id) < (p.rank, p.task_id)
        OFFSET 0
    ) q
    LIMIT $2
) ahead)
FROM parked p WHERE p.task_id = $1;

-- The same for its place in the line for its host: primary key of ready.
-- name: ready_place
SELECT (SELECT count(*)::integer FROM (
    SELECT FROM ready q WHERE q.host = t.host AND (q.rank, q.task_id) < (-t.priority, t.id) LIMIT $2
) ahead)
FROM (SELECT host, priority, id FROM task WHERE id = $1 OFFSET 0) t
CROSS JOIN LATERAL (SELECT FROM ready r WHERE r.host = t.host AND r.rank = -t.priority AND r.task_id = t.id OFFSET 0) r;

-- name: orphaned
SELECT coalesce((SELECT expires FROM process WHERE id = r.owner) < clock_timestamp() + $2::interval, true)
FROM running r WHERE r.task_id = $1;

-- name: counted_shapes
SELECT id FROM shape WHERE id = ANY($1::bigint[]) AND version > 0;

-- Walks what was given back since the last tick, which is little.
-- name: pending_deltas
SELECT gate_id, sum(delta)::integer FROM gate_delta WHERE gate_id = ANY($1::bigint[]) GROUP BY gate_id;

-- Tasks of the kinds $2 that have changed since their tallies were found, of the first $1 changes, and those tallies.
-- name: unfolded_tasks
SELECT t.metadata, t.expected_count,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM (SELECT DISTINCT task_id FROM (SELECT task_id FROM tally_event ORDER BY seq LIMIT $1) e OFFSET 0) u
CROSS JOIN LATERAL (SELECT kind, metadata, expected_count FROM task WHERE id = u.task_id OFFSET 0) t
CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = u.task_id OFFSET 0) s
WHERE t.kind = ANY($2::text[]);

-- name: unfolded_tallies
SELECT y.task_id, y.n, y.gate_id, coalesce(g.shape_id, 0), coalesce(g.vals, ''), coalesce(g.used, 0),
       coalesce(g.lanes, '{}'), coalesce(g.dirty, false)
FROM (SELECT DISTINCT task_id FROM (SELECT task_id FROM tally_event ORDER BY seq LIMIT $1) e OFFSET 0) u
CROSS JOIN LATERAL (SELECT task_id, gate_id, n FROM tally WHERE task_id = u.task_id OFFSET 0) y
LEFT JOIN LATERAL (SELECT * FROM gate WHERE id = y.gate_id OFFSET 0) g ON true;

-- For gate_holders: in the order of its pages, running is walked ten times as fast as in that of an index.
-- name: let_walk
SELECT set_config('enable_seqscan', 'on', true);

-- No more than there are: walks running as far as the last of them, 30 ms for 100 000 rows. An index on gates would cost
-- every start and every end.
-- name: gate_holders
SELECT g.id, r.task_id
FROM unnest($1::bigint[], $2::integer[]) AS g(id, n)
CROSS JOIN LATERAL (SELECT task_id FROM running WHERE g.id = ANY(gates) LIMIT g.n) r
ORDER BY g.id, r.task_id;

-- Those of tallied gates. Index tally_gate.
-- name: tally_holders
SELECT g.id, y.task_id
FROM unnest($1::bigint[], $2::integer[]) AS g(id, n)
CROSS JOIN LATERAL (SELECT task_id FROM tally WHERE gate_id = g.id ORDER BY task_id LIMIT g.n) y
ORDER BY g.id, y.task_id;

-- A page of gates, which one of those that follow picks, in the order of their ids.
-- name: limits
SELECT g.id, g.shape_id, g.vals, g.used, ARRAY(
    SELECT l FROM unnest(g.lanes) AS l
    WHERE EXISTS (SELECT FROM parked p WHERE p.gate_id = g.id AND p.lane = l OFFSET 0) ORDER BY l
), g.dirty, s.type, s.kind, s.status, s.fields, (
    SELECT count(*)::integer FROM (SELECT FROM parked p WHERE p.gate_id = g.id LIMIT $3) waiting
)
FROM (
%s
) p
CROSS JOIN LATERAL (SELECT * FROM gate WHERE id = p.id OFFSET 0) g
CROSS JOIN LATERAL (SELECT type, kind, status, fields FROM shape WHERE id = g.shape_id OFFSET 0) s
ORDER BY p.id;

-- name: limits_by_id
SELECT id FROM gate WHERE id > $1 ORDER BY id LIMIT $2

-- The first of each shape of a kind, of which a page is sorted: index gate_shape. There are few shapes.
-- name: limits_by_kind
SELECT g.id
FROM shape s CROSS JOIN LATERAL (SELECT id FROM gate WHERE shape_id = s.id AND id > $1 ORDER BY id LIMIT $2) g
WHERE ($4 = '' OR s.kind = $4) AND ($5 = '' OR starts_with(s.kind, $5))
ORDER BY g.id LIMIT $2
