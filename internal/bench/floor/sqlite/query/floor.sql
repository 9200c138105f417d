-- The statements for PostgreSQL, with ids as SQLite's driver keeps them. Each is run once a row, prepared, in a transaction
-- for many: that is the fastest way that SQLite has.

-- name: create_task
CREATE TABLE task (id BLOB PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, metadata TEXT NOT NULL, on_start TEXT NOT NULL) STRICT;
-- name: create_state
CREATE TABLE task_state (
    id BLOB PRIMARY KEY, status INTEGER NOT NULL, success INTEGER NOT NULL DEFAULT 0, claimed_at INTEGER, started_at INTEGER, ended_at INTEGER
) STRICT, WITHOUT ROWID;
-- name: create_ready
CREATE TABLE ready (task_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
-- name: create_running
CREATE TABLE running (task_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;

-- name: insert_tasks
INSERT INTO task VALUES (?1, 'floor', 'Task', ?2, ?3);
-- name: insert_states
INSERT INTO task_state (id, status) VALUES (?1, 2);
-- name: insert_ready
INSERT INTO ready VALUES (?1);

-- name: take_ready
DELETE FROM ready WHERE task_id = ?1;
-- name: insert_running
INSERT INTO running VALUES (?1);
-- name: set_claimed
UPDATE task_state SET status = 3, claimed_at = 1767225600000000 WHERE id = ?1;
-- name: read_claimed
SELECT id, on_start FROM task WHERE id = ?1;

-- name: set_running
UPDATE task_state SET status = 4, started_at = 1767225600000000 WHERE id = ?1;

-- name: delete_running
DELETE FROM running WHERE task_id = ?1;
-- name: set_ended
UPDATE task_state SET status = 6, ended_at = 1767225600000000 WHERE id = ?1;

-- name: add_counts
UPDATE task_state SET success = success + 1 WHERE id = ?1;

-- name: read_page
SELECT t.id, t.kind, t.name, s.status, s.success FROM task t JOIN task_state s ON s.id = t.id ORDER BY t.id DESC LIMIT 50;
