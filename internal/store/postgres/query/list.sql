-- A task is gone with its batch, even where it is still to be deleted.
-- name: task
SELECT t.id, t.batch_id, t.local_id, t.name, t.kind, t.priority, t.expected_count, t.dead_end_barrier, t.metadata,
       t.rules, t.on_start, t.on_success, t.on_failure, t.on_cancel, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t JOIN task_state s ON s.id = t.id WHERE t.id = $1 AND EXISTS (SELECT FROM batch WHERE id = t.batch_id);

-- name: parents
SELECT l.parent_id, l.requires_success, s.status
FROM link l JOIN task_state s ON s.id = l.parent_id WHERE l.child_id = $1 ORDER BY l.parent_id;

-- name: deliveries
SELECT id, trigger, place, state, failures, last_status, last_error, CASE WHEN state = 1 AND NOT leased THEN next_at END
FROM delivery WHERE source_id = $1 ORDER BY trigger, place;

-- name: life
SELECT t.created_at, EXISTS (SELECT 1 FROM link WHERE child_id = t.id),
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM task t JOIN task_state s ON s.id = t.id WHERE t.id = $1 AND EXISTS (SELECT FROM batch WHERE id = t.batch_id);

-- name: history
SELECT at, cause, status FROM history WHERE task_id = $1 ORDER BY seq;

-- Opens the reading of a list: it walks an index from the newest on and stops when its page is full. Left to itself, the
-- planner reads a whole table that looks small, or when what is looked for looks rare, and sorts it. Sorts themselves it may
-- have: a place has to be merged in order, and ready is sorted for that.
-- name: open_list
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true),
       set_config('jit', 'off', true);

-- The tasks of a list, which one of those that follow picks, with what its conditions need, the conditions and the order. So
-- what a page passes over costs an entry of an index, and more only where a condition asks for it. OFFSET 0 keeps the planner
-- from beginning at the other end.
-- name: tasks
SELECT t.id, t.batch_id, t.local_id, t.name, t.priority, t.expected_count, t.dead_end_barrier, t.created_at,
       s.id, s.status, s.unmet, s.success, s.failures, s.attempt, s.start_failures, s.start_status, s.start_error,
       s.claimed_at, s.started_at, s.ended_at, s.last_updated, s.failure_reason, s.kind, s.timeout, s.has_children,
       s.end_actions, s.tells_batch
FROM (
%s
) picked
CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = picked.id OFFSET 0) s
CROSS JOIN LATERAL (SELECT * FROM task WHERE id = picked.id OFFSET 0) t

-- The newest, those of a batch or a kind (indexes task_batch, task_kind).
-- name: tasks_by_facts
SELECT t.id FROM task t

-- Where the state decides: its rows are much smaller.
-- name: tasks_by_state
SELECT s.id FROM task_state s

-- Those that are named.
-- name: tasks_by_ids
SELECT p.task_id AS id FROM (SELECT DISTINCT id FROM unnest($1::uuid[]) AS given(id)) p(task_id)

-- Those in one of the places that follow.
-- name: tasks_in_place
SELECT p.task_id AS id FROM (
%s
) p

-- What conditions need, looked up by the primary keys whatever the planner takes the tables for (see changes.sql).
-- name: tasks_with_state
CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = %s OFFSET 0) s

-- name: tasks_with_facts
CROSS JOIN LATERAL (SELECT * FROM task WHERE id = %s OFFSET 0) t

-- name: place_running
SELECT task_id FROM running

-- Of one kind; of several they are merged. Each says its order itself: to a part with a condition the planner does not hand it down.
-- name: place_kind
(SELECT id AS task_id FROM task WHERE kind = $%d ORDER BY id DESC)

-- The parts are merged, each in order; ready, of which there are few, is sorted.
-- name: place_live
SELECT task_id FROM running UNION ALL SELECT task_id FROM parked UNION ALL SELECT task_id FROM ready

-- Those in one status; of several they are merged, too.
-- name: place_rare_status
(SELECT task_id FROM rare_status WHERE status = %d ORDER BY task_id DESC)

