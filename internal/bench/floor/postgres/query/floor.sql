-- The life of a task by hand: the rows that any service of this sort has to write, and no more. Narrow hot tables, no
-- index on what changes, every statement for many tasks.

-- name: create_task
CREATE TABLE task (id uuid PRIMARY KEY, kind text NOT NULL, name text NOT NULL, metadata json NOT NULL, on_start json NOT NULL);
-- name: create_state
CREATE TABLE task_state (
    id uuid PRIMARY KEY, status smallint NOT NULL, success bigint NOT NULL DEFAULT 0, claimed_at timestamptz, started_at timestamptz, ended_at timestamptz
) WITH (fillfactor = 50);
-- name: create_ready
CREATE TABLE ready (task_id uuid PRIMARY KEY);
-- name: create_running
CREATE TABLE running (task_id uuid PRIMARY KEY);

-- name: insert_tasks
INSERT INTO task SELECT unnest($1::uuid[]), 'floor', 'Task', unnest($2::json[]), unnest($3::json[]);
-- name: insert_states
INSERT INTO task_state (id, status) SELECT u.id, 2 FROM unnest($1::uuid[]) AS u(id);
-- name: insert_ready
INSERT INTO ready SELECT u.id FROM unnest($1::uuid[]) AS u(id);

-- name: take_ready
DELETE FROM ready WHERE task_id = ANY($1::uuid[]);
-- name: insert_running
INSERT INTO running SELECT u.id FROM unnest($1::uuid[]) AS u(id);
-- name: set_claimed
UPDATE task_state SET status = 3, claimed_at = now() WHERE id = ANY($1::uuid[]);
-- name: read_claimed
SELECT id, on_start FROM task WHERE id = ANY($1::uuid[]);

-- name: set_running
UPDATE task_state SET status = 4, started_at = now() WHERE id = ANY($1::uuid[]);

-- name: delete_running
DELETE FROM running WHERE task_id = ANY($1::uuid[]);
-- name: set_ended
UPDATE task_state SET status = 6, ended_at = now() WHERE id = ANY($1::uuid[]);

-- name: add_counts
UPDATE task_state SET success = success + 1 WHERE id = ANY($1::uuid[]);

-- name: read_page
SELECT t.id, t.kind, t.name, s.status, s.success FROM task t JOIN task_state s ON s.id = t.id ORDER BY t.id DESC LIMIT 50;
