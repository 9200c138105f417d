-- One that is finished in the same moment may be locked and not be claimed: then it is the next time.
-- Leases what has been due for longest, $6 in all, for a host as much as there is room: $3, but what $5 says for those
-- of $4.
-- name: claim_deliveries
WITH RECURSIVE hosts AS (
    (SELECT host FROM delivery WHERE state = 1 ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT d.host FROM delivery d WHERE d.state = 1 AND d.host > hosts.host ORDER BY d.host LIMIT 1)
    FROM hosts WHERE hosts.host IS NOT NULL
), lanes AS (
    SELECT hosts.host, coalesce((SELECT b.n FROM unnest($4::text[], $5::integer[]) AS b(host, n)
                                 WHERE b.host = hosts.host), $3) AS n
    FROM hosts WHERE hosts.host IS NOT NULL
), due AS (
    SELECT d.at
    FROM lanes CROSS JOIN LATERAL (
        SELECT ctid AS at, next_at FROM delivery
        WHERE state = 1 AND delivery.host = lanes.host AND next_at <= clock_timestamp() + $1::interval
        ORDER BY next_at LIMIT lanes.n FOR UPDATE SKIP LOCKED
    ) d
    ORDER BY d.next_at LIMIT $6
)
UPDATE delivery d SET next_at = clock_timestamp() + $1::interval + $2::interval
FROM due WHERE d.ctid = due.at
RETURNING d.source_id, d.trigger, d.place, d.host, d.failures,
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
    SELECT u.lease, (SELECT ctid FROM delivery d
                     WHERE d.source_id = u.source_id AND d.trigger = u.trigger AND d.place = u.place) AS at
    FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::interval[]) AS u(source_id, trigger, place, lease)
    OFFSET 0
) u
WHERE d.ctid = u.at;

-- In one order, so that two processes do not wait for each other in a circle.
-- name: lock_deliveries
SELECT FROM (
    SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::smallint[]) AS u(source_id, trigger, place)
    ORDER BY source_id, trigger, place OFFSET 0
) u CROSS JOIN LATERAL (
    SELECT FROM delivery d WHERE d.source_id = u.source_id AND d.trigger = u.trigger AND d.place = u.place FOR UPDATE
) d;

-- A delivery that another process has finished meanwhile stays finished. (With state = 1 the planner might walk the index
-- of those.)
-- name: finish_deliveries
UPDATE delivery d
SET state = u.state, failures = d.failures + (u.error <> '')::integer,
    next_at = clock_timestamp() + $1::interval + u.retry, last_status = u.status, last_error = u.error
FROM (
    SELECT u.*, (SELECT ctid FROM delivery d
                 WHERE d.source_id = u.source_id AND d.trigger = u.trigger AND d.place = u.place) AS at
    FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::smallint[], $6::interval[], $7::smallint[], $8::text[])
      AS u(source_id, trigger, place, state, retry, status, error)
    OFFSET 0
) u
WHERE d.ctid = u.at AND d.state NOT IN (2, 3);
