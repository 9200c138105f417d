-- Leases what has been due for longest, $5 in all, for a host as much as there is room: $3, but what the object $4 says
-- for those in it. One that is finished in the same moment may be locked and not be claimed: then it is the next time.
-- name: claim_deliveries
WITH RECURSIVE hosts AS (
    (SELECT host FROM delivery WHERE state = 1 ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT d.host FROM delivery d WHERE d.state = 1 AND d.host > hosts.host ORDER BY d.host LIMIT 1)
    FROM hosts WHERE hosts.host IS NOT NULL
), lanes AS (
    SELECT hosts.host, coalesce(($4::jsonb ->> hosts.host)::integer, $3) AS n FROM hosts WHERE hosts.host IS NOT NULL
), due AS (
    SELECT d.at
    FROM lanes CROSS JOIN LATERAL (
        SELECT ctid AS at, next_at FROM delivery
        WHERE state = 1 AND delivery.host = lanes.host AND next_at <= clock_timestamp() + $1::interval
        ORDER BY next_at LIMIT lanes.n FOR UPDATE SKIP LOCKED
    ) d
    ORDER BY d.next_at LIMIT $5
)
UPDATE delivery d SET leased = true, next_at = clock_timestamp() + $1::interval + $2::interval
FROM due WHERE d.ctid = due.at
RETURNING d.id, d.source_id, d.trigger, d.place, d.host, d.failures, d.earlier_failures,
          CASE d.trigger WHEN 5 THEN (SELECT on_complete FROM batch WHERE id = d.source_id) ELSE (
              SELECT CASE d.trigger WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
              FROM task t WHERE t.id = d.source_id
          ) END,
          (SELECT ARRAY[success, failure, canceled] FROM batch_progress WHERE d.trigger = 5 AND batch_id = d.source_id),
          (SELECT ended_at FROM batch_progress WHERE d.trigger = 5 AND batch_id = d.source_id);

-- Those that have just been claimed and whose actions may take longer than the lease of the others.
-- name: extend_deliveries
UPDATE delivery d SET next_at = clock_timestamp() + $1::interval + u.lease
FROM (
    SELECT u.lease, (SELECT ctid FROM delivery d WHERE d.id = u.id) AS at
    FROM unnest($2::uuid[], $3::interval[]) AS u(id, lease) OFFSET 0
) u
WHERE d.ctid = u.at;

-- In one order, so that two processes do not wait for each other in a circle.
-- name: lock_deliveries
SELECT d.id, d.state FROM (SELECT id FROM unnest($1::uuid[]) AS u(id) ORDER BY id OFFSET 0) u
CROSS JOIN LATERAL (SELECT id, state FROM delivery d WHERE d.id = u.id FOR UPDATE) d;

-- A delivery that another process has finished meanwhile stays finished. (With state = 1 the planner might walk the index
-- of those.)
-- name: finish_deliveries
UPDATE delivery d
SET state = u.state, leased = false, failures = d.failures + (u.error <> '')::integer,
    next_at = clock_timestamp() + $1::interval + u.retry, last_status = u.status, last_error = u.error
FROM (
    SELECT u.*, (SELECT ctid FROM delivery d WHERE d.id = u.id) AS at
    FROM unnest($2::uuid[], $3::smallint[], $4::interval[], $5::smallint[], $6::text[]) AS u(id, state, retry, status, error)
    OFFSET 0
) u
WHERE d.ctid = u.at AND d.state NOT IN (2, 3);

-- name: insert_attempts
INSERT INTO delivery_attempt (delivery_id, at, took, status, error, answer)
SELECT u.*
FROM unnest($1::uuid[], $2::timestamptz[], $3::interval[], $4::smallint[], $5::text[], $6::text[])
  AS u(delivery_id, at, took, status, error, answer)
WHERE EXISTS (SELECT FROM (SELECT FROM delivery d WHERE d.id = u.delivery_id OFFSET 0) d);

-- Keeps the newest $2 of each.
-- name: trim_attempts
DELETE FROM delivery_attempt WHERE ctid = ANY(ARRAY(
    SELECT a.at
    FROM unnest($1::uuid[]) AS u(id)
    CROSS JOIN LATERAL (SELECT failures FROM delivery WHERE id = u.id OFFSET 0) d
    CROSS JOIN LATERAL (SELECT ctid AS at FROM delivery_attempt WHERE delivery_id = u.id ORDER BY seq DESC OFFSET $2) a
    WHERE d.failures >= $2
));

-- What is being sent stays leased: otherwise it would be sent twice.
-- name: retry_deliveries
UPDATE delivery d
SET state = 1, next_at = clock_timestamp() + $1::interval,
    earlier_failures = CASE d.state WHEN 3 THEN d.failures ELSE d.earlier_failures END
FROM (SELECT (SELECT ctid FROM delivery d WHERE d.id = u.id) AS at FROM unnest($2::uuid[]) AS u(id) OFFSET 0) u
WHERE d.ctid = u.at AND d.state <> 2 AND NOT d.leased;

-- One, with the actions among which is the one that it sends.
-- name: delivery
SELECT CASE d.trigger WHEN 5 THEN (SELECT on_complete FROM batch WHERE id = d.source_id) ELSE (
           SELECT CASE d.trigger WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
           FROM task t WHERE t.id = d.source_id
       ) END,
       (SELECT ARRAY[success, failure, canceled] FROM batch_progress WHERE d.trigger = 5 AND batch_id = d.source_id),
       (SELECT ended_at FROM batch_progress WHERE d.trigger = 5 AND batch_id = d.source_id)
FROM delivery d WHERE d.id = $1;

-- name: attempts
SELECT at, took, status, error, answer FROM delivery_attempt WHERE delivery_id = $1 ORDER BY seq;

-- The lists begin like this; one of those that follow, their conditions and order are added. Where they are sorted, OFFSET 0
-- keeps the planner from walking back over all by the key.
-- name: delivery_items
SELECT d.id, d.trigger, d.place, d.state, d.failures, d.last_status, d.last_error,
       CASE WHEN d.state = 1 AND NOT d.leased THEN d.next_at END,
       d.source_id, (SELECT batch_id FROM task WHERE id = d.source_id), d.host, d.created_at

-- All, the dead ones (index delivery_dead), or those of a host (index delivery_dead_host).
-- name: deliveries_by_age
FROM delivery d

-- The pending ones, of a host or of all: there are few. Index delivery_due.
-- name: deliveries_pending
FROM (SELECT * FROM delivery WHERE state = 1%s OFFSET 0) d

-- Of a task. Index delivery_source.
-- name: deliveries_of_task
FROM (SELECT * FROM delivery WHERE source_id = $1 OFFSET 0) d

-- Of a batch and its tasks.
-- name: deliveries_of_batch
FROM (
    SELECT d.* FROM (SELECT id FROM task WHERE batch_id = $1 UNION ALL SELECT $1) s
    CROSS JOIN LATERAL (SELECT * FROM delivery WHERE source_id = s.id OFFSET 0) d OFFSET 0
) d

-- name: walk_deliveries
SELECT d.id FROM delivery d

-- name: few_pending
SELECT count(*) < $1 FROM (SELECT FROM delivery WHERE state = 1%s LIMIT $1) d;
