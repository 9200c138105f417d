-- What is due, ?2 for each host, but none of the hosts that are given. Index delivery_due.
-- name: due_deliveries
WITH RECURSIVE hosts (host) AS (
    SELECT min(host) FROM delivery WHERE state = 1
    UNION ALL
    SELECT (SELECT min(d.host) FROM delivery d WHERE d.state = 1 AND d.host > hosts.host)
    FROM hosts WHERE hosts.host IS NOT NULL
)
SELECT d.task_id, d."trigger", d.place, d.host, d.failures, d.next_at,
       CASE d."trigger" WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
FROM hosts
CROSS JOIN delivery d
CROSS JOIN task t ON t.id = d.task_id
WHERE hosts.host IS NOT NULL AND hosts.host NOT IN (SELECT id FROM given_id)
  AND (d.task_id, d."trigger", d.place) IN (
    SELECT q.task_id, q."trigger", q.place FROM delivery q
    WHERE q.state = 1 AND q.host = hosts.host AND q.next_at <= ?1 ORDER BY q.next_at LIMIT ?2
  );

-- name: claim_deliveries
UPDATE delivery SET next_at = ?1 FROM given_delivery g
WHERE delivery.task_id = g.task_id AND delivery."trigger" = g."trigger" AND delivery.place = g.place;

-- name: finish_deliveries
UPDATE delivery
SET state = g.state, failures = delivery.failures + (g.error <> ''), next_at = g.next_at, last_status = g.status,
    last_error = g.error
FROM given_attempt g
WHERE delivery.task_id = g.task_id AND delivery."trigger" = g."trigger" AND delivery.place = g.place
  AND delivery.state = 1;
