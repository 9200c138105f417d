-- Every statement here runs under the lock of the tasks' state rows.

-- name: update_states
UPDATE task_state s
SET status = u.status, unmet = u.unmet, success = u.success, failures = u.failures, attempt = u.attempt,
    start_failures = u.start_failures, start_status = u.start_status, start_error = u.start_error,
    claimed_at = u.claimed_at, started_at = u.started_at, ended_at = u.ended_at, last_updated = u.last_updated,
    failure_reason = u.failure_reason
FROM unnest($1::uuid[], $2::smallint[], $3::integer[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[],
            $8::smallint[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
            $14::text[])
  AS u(id, status, unmet, success, failures, attempt, start_failures, start_status, start_error, claimed_at,
       started_at, ended_at, last_updated, failure_reason)
WHERE s.id = u.id;

-- name: edit_tasks
UPDATE task t
SET metadata = u.metadata::json, priority = u.priority, expected_count = u.expected_count, on_cancel = u.on_cancel::json
FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::text[])
  AS u(id, metadata, priority, expected_count, on_cancel)
WHERE t.id = u.id;

-- A slot is given back by whoever deletes the row, so exactly once.
-- name: release
WITH gone AS (DELETE FROM running WHERE task_id = ANY($1::uuid[]) RETURNING gates)
INSERT INTO gate_delta (gate_id, delta)
SELECT g, -count(*)::integer FROM gone CROSS JOIN unnest(gone.gates) AS g GROUP BY g;

-- name: unqueue_ready
DELETE FROM ready r USING task t
WHERE t.id = ANY($1::uuid[]) AND r.host = t.host AND r.rank = -t.priority AND r.task_id = t.id;

-- name: unqueue_parked
DELETE FROM parked WHERE task_id = ANY($1::uuid[]);

-- name: enqueue
INSERT INTO ready (host, rank, task_id)
SELECT t.host, -t.priority, t.id FROM unnest($1::uuid[]) AS u(id) JOIN task t ON t.id = u.id;

-- A delta of 0 changes no count; it makes the pump look at the gate.
-- name: visit
INSERT INTO gate_delta (gate_id, delta) SELECT g, 0 FROM unnest($1::bigint[]) AS g;

-- name: set_checks
UPDATE running r SET check_at = u.check_at
FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, check_at) WHERE r.task_id = u.id;

-- name: insert_events
INSERT INTO dep_event (parent_id, succeeded) SELECT * FROM unnest($1::uuid[], $2::boolean[]);

-- name: insert_deliveries
INSERT INTO delivery (task_id, trigger, place, host, next_at)
SELECT u.task_id, u.trigger, u.place, u.host, $1
FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::text[]) AS u(task_id, trigger, place, host)
ON CONFLICT DO NOTHING;
