-- Run on the readers, which see one moment but hold up nobody.

-- A task is gone with its batch, even where it is still to be deleted.
-- name: task
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.id = ?1 AND EXISTS (SELECT 1 FROM batch WHERE id = t.batch_id);

-- name: parents
SELECT l.parent_id, l.requires_success, s.status
FROM link l CROSS JOIN task_state s ON s.id = l.parent_id WHERE l.child_id = ?1 ORDER BY l.parent_id;

-- name: deliveries
SELECT id, "trigger", place, state, failures, last_status, last_error,
       CASE WHEN state = 1 AND NOT leased THEN next_at END
FROM delivery WHERE source_id = ?1 ORDER BY "trigger", place;

-- name: life
SELECT t.created_at, EXISTS (SELECT 1 FROM link WHERE child_id = t.id),
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.id = ?1 AND EXISTS (SELECT 1 FROM batch WHERE id = t.batch_id);

-- name: history
SELECT at, cause, status FROM history WHERE task_id = ?1 ORDER BY seq;

-- The tasks of a list, which one of those that follow picks, with what its conditions need, the conditions and the order. So
-- what a page passes over costs an entry of an index, and more only where a condition asks for it.
-- name: tasks
SELECT t.id, t.batch_id, t.local_id, t.name, t.priority, t.expected_count, t.dead_end_barrier, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM (
%s
) picked CROSS JOIN task_state s ON s.id = picked.id CROSS JOIN task t ON t.id = picked.id

-- The newest, those of a batch or a kind (indexes task_batch, task_kind).
-- name: tasks_by_facts
SELECT t.id FROM task t

-- Where the state decides: its rows are much smaller.
-- name: tasks_by_state
SELECT s.id FROM task_state s

-- The bounds of times: only near them an id does not tell, and the task is read, by its row where an index has that.
-- name: created_after
CASE WHEN %[1]s >= %[3]s THEN true ELSE (SELECT c.created_at > %[4]s FROM task c WHERE c.%[2]s) END

-- name: created_before
CASE WHEN %[1]s < %[3]s THEN true ELSE (SELECT c.created_at < %[4]s FROM task c WHERE c.%[2]s) END

-- Those that are named as ?1.
-- name: tasks_by_ids
SELECT p.task_id AS id FROM (SELECT DISTINCT unhex(value, '-') AS task_id FROM json_each(?1)) p

-- Those in one of the places that follow.
-- name: tasks_in_place
SELECT p.task_id AS id FROM (
%s
) p

-- What conditions need, looked up by the primary keys.
-- name: tasks_with_state
CROSS JOIN task_state s ON s.id = %s

-- name: tasks_with_facts
CROSS JOIN task t ON t.id = %s

-- The places begin behind ?1, end at ?2 and know the statuses as ?3. Their parts are merged, each in order but ready. The
-- limit is none; it keeps the order from being given up for one of the whole, which would read everything.

-- name: place_running
SELECT task_id FROM running WHERE task_id < ?1 AND task_id >= ?2 AND ?3 IS NOT NULL ORDER BY task_id DESC LIMIT -1

-- Of one kind; of several they are merged.
-- name: place_kind
SELECT id AS task_id FROM task WHERE kind = ?%d AND id < ?1 AND id >= ?2 AND ?3 IS NOT NULL

-- Who is at work may be Paused, all others are Pending.
-- name: place_live
SELECT r.task_id FROM running r CROSS JOIN task_state s ON s.id = r.task_id
WHERE r.task_id < ?1 AND r.task_id >= ?2 AND s.status IN (SELECT value FROM json_each(?3))
UNION ALL SELECT task_id FROM parked WHERE task_id < ?1 AND task_id >= ?2
UNION ALL SELECT task_id FROM ready WHERE task_id < ?1 AND task_id >= ?2
ORDER BY task_id DESC LIMIT -1

-- When only what index task_state_rest has is wanted.
-- name: place_rest
SELECT id AS task_id FROM task_state INDEXED BY task_state_rest
WHERE status = 1 AND 1 IN (SELECT value FROM json_each(?3)) AND id < ?1 AND id >= ?2
UNION ALL SELECT id FROM task_state INDEXED BY task_state_rest
WHERE status = 5 AND 5 IN (SELECT value FROM json_each(?3)) AND id < ?1 AND id >= ?2
UNION ALL SELECT id FROM task_state INDEXED BY task_state_rest
WHERE status = 7 AND 7 IN (SELECT value FROM json_each(?3)) AND id < ?1 AND id >= ?2
UNION ALL SELECT id FROM task_state INDEXED BY task_state_rest
WHERE status = 8 AND 8 IN (SELECT value FROM json_each(?3)) AND id < ?1 AND id >= ?2
ORDER BY task_id DESC LIMIT -1

-- The first kinds that there are, from one to the next by index task_kind.
-- name: kinds
WITH RECURSIVE k (kind, n) AS (
    SELECT (SELECT kind FROM task ORDER BY kind LIMIT 1), 1
    UNION ALL
    SELECT (SELECT kind FROM task WHERE kind > k.kind ORDER BY kind LIMIT 1), n + 1 FROM k WHERE kind IS NOT NULL AND n < ?1
)
SELECT kind FROM k WHERE kind IS NOT NULL;

-- How far a list of batches that passes over some goes for one page: batch by batch, for the tasks in them.
-- name: walk_tasks_of_batches
SELECT t.batch_id AS id FROM task t

-- For the batches themselves.
-- name: walk_batches
SELECT b.id FROM batch b

-- Whether there are few ready tasks: they have to be sorted by age for a list.
-- name: few_ready
SELECT count(*) < ?1 FROM (SELECT 1 FROM ready LIMIT ?1);

