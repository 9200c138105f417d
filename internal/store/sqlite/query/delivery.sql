-- What is due, ?2 for each host, but none of the hosts that are given. Index delivery_due.
-- name: due_deliveries
WITH RECURSIVE hosts (host) AS (
    SELECT min(host) FROM delivery WHERE state = 1
    UNION ALL
    SELECT (SELECT min(d.host) FROM delivery d WHERE d.state = 1 AND d.host > hosts.host)
    FROM hosts WHERE hosts.host IS NOT NULL
)
SELECT d.source_id, d."trigger", d.place, d.host, d.failures, d.next_at,
       CASE d."trigger" WHEN 5 THEN (SELECT on_complete FROM batch WHERE id = d.source_id) ELSE (
           SELECT CASE d."trigger" WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
           FROM task t WHERE t.id = d.source_id
       ) END,
       p.success, p.failure, p.canceled, p.ended_at
FROM hosts
CROSS JOIN delivery d
LEFT JOIN batch_progress p ON d."trigger" = 5 AND p.batch_id = d.source_id
WHERE hosts.host IS NOT NULL AND hosts.host NOT IN (SELECT id FROM given_id)
  AND (d.source_id, d."trigger", d.place) IN (
    SELECT q.source_id, q."trigger", q.place FROM delivery q
    WHERE q.state = 1 AND q.host = hosts.host AND q.next_at <= ?1 ORDER BY q.next_at LIMIT ?2
  );

-- name: claim_deliveries
UPDATE delivery SET next_at = g.next_at FROM given_attempt g
WHERE delivery.source_id = g.source_id AND delivery."trigger" = g."trigger" AND delivery.place = g.place;

-- name: finish_deliveries
UPDATE delivery
SET state = g.state, failures = delivery.failures + (g.error <> ''), next_at = g.next_at, last_status = g.status,
    last_error = g.error
FROM given_attempt g
WHERE delivery.source_id = g.source_id AND delivery."trigger" = g."trigger" AND delivery.place = g.place
  AND delivery.state = 1;
