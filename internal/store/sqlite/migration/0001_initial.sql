-- The tables of the PostgreSQL driver. Ids are their 16 bytes: hex() shows them, and x'…' or unhex('…', '-') looks for one.
-- Times are microseconds since 1970 in UTC, null for none. Booleans are 0 and 1. JSON and arrays are JSON text.
-- WITHOUT ROWID where rows are small: the row lives in the B-tree of its key, so finding it is one search instead of two.

-- Facts of a batch.
CREATE TABLE batch (
    id          BLOB PRIMARY KEY,
    requester   TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    scope       TEXT NOT NULL, -- empty: none
    metadata    TEXT NOT NULL,
    on_complete TEXT, -- null: none
    key         TEXT, -- the idempotency key with which it was created; null: none
    alive_at    INTEGER NOT NULL, -- when it was still needed, as far as retention knows: its age is no greater
    late        INTEGER NOT NULL DEFAULT 0 -- transactions that changed tasks that had ended
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_scope ON batch (scope, id) WHERE scope <> '';
CREATE INDEX batch_alive ON batch (alive_at);

-- Batches that retention has deleted, whose tasks are still to be deleted. No reader finds those by their batch any more.
CREATE TABLE expired (
    batch_id BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Creates that may be sent again: what a key that a client chose stands for, for a day.
CREATE TABLE idempotency_key (
    key        TEXT PRIMARY KEY,
    digest     BLOB NOT NULL, -- of the request
    batch_id   BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_key_created ON idempotency_key (created_at);

-- Which kinds a batch has, to list the batches of a kind.
CREATE TABLE batch_kind (
    kind     TEXT NOT NULL,
    batch_id BLOB NOT NULL,
    PRIMARY KEY (kind, batch_id)
) STRICT, WITHOUT ROWID;

-- Facts of a task. The hot path reads this table and never updates it. Rows are too big for a tree of keys.
CREATE TABLE task (
    id               BLOB PRIMARY KEY,
    batch_id         BLOB NOT NULL, -- retention deletes the batch first
    local_id         TEXT NOT NULL,
    name             TEXT NOT NULL,
    kind             TEXT NOT NULL,
    host             TEXT NOT NULL, -- of on_start
    priority         INTEGER NOT NULL,
    expected_count   INTEGER,
    dead_end_barrier INTEGER NOT NULL,
    metadata         TEXT NOT NULL,
    rules            TEXT, -- as sent; null: none
    on_start         TEXT NOT NULL,
    on_success       TEXT,
    on_failure       TEXT,
    on_cancel        TEXT,
    created_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX task_batch ON task (batch_id, id);
CREATE INDEX task_kind ON task (kind, id);

-- What changes while a task lives: narrow, and no index on anything that changes on the way of a task that succeeds.
-- The numbers of status are those of task.Status, the ends last. No condition has a list: SQLite would make a table of it for
-- every row that it writes, which took half the time of an update.
CREATE TABLE task_state (
    id             BLOB PRIMARY KEY REFERENCES task,
    status         INTEGER NOT NULL CHECK (status BETWEEN 1 AND 8),
    unmet          INTEGER NOT NULL,
    success        INTEGER NOT NULL DEFAULT 0 CHECK (success >= 0),
    failures       INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    attempt        INTEGER NOT NULL DEFAULT 0,
    start_failures INTEGER NOT NULL DEFAULT 0,
    start_status   INTEGER NOT NULL DEFAULT 0,
    start_error    TEXT NOT NULL DEFAULT '',
    claimed_at     INTEGER,
    started_at     INTEGER,
    ended_at       INTEGER,
    last_updated   INTEGER NOT NULL,
    failure_reason TEXT NOT NULL DEFAULT '',
    kind           TEXT NOT NULL,
    timeout        INTEGER NOT NULL, -- seconds
    has_children   INTEGER NOT NULL,
    end_actions    INTEGER NOT NULL,
    tells_batch    INTEGER NOT NULL,
    CHECK (unmet >= 0 OR status > 5),
    CHECK (status <> 1 OR unmet > 0),                         -- Waiting waits for something
    CHECK (status NOT BETWEEN 2 AND 4 OR unmet = 0),          -- what may start waits for nothing
    CHECK ((status > 5) = (ended_at IS NOT NULL)),            -- an end has its time
    CHECK (status NOT BETWEEN 3 AND 4 OR claimed_at IS NOT NULL),
    CHECK (status <> 4 OR started_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- For lists: what is in no place and did not succeed.
CREATE INDEX task_state_rest ON task_state (status, id) WHERE status = 1 OR status = 5 OR status = 7 OR status = 8;

-- A child waits for its parent.
CREATE TABLE link (
    parent_id        BLOB NOT NULL REFERENCES task,
    child_id         BLOB NOT NULL REFERENCES task,
    requires_success INTEGER NOT NULL,
    settled          INTEGER NOT NULL, -- the child knows of the parent's end since it was created
    PRIMARY KEY (parent_id, child_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX link_child ON link (child_id);

-- The places of live tasks.
CREATE TABLE ready (
    host     TEXT NOT NULL,
    rank     INTEGER NOT NULL, -- minus priority
    task_id  BLOB NOT NULL,
    PRIMARY KEY (host, rank, task_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE parked (
    task_id BLOB PRIMARY KEY,
    gate_id INTEGER NOT NULL,
    lane    INTEGER NOT NULL,
    host    TEXT NOT NULL,
    rank    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_lane ON parked (gate_id, lane, host, rank, task_id);
CREATE TABLE running (
    task_id  BLOB PRIMARY KEY,
    owner    BLOB NOT NULL,   -- the process that claimed it
    gates    TEXT NOT NULL,   -- where it holds a slot: a JSON array
    check_at INTEGER          -- when to look at its time-out; null: never
) STRICT, WITHOUT ROWID;
CREATE INDEX running_check ON running (check_at);

-- Rules. The numbers of type are those of task.RuleType. version 0: not yet known to the pump. Those of Concurrency and
-- Running count slots (running.gates); the others are tallied.
CREATE TABLE shape (
    id        INTEGER PRIMARY KEY,
    type      INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    status    INTEGER NOT NULL,
    fields    TEXT NOT NULL,
    version   INTEGER NOT NULL DEFAULT 0,
    walked_to BLOB NOT NULL DEFAULT x'' -- of a tallied shape that is new: up to which task its kind was walked
) STRICT;
CREATE INDEX shape_version ON shape (version);
CREATE INDEX shape_tallied ON shape (kind, type) WHERE type <> 0 OR status <> 4;
CREATE TABLE gate (
    id       INTEGER PRIMARY KEY,
    shape_id INTEGER NOT NULL REFERENCES shape,
    vals     TEXT NOT NULL, -- canonical JSON
    used     INTEGER NOT NULL CHECK (used >= 0),
    lanes    TEXT NOT NULL, -- a JSON array
    dirty    INTEGER NOT NULL
) STRICT;
CREATE INDEX gate_dirty ON gate (id) WHERE dirty;
CREATE INDEX gate_shape ON gate (shape_id, id); -- for lists
CREATE TABLE gate_delta (
    seq     INTEGER PRIMARY KEY,
    gate_id INTEGER NOT NULL,
    delta   INTEGER NOT NULL
) STRICT;

-- What tasks add to the gates of tallied shapes, and the tasks for which that is to be found anew. Gates of the type Lookup
-- are stored nowhere else; there n is 0.
CREATE TABLE tally (
    task_id BLOB NOT NULL,
    gate_id INTEGER NOT NULL,
    n       INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (task_id, gate_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tally_gate ON tally (gate_id, task_id);
CREATE TABLE tally_event (
    seq     INTEGER PRIMARY KEY,
    task_id BLOB NOT NULL
) STRICT;
CREATE INDEX tally_event_task ON tally_event (task_id);

-- Parents that ended and whose children have not all heard of it.
CREATE TABLE dep_event (
    seq         INTEGER PRIMARY KEY,
    parent_id   BLOB NOT NULL,
    succeeded   INTEGER NOT NULL,
    after_child BLOB NOT NULL DEFAULT x''
) STRICT;

-- How far the batches are that have an on_complete. Only the pump changes these rows.
CREATE TABLE batch_progress (
    batch_id  BLOB PRIMARY KEY,
    remaining INTEGER NOT NULL CHECK (remaining >= 0), -- tasks that have not ended, before batch_delta is folded
    success   INTEGER NOT NULL DEFAULT 0,
    failure   INTEGER NOT NULL DEFAULT 0,
    canceled  INTEGER NOT NULL DEFAULT 0,
    ended_at  INTEGER -- the last end; null: none
) STRICT, WITHOUT ROWID;

-- Tasks of these batches that ended, counted by the transaction that ended them.
CREATE TABLE batch_delta (
    seq      INTEGER PRIMARY KEY,
    batch_id BLOB NOT NULL,
    success  INTEGER NOT NULL,
    failure  INTEGER NOT NULL,
    canceled INTEGER NOT NULL,
    ended_at INTEGER NOT NULL -- the last of them
) STRICT;

-- Parents of tasks that ended otherwise than by Success: they may be dead ends. One may stand here several times.
CREATE TABLE dead_end (
    seq     INTEGER PRIMARY KEY,
    task_id BLOB NOT NULL
) STRICT;

-- The outbox: end and cancel actions of tasks, and what batches send when they are complete. The numbers are those of task.Trigger and store.DeliveryState.
CREATE TABLE delivery (
    id               BLOB PRIMARY KEY,
    source_id        BLOB NOT NULL, -- the task, or the batch, whose action it is
    "trigger"        INTEGER NOT NULL,
    place            INTEGER NOT NULL,
    host             TEXT NOT NULL,
    state            INTEGER NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 3),
    leased           INTEGER NOT NULL DEFAULT 0, -- it is being sent
    next_at          INTEGER NOT NULL, -- when to send it, or when the lease of who sends it ends
    failures         INTEGER NOT NULL DEFAULT 0,
    earlier_failures INTEGER NOT NULL DEFAULT 0, -- of them, up to when it was dead and was retried by hand
    last_status      INTEGER NOT NULL DEFAULT 0,
    last_error       TEXT NOT NULL DEFAULT '',
    created_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX delivery_source ON delivery (source_id, "trigger", place);
CREATE INDEX delivery_due ON delivery (host, next_at) WHERE state = 1;
-- For lists. One for all states would be written by every end.
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 3;
CREATE INDEX delivery_dead_host ON delivery (host, id) WHERE state = 3;

-- What attempts to send deliveries came to.
CREATE TABLE delivery_attempt (
    seq         INTEGER PRIMARY KEY,
    delivery_id BLOB NOT NULL REFERENCES delivery,
    at          INTEGER NOT NULL, -- when it began
    took        INTEGER NOT NULL, -- microseconds
    status      INTEGER NOT NULL, -- 0: no answer
    error       TEXT NOT NULL,    -- empty: none
    answer      TEXT NOT NULL     -- how its body begins
) STRICT;
CREATE INDEX delivery_attempt_delivery ON delivery_attempt (delivery_id, seq);

-- Transitions of tasks that no time in their state tells of.
CREATE TABLE history (
    seq     INTEGER PRIMARY KEY,
    task_id BLOB NOT NULL REFERENCES task,
    at      INTEGER NOT NULL,
    cause   TEXT NOT NULL,    -- a task.Cause
    status  INTEGER NOT NULL  -- where it led
) STRICT;
CREATE INDEX history_task ON history (task_id, seq);

-- Processes that claim; one whose lease has run out is dead.
CREATE TABLE process (
    id      BLOB PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
