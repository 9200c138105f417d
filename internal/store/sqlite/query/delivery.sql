-- What is due, ?2 for each host, but none of the hosts that are given. Index delivery_due. For a limit that is ?2 alone,
-- SQLite would plan anew whenever ?2 changes.
-- name: due_deliveries
WITH RECURSIVE hosts (host) AS (
    SELECT min(host) FROM delivery WHERE state = 1
    UNION ALL
    SELECT (SELECT min(d.host) FROM delivery d WHERE d.state = 1 AND d.host > hosts.host)
    FROM hosts WHERE hosts.host IS NOT NULL
)
SELECT d.id, d.source_id, d."trigger", d.place, d.host, d.failures, d.earlier_failures, d.next_at,
       CASE d."trigger" WHEN 5 THEN (SELECT on_complete FROM batch WHERE id = d.source_id) ELSE (
           SELECT CASE d."trigger" WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
           FROM task t WHERE t.id = d.source_id
       ) END,
       p.success, p.failure, p.canceled, p.ended_at
FROM hosts
CROSS JOIN delivery d
LEFT JOIN batch_progress p ON d."trigger" = 5 AND p.batch_id = d.source_id
WHERE hosts.host IS NOT NULL AND hosts.host NOT IN (SELECT id FROM given_id)
  AND d.id IN (
    SELECT q.id FROM delivery q WHERE q.state = 1 AND q.host = hosts.host AND q.next_at <= ?1 ORDER BY q.next_at LIMIT ?2 + 0
  );

-- name: claim_deliveries
UPDATE delivery SET leased = 1, next_at = g.next_at FROM given_attempt g WHERE delivery.id = g.delivery_id;

-- name: finish_deliveries
UPDATE delivery
SET state = g.state, leased = 0, failures = delivery.failures + (g.error <> ''), next_at = g.next_at, last_status = g.status,
    last_error = g.error
FROM given_attempt g
WHERE delivery.id = g.delivery_id AND delivery.state = 1;

-- name: insert_attempts
INSERT INTO delivery_attempt (delivery_id, at, took, status, error, answer)
SELECT g.delivery_id, g.at, g.took, g.status, g.error, g.answer
FROM given_attempt g CROSS JOIN delivery d ON d.id = g.delivery_id;

-- Keeps the newest ?1 of each.
-- name: trim_attempts
DELETE FROM delivery_attempt WHERE seq IN (
    SELECT a.seq FROM given_id g CROSS JOIN delivery d ON d.id = g.id CROSS JOIN delivery_attempt a ON a.delivery_id = g.id
    WHERE d.failures >= ?1
      AND a.seq <= (SELECT n.seq FROM delivery_attempt n WHERE n.delivery_id = g.id ORDER BY n.seq DESC LIMIT 1 OFFSET ?1)
);

-- What is being sent stays leased: otherwise it would be sent twice.
-- name: retry_deliveries
UPDATE delivery
SET state = 1, next_at = ?1,
    earlier_failures = CASE delivery.state WHEN 3 THEN delivery.failures ELSE delivery.earlier_failures END
FROM given_id g
WHERE delivery.id = g.id AND delivery.state <> 2 AND NOT delivery.leased;

-- One, with the actions among which is the one that it sends.
-- name: delivery
SELECT CASE d."trigger" WHEN 5 THEN (SELECT on_complete FROM batch WHERE id = d.source_id) ELSE (
           SELECT CASE d."trigger" WHEN 2 THEN t.on_success WHEN 3 THEN t.on_failure ELSE t.on_cancel END
           FROM task t WHERE t.id = d.source_id
       ) END,
       p.success, p.failure, p.canceled, p.ended_at
FROM delivery d LEFT JOIN batch_progress p ON d."trigger" = 5 AND p.batch_id = d.source_id
WHERE d.id = ?1;

-- name: attempts
SELECT at, took, status, error, answer FROM delivery_attempt WHERE delivery_id = ?1 ORDER BY seq;

-- The lists begin like this; one of those that follow, their conditions and order are added.
-- name: delivery_items
SELECT d.id, d."trigger", d.place, d.state, d.failures, d.last_status, d.last_error,
       CASE WHEN d.state = 1 AND NOT d.leased THEN d.next_at END,
       d.source_id, (SELECT batch_id FROM task WHERE id = d.source_id), d.host, d.created_at

-- name: deliveries_by_age
FROM delivery d

-- name: deliveries_dead
FROM delivery d INDEXED BY delivery_dead

-- Of a host.
-- name: deliveries_dead_host
FROM delivery d INDEXED BY delivery_dead_host

-- The pending ones, of a host or of all: there are few.
-- name: deliveries_pending
FROM delivery d INDEXED BY delivery_due

-- name: deliveries_of_task
FROM delivery d INDEXED BY delivery_source

-- Of a batch and its tasks, which is ?1.
-- name: deliveries_of_batch
FROM (SELECT id FROM task WHERE batch_id = ?1 UNION ALL SELECT ?1) s
CROSS JOIN delivery d INDEXED BY delivery_source ON d.source_id = s.id

-- name: walk_deliveries
SELECT d.id FROM delivery d

-- Whether few are pending, of a host or of all.
-- name: few_pending
SELECT count(*) < ?1 FROM (SELECT 1 FROM delivery d INDEXED BY delivery_due WHERE d.state = 1%s LIMIT ?1);