-- name: to_edit
SELECT t.id, t.metadata, t.expected_count FROM task t CROSS JOIN task_state s ON s.id = t.id
WHERE t.batch_id = ?1 AND t.kind = ?2 AND s.status NOT IN (6, 7, 8) ORDER BY t.id;

-- The batches of a list, which one of those that follow picks.
-- name: batches
SELECT b.id, b.created_at, b.late, b.requester, b.scope, b.metadata
FROM (
%s
) p CROSS JOIN batch b ON b.id = p.id ORDER BY p.id DESC;

-- Index task_batch alone has the ids.
-- name: count_batches
SELECT t.batch_id, s.kind, s.status, count(*), max(s.last_updated)
FROM json_each(?1) g CROSS JOIN task t ON t.batch_id = unhex(g.value, '-') CROSS JOIN task_state s ON s.id = t.id
GROUP BY t.batch_id, s.kind, s.status;

-- name: batches_by_age
SELECT b.id FROM batch b

-- name: batches_by_kind
SELECT b.id FROM batch_kind k CROSS JOIN batch b ON b.id = k.batch_id

-- name: batches_by_scope
SELECT b.id FROM batch b INDEXED BY batch_scope

-- Those with a task in a place. There are few tasks to look at, so their batches are sorted.
-- name: batches_by_running
SELECT b.id
FROM (
    SELECT DISTINCT t.batch_id
    FROM running p CROSS JOIN task_state s ON s.id = p.task_id CROSS JOIN task t ON t.id = p.task_id%s
) p CROSS JOIN batch b ON b.id = p.batch_id

-- name: batches_by_place
SELECT b.id
FROM (
    SELECT DISTINCT t.batch_id
    FROM (
        SELECT task_id FROM running UNION ALL SELECT task_id FROM parked UNION ALL SELECT task_id FROM ready
    ) p CROSS JOIN task_state s ON s.id = p.task_id CROSS JOIN task t ON t.id = p.task_id%s
) p CROSS JOIN batch b ON b.id = p.batch_id

-- Those with a task that index task_state_rest has, which are few where there is no incident.
-- name: batches_by_rest
SELECT b.id
FROM (
    SELECT DISTINCT t.batch_id
    FROM task_state s INDEXED BY task_state_rest CROSS JOIN task t ON t.id = s.id%s
) p CROSS JOIN batch b ON b.id = p.batch_id

-- A condition on one of those.
-- name: batch_has
EXISTS (SELECT 1 FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = b.id AND %s)

-- Whether few tasks are in a place but running, and few are in index task_state_rest with one of the statuses.
-- name: few_queued
SELECT (SELECT count(*) < ?1 FROM (SELECT 1 FROM ready LIMIT ?1)) AND (SELECT count(*) < ?1 FROM (SELECT 1 FROM parked LIMIT ?1));

-- name: few_rest
SELECT count(*) < ?1 FROM (
    SELECT 1 FROM task_state INDEXED BY task_state_rest
    WHERE (status = 1 OR status = 5 OR status = 7 OR status = 8) AND status IN (SELECT value FROM json_each(?2)) LIMIT ?1
);

-- name: batch
SELECT requester, scope, metadata, created_at, on_complete, late FROM batch WHERE id = ?1;

-- The statuses in columns, in the order of their numbers. Sums in two parts, high and low: one could be greater than a number can.
-- name: batch_sums
SELECT count(*) FILTER (WHERE s.status = 1), count(*) FILTER (WHERE s.status = 2), count(*) FILTER (WHERE s.status = 3),
       count(*) FILTER (WHERE s.status = 4), count(*) FILTER (WHERE s.status = 5), count(*) FILTER (WHERE s.status = 6),
       count(*) FILTER (WHERE s.status = 7), count(*) FILTER (WHERE s.status = 8),
       count(*), count(t.expected_count),
       coalesce(sum(s.success >> 32), 0), coalesce(sum(s.success & 0xffffffff), 0),
       coalesce(sum(s.failures >> 32), 0), coalesce(sum(s.failures & 0xffffffff), 0),
       coalesce(sum(t.expected_count >> 32), 0), coalesce(sum(t.expected_count & 0xffffffff), 0)
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = ?1;

-- name: batch_size
SELECT count(*) FROM task WHERE batch_id = ?1;

-- The ends have the greatest numbers.
-- name: to_stop
SELECT s.id, s.unmet > 0, s.claimed_at IS NOT NULL
FROM task t CROSS JOIN task_state s ON s.id = t.id WHERE t.batch_id = ?1 AND s.status < 6;

-- name: to_stop_links
SELECT l.parent_id, l.child_id
FROM task t CROSS JOIN task_state s ON s.id = t.id CROSS JOIN link l ON l.child_id = t.id
WHERE t.batch_id = ?1 AND s.status < 6 AND s.unmet > 0;

-- name: dag_links
SELECT l.parent_id, l.child_id, l.requires_success
FROM task t CROSS JOIN link l ON l.child_id = t.id WHERE t.batch_id = ?1 ORDER BY t.id, l.parent_id;

-- One statement, so one moment: what running rows hold and tasks add against what gates say, deltas on their way included.
-- name: drift
SELECT count(*) FROM (
    SELECT gate_id FROM (
        SELECT held.value AS gate_id, 1 AS n FROM running CROSS JOIN json_each(running.gates) held
        UNION ALL SELECT id, -used FROM gate
        UNION ALL SELECT gate_id, -delta FROM gate_delta
        UNION ALL SELECT gate_id, n FROM tally
    ) GROUP BY gate_id HAVING sum(n) <> 0
);
