-- Every statement here runs under the lock of the tasks' state rows.
--
-- The planner may take a table that grows fast for empty, and then walk the whole of it to look every row up among those
-- that are given. So rows are looked up where it has no choice: in a subquery for each that is given, or by = ANY. Where
-- that finds the place of a row (ctid), nobody else may be able to move it.

-- By their places, which the statements that locked the rows have told; should one not be there, the cast fails, and so the
-- transaction: COMMIT is on its way before anybody could count. (In the select list unnest hands on row by row; in FROM it
-- would first write each of the arrays down.)
-- name: update_states
WITH written AS (
    UPDATE task_state s
    SET status = u.status, unmet = u.unmet, success = u.success, failures = u.failures, attempt = u.attempt,
        start_failures = u.start_failures, start_status = u.start_status, start_error = u.start_error,
        claimed_at = u.claimed_at, started_at = u.started_at, ended_at = u.ended_at, last_updated = u.last_updated,
        failure_reason = u.failure_reason
    FROM (
        SELECT unnest($1::tid[]) AS place, unnest($2::smallint[]) AS status, unnest($3::integer[]) AS unmet,
               unnest($4::bigint[]) AS success, unnest($5::bigint[]) AS failures, unnest($6::integer[]) AS attempt,
               unnest($7::integer[]) AS start_failures, unnest($8::smallint[]) AS start_status, unnest($9::text[]) AS start_error,
               unnest($10::timestamptz[]) AS claimed_at, unnest($11::timestamptz[]) AS started_at,
               unnest($12::timestamptz[]) AS ended_at, unnest($13::timestamptz[]) AS last_updated,
               unnest($14::text[]) AS failure_reason
        OFFSET 0
    ) u
    WHERE s.ctid = u.place
    RETURNING true
)
SELECT CASE WHEN count(*) <> cardinality($1) THEN ('update_states: not ' || cardinality($1) || ' but ' || count(*))::integer END
FROM written;

-- name: edit_tasks
UPDATE task t
SET metadata = u.metadata::json, rules = u.rules::json, priority = u.priority, expected_count = u.expected_count,
    on_cancel = u.on_cancel::json
FROM (
    SELECT u.*, (SELECT ctid FROM task WHERE id = u.id) AS at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::text[])
      AS u(id, metadata, rules, priority, expected_count, on_cancel)
    OFFSET 0
) u
WHERE t.ctid = u.at;

-- A slot is given back by whoever deletes the row, so exactly once.
-- name: release
WITH gone AS (
    DELETE FROM running WHERE task_id = ANY($1::uuid[]) RETURNING gates
), came AS (
    INSERT INTO gate_delta (gate_id, delta)
    SELECT g, -count(*)::integer FROM gone CROSS JOIN unnest(gone.gates) AS g GROUP BY g
    RETURNING seq
)
SELECT min(seq) FROM came;

-- name: unqueue_ready
DELETE FROM ready WHERE ctid = ANY(ARRAY(
    SELECT (SELECT r.ctid FROM ready r WHERE r.host = t.host AND r.rank = -t.priority AND r.task_id = t.id)
    FROM task t WHERE t.id = ANY($1::uuid[])
));

-- name: unqueue_parked
DELETE FROM parked WHERE task_id = ANY($1::uuid[]);

-- Gives the first of each lane.
-- name: enqueue
WITH came AS (
    INSERT INTO ready (host, rank, task_id) SELECT host, -priority, id FROM task WHERE id = ANY($1::uuid[])
    RETURNING host, rank, task_id
)
SELECT DISTINCT ON (host) host, rank, task_id FROM came ORDER BY host, rank, task_id;

-- name: insert_ready
INSERT INTO ready (host, rank, task_id) SELECT unnest($1::text[]), unnest($2::smallint[]), unnest($3::uuid[]);

-- name: insert_tally_events
INSERT INTO tally_event (task_id) SELECT * FROM unnest($1::uuid[]);

-- Before set_checks: the reaper and the pump write rows of running, too.
-- name: lock_running
SELECT FROM running WHERE task_id = ANY($1::uuid[]) ORDER BY task_id FOR UPDATE;

-- name: set_checks
UPDATE running r SET check_at = u.check_at
FROM (
    SELECT u.check_at, (SELECT ctid FROM running WHERE task_id = u.id) AS at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, check_at)
    OFFSET 0
) u
WHERE r.ctid = u.at;

-- name: insert_events
WITH came AS (INSERT INTO dep_event (parent_id, succeeded) SELECT * FROM unnest($1::uuid[], $2::boolean[]) RETURNING seq)
SELECT min(seq) FROM came;

-- One row for each batch.
-- name: insert_batch_deltas
WITH came AS (
    INSERT INTO batch_delta (batch_id, success, failure, canceled, ended_at)
    SELECT t.batch_id, count(*) FILTER (WHERE u.status = 6), count(*) FILTER (WHERE u.status = 7),
           count(*) FILTER (WHERE u.status = 8), max(u.ended_at)
    FROM unnest($1::uuid[], $2::smallint[], $3::timestamptz[]) AS u(id, status, ended_at)
    CROSS JOIN LATERAL (SELECT batch_id FROM task WHERE id = u.id OFFSET 0) t
    GROUP BY t.batch_id
    RETURNING seq
)
SELECT min(seq) FROM came;

-- Whoever locks several batches in another order may wait for this one, and this one for it; then one of them is run again.
-- name: count_late
UPDATE batch SET late = late + 1
WHERE id = ANY(ARRAY(
    SELECT DISTINCT t.batch_id FROM unnest($1::uuid[]) AS u(id) CROSS JOIN LATERAL (SELECT batch_id FROM task WHERE id = u.id OFFSET 0) t
    ORDER BY t.batch_id
));

-- name: insert_deliveries
INSERT INTO delivery (id, source_id, trigger, place, host, next_at, created_at)
SELECT u.*, $1, $1
FROM unnest($2::uuid[], $3::uuid[], $4::smallint[], $5::smallint[], $6::text[]) AS u(id, source_id, trigger, place, host)
ON CONFLICT DO NOTHING;

-- name: insert_history
INSERT INTO history (task_id, at, cause, status)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::smallint[]);

-- name: trim_history
DELETE FROM history WHERE ctid = ANY(ARRAY(
    SELECT h.at
    FROM unnest($1::uuid[]) AS u(id)
    CROSS JOIN LATERAL (SELECT ctid AS at FROM history WHERE task_id = u.id ORDER BY seq DESC OFFSET $2) h
));

-- name: delete_paused
DELETE FROM rare_status WHERE status = 5 AND task_id = ANY($1::uuid[]);

-- name: insert_rare_status
INSERT INTO rare_status (status, task_id) SELECT * FROM unnest($1::smallint[], $2::uuid[]);

-- A parent whose only children are of other batches was wanted for itself, and is no dead end.
-- name: insert_dead_ends
INSERT INTO dead_end (task_id)
SELECT l.parent_id
FROM unnest($1::uuid[]) AS u(id)
CROSS JOIN LATERAL (SELECT parent_id FROM link WHERE child_id = u.id OFFSET 0) l
CROSS JOIN LATERAL (SELECT batch_id FROM task WHERE id = l.parent_id OFFSET 0) p
WHERE EXISTS (
    SELECT FROM (SELECT child_id FROM link WHERE parent_id = l.parent_id OFFSET 0) o
    CROSS JOIN LATERAL (SELECT batch_id FROM task WHERE id = o.child_id OFFSET 0) c
    WHERE c.batch_id = p.batch_id
);