-- The first kinds that there are, from one to the next by index task_kind.
-- name: kinds
WITH RECURSIVE k (kind, n) AS (
    SELECT (SELECT kind FROM task ORDER BY kind LIMIT 1), 1
    UNION ALL
    SELECT (SELECT kind FROM task WHERE kind > k.kind ORDER BY kind LIMIT 1), n + 1 FROM k WHERE kind IS NOT NULL AND n < $1
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
SELECT count(*) < $1 FROM (SELECT FROM ready LIMIT $1) r;

-- The batches of a list, which one of those that follow picks.
-- name: batches
SELECT b.id, b.created_at, b.late, b.requester, b.scope, b.metadata
FROM (
%s
) p CROSS JOIN LATERAL (SELECT * FROM batch WHERE id = p.id OFFSET 0) b
ORDER BY p.id DESC;

-- Index task_batch alone has the ids.
-- name: count_batches
SELECT p.id, g.kind, g.status, g.tasks, g.updated
FROM unnest($1::uuid[]) AS p(id) CROSS JOIN LATERAL (
    SELECT s.kind, s.status, count(*)::integer AS tasks, max(s.last_updated) AS updated
    FROM task t CROSS JOIN LATERAL (SELECT kind, status, last_updated FROM task_state WHERE id = t.id OFFSET 0) s
    WHERE t.batch_id = p.id GROUP BY s.kind, s.status
) g;

-- name: batches_by_age
SELECT b.id FROM batch b

-- OFFSET 0 as in tasks. A kind may still be there of a batch that is gone.
-- name: batches_by_kind
SELECT b.id FROM batch_kind k CROSS JOIN LATERAL (SELECT * FROM batch WHERE id = k.batch_id OFFSET 0) b

-- Index batch_scope.
-- name: batches_by_scope
SELECT b.id FROM batch b

-- Those with a task in a place, where there are few tasks to look at; their batches are sorted.
-- name: batches_in_place
SELECT b.id
FROM (
    SELECT DISTINCT t.batch_id
    FROM (
%s
    ) p
    CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = p.task_id OFFSET 0) s
    CROSS JOIN LATERAL (SELECT * FROM task WHERE id = p.task_id OFFSET 0) t%s
) p CROSS JOIN LATERAL (SELECT * FROM batch WHERE id = p.batch_id OFFSET 0) b

-- A condition on one of those, looked at batch by batch, thanks to OFFSET 0, and only as far as the first task.
-- name: batch_has
EXISTS (
    SELECT FROM task t CROSS JOIN LATERAL (SELECT * FROM task_state WHERE id = t.id OFFSET 0) s
    WHERE t.batch_id = b.id AND %s OFFSET 0
)

-- Whether few tasks are in a place but running.
-- name: few_queued
SELECT (SELECT count(*) < $1 FROM (SELECT FROM ready LIMIT $1) r) AND (SELECT count(*) < $1 FROM (SELECT FROM parked LIMIT $1) p);

-- name: few_rare_status
SELECT count(*) < $1 FROM (SELECT FROM rare_status WHERE status = ANY($2::smallint[]) LIMIT $1) u;

-- name: to_edit
SELECT t.id, t.metadata, t.expected_count
FROM task t JOIN task_state s ON s.id = t.id
WHERE t.batch_id = $1 AND t.kind = $2 AND s.status NOT IN (6, 7, 8) ORDER BY t.id;

-- name: batch
SELECT requester, scope, metadata, created_at, on_complete, late FROM batch WHERE id = $1;

-- The statuses in the order of their numbers. Sums stop at the greatest 64-bit number, like the counts themselves.
-- name: batch_sums
SELECT ARRAY[count(*) FILTER (WHERE s.status = 1), count(*) FILTER (WHERE s.status = 2), count(*) FILTER (WHERE s.status = 3),
             count(*) FILTER (WHERE s.status = 4), count(*) FILTER (WHERE s.status = 5), count(*) FILTER (WHERE s.status = 6),
             count(*) FILTER (WHERE s.status = 7), count(*) FILTER (WHERE s.status = 8)],
       count(*)::integer, least(coalesce(sum(s.success), 0), 9223372036854775807)::bigint,
       least(coalesce(sum(s.failures), 0), 9223372036854775807)::bigint,
       CASE WHEN count(t.expected_count) = count(*) THEN least(coalesce(sum(t.expected_count), 0), 9223372036854775807)::bigint END
FROM task t CROSS JOIN LATERAL (SELECT status, success, failures FROM task_state WHERE id = t.id OFFSET 0) s
WHERE t.batch_id = $1;

-- name: batch_size
SELECT count(*)::integer FROM task WHERE batch_id = $1;

-- The ends have the greatest numbers.
-- name: to_stop
SELECT s.id, s.unmet > 0, s.claimed_at IS NOT NULL
FROM task t JOIN task_state s ON s.id = t.id WHERE t.batch_id = $1 AND s.status < 6;

-- name: to_stop_links
SELECT l.parent_id, l.child_id
FROM task t JOIN task_state s ON s.id = t.id JOIN link l ON l.child_id = t.id
WHERE t.batch_id = $1 AND s.status < 6 AND s.unmet > 0;

-- name: dag_links
SELECT l.parent_id, l.child_id, l.requires_success
FROM task t JOIN link l ON l.child_id = t.id WHERE t.batch_id = $1 ORDER BY l.child_id, l.parent_id;

-- One statement, so one moment: what running rows hold and tasks add against what gates say, deltas on their way included.
-- name: drift
SELECT count(*)::integer FROM (
    SELECT gate_id FROM (
        SELECT unnest(gates) AS gate_id, 1 AS n FROM running
        UNION ALL SELECT id, -used FROM gate
        UNION ALL SELECT gate_id, -delta FROM gate_delta
        UNION ALL SELECT gate_id, n FROM tally
    ) sums GROUP BY gate_id HAVING sum(n) <> 0
) drifted;
