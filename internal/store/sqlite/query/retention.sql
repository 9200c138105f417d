-- Those that may be over for longest, and until when each was needed: ?1, which is now, while something of it is still to
-- come, else the end of its last task. What is to come are tasks, deliveries, and tasks that wait for one of it: a
-- parent's end may not have been told to them yet. Run on a reader: it may take a while. Index batch_alive; the tasks of a
-- batch along index task_batch, the newest first, for these end last.
-- name: aged_batches
SELECT b.id, coalesce((
    SELECT ?1
    FROM task t CROSS JOIN task_state s ON s.id = t.id
    WHERE t.batch_id = b.id AND (
        s.ended_at IS NULL
        OR EXISTS (SELECT 1 FROM delivery d INDEXED BY delivery_source WHERE d.source_id = t.id AND d.state = 1)
        OR s.has_children AND EXISTS (
            SELECT 1 FROM link l CROSS JOIN task_state c ON c.id = l.child_id WHERE l.parent_id = t.id AND c.ended_at IS NULL
        )
    )
    ORDER BY t.id DESC LIMIT 1
), (
    SELECT ?1
    WHERE EXISTS (SELECT 1 FROM batch_progress WHERE batch_id = b.id AND remaining > 0)
       OR EXISTS (SELECT 1 FROM delivery d INDEXED BY delivery_source WHERE d.source_id = b.id AND d.state = 1)
), (
    SELECT max(s.ended_at) FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = b.id
), ?1)
FROM (SELECT id FROM batch WHERE alive_at <= ?2 ORDER BY alive_at LIMIT ?3) b;

-- name: keep_alive
UPDATE batch SET alive_at = g.check_at FROM given_check g WHERE batch.id = g.id AND batch.alive_at < g.check_at;

-- Not those that somebody has kept alive since they were looked at. From here on no reader finds them.
-- name: expire_batches
DELETE FROM batch WHERE id IN (SELECT id FROM given_id) AND alive_at <= ?1 RETURNING id, key;

-- name: insert_expired
INSERT INTO expired (batch_id) SELECT g.id FROM given_id g;

-- Not a key that has another batch by now.
-- name: delete_keys
DELETE FROM idempotency_key WHERE (key, batch_id) IN (SELECT key, batch_id FROM given_key);

-- name: delete_progress
DELETE FROM batch_progress WHERE batch_id IN (SELECT id FROM given_id);

-- name: expired_batches
SELECT batch_id FROM expired ORDER BY batch_id LIMIT ?1;

-- name: expired_tasks
SELECT t.id FROM given_id g CROSS JOIN task t ON t.batch_id = g.id LIMIT ?1;

-- Those to parents and to children, also of other batches. One between two of these tasks is found twice.
-- Two SELECTs in the place of one would have all links walked.
-- name: delete_links
DELETE FROM link WHERE (parent_id, child_id) IN (
    SELECT parent_id, child_id FROM (
        SELECT l.parent_id, l.child_id FROM given_id g CROSS JOIN link l ON l.parent_id = g.id
        UNION ALL
        SELECT l.parent_id, l.child_id FROM given_id g CROSS JOIN link l ON l.child_id = g.id
        LIMIT ?1
    )
) RETURNING 1;

-- name: delete_attempts
DELETE FROM delivery_attempt WHERE seq IN (
    SELECT a.seq FROM given_id g CROSS JOIN delivery d INDEXED BY delivery_source ON d.source_id = g.id
    CROSS JOIN delivery_attempt a ON a.delivery_id = d.id
);

-- name: delete_deliveries
DELETE FROM delivery WHERE id IN (
    SELECT d.id FROM given_id g CROSS JOIN delivery d INDEXED BY delivery_source ON d.source_id = g.id
);

-- name: delete_history
DELETE FROM history WHERE seq IN (SELECT h.seq FROM given_id g CROSS JOIN history h ON h.task_id = g.id);

-- The kinds of the batches of these tasks: with its last task, a batch has none left.
-- name: delete_kinds
DELETE FROM batch_kind WHERE (kind, batch_id) IN (SELECT t.kind, t.batch_id FROM given_id g CROSS JOIN task t ON t.id = g.id);

-- name: delete_states
DELETE FROM task_state WHERE id IN (SELECT id FROM given_id);

-- name: delete_tasks
DELETE FROM task WHERE id IN (SELECT id FROM given_id);

-- name: delete_expired
DELETE FROM expired WHERE batch_id IN (SELECT id FROM given_id)
                      AND NOT EXISTS (SELECT 1 FROM task WHERE batch_id = expired.batch_id);

-- Shapes of the type Lookup that have no task to find. So they have no tallies either. Index task_kind.
-- name: delete_lookups
DELETE FROM shape WHERE type = 2 AND version > 0 AND NOT EXISTS (SELECT 1 FROM task t WHERE t.kind = shape.kind) RETURNING id;

-- Keeps the batches of deliveries from retention.
-- name: keep_batches
UPDATE batch SET alive_at = max(alive_at, ?1)
WHERE id IN (
    SELECT coalesce((SELECT t.batch_id FROM task t WHERE t.id = d.source_id), d.source_id)
    FROM given_id g CROSS JOIN delivery d ON d.id = g.id
);

-- Those whose batches are not gone.
-- name: kept_deliveries
SELECT d.id, d.state
FROM given_id g CROSS JOIN delivery d ON d.id = g.id
WHERE EXISTS (SELECT 1 FROM batch WHERE id = coalesce((SELECT t.batch_id FROM task t WHERE t.id = d.source_id), d.source_id));
