-- There are no foreign keys: each would cost a look-up a row, and rows that belong together are written by one
-- transaction. The tables that grow with every task are vacuumed as soon as a twentieth of them is dead, so that the space of
-- what retention deletes is used again.

-- Facts of a batch.
CREATE TABLE batch (
    id          uuid PRIMARY KEY,
    requester   text NOT NULL,
    created_at  timestamptz NOT NULL,
    scope       text NOT NULL, -- empty: none
    metadata    json NOT NULL,
    on_complete json, -- null: none
    key         text, -- the idempotency key with which it was created; null: none
    alive_at    timestamptz NOT NULL, -- when it was still needed, as far as retention knows: its age is no greater
    late        bigint NOT NULL DEFAULT 0 -- transactions that changed tasks that had ended
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX batch_scope ON batch (scope, id) WHERE scope <> '';
CREATE INDEX batch_alive ON batch (alive_at);

-- Batches that retention has deleted, whose tasks are still to be deleted. No reader finds those by their batch any more.
CREATE TABLE expired (
    batch_id uuid PRIMARY KEY
);

-- Creates that may be sent again: what a key that a client chose stands for, for a day.
CREATE TABLE idempotency_key (
    key        text PRIMARY KEY,
    digest     bytea NOT NULL, -- of the request
    batch_id   uuid NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX idempotency_key_created ON idempotency_key (created_at);

-- Which kinds a batch has, to list the batches of a kind.
CREATE TABLE batch_kind (
    kind     text NOT NULL,
    batch_id uuid NOT NULL,
    PRIMARY KEY (kind, batch_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Facts of a task. The hot path reads this table and never updates it.
CREATE TABLE task (
    id               uuid PRIMARY KEY,
    batch_id         uuid NOT NULL,
    local_id         text NOT NULL,
    name             text NOT NULL,
    kind             text NOT NULL,
    host             text NOT NULL, -- of on_start
    priority         smallint NOT NULL,
    expected_count   bigint,
    dead_end_barrier boolean NOT NULL,
    metadata         json NOT NULL,
    rules            json, -- as sent; null: none
    on_start         json NOT NULL,
    on_success       json,
    on_failure       json,
    on_cancel        json,
    created_at       timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX task_batch ON task (batch_id, id);
CREATE INDEX task_kind ON task (kind, id);

-- What changes while a task lives: narrow, and no index on anything that changes, so that updates stay in the page.
-- The numbers of status are those of task.Status.
CREATE TABLE task_state (
    id             uuid PRIMARY KEY,
    status         smallint NOT NULL CHECK (status BETWEEN 1 AND 8),
    unmet          integer NOT NULL,
    success        bigint NOT NULL DEFAULT 0 CHECK (success >= 0),
    failures       bigint NOT NULL DEFAULT 0 CHECK (failures >= 0),
    attempt        integer NOT NULL DEFAULT 0,
    start_failures integer NOT NULL DEFAULT 0,
    start_status   smallint NOT NULL DEFAULT 0,
    start_error    text NOT NULL DEFAULT '',
    claimed_at     timestamptz,
    started_at     timestamptz,
    ended_at       timestamptz,
    last_updated   timestamptz NOT NULL,
    failure_reason text NOT NULL DEFAULT '',
    kind           text NOT NULL,
    timeout        integer NOT NULL, -- seconds
    has_children   boolean NOT NULL,
    end_actions    boolean NOT NULL,
    tells_batch    boolean NOT NULL,
    CHECK (unmet >= 0 OR status > 5),
    CHECK (status <> 1 OR unmet > 0),                         -- Waiting waits for something
    CHECK (status NOT BETWEEN 2 AND 4 OR unmet = 0),          -- what may start waits for nothing
    CHECK ((status > 5) = (ended_at IS NOT NULL)),            -- an end has its time
    CHECK (status NOT BETWEEN 3 AND 4 OR claimed_at IS NOT NULL),
    CHECK (status <> 4 OR started_at IS NOT NULL)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- Tasks in statuses that are rare, for lists: Paused, and the ends other than Success, whose rows are written once.
CREATE TABLE rare_status (
    status  smallint NOT NULL CHECK (status IN (5, 7, 8)),
    task_id uuid NOT NULL,
    PRIMARY KEY (status, task_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- A child waits for its parent.
CREATE TABLE link (
    parent_id        uuid NOT NULL,
    child_id         uuid NOT NULL,
    requires_success boolean NOT NULL,
    settled          boolean NOT NULL, -- the child knows of the parent's end since it was created
    PRIMARY KEY (parent_id, child_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX link_child ON link (child_id);

-- The places of live tasks.
CREATE TABLE ready (
    host     text NOT NULL,
    rank     smallint NOT NULL, -- minus priority
    task_id  uuid NOT NULL,
    PRIMARY KEY (host, rank, task_id)
);
CREATE TABLE parked (
    task_id uuid PRIMARY KEY,
    gate_id bigint NOT NULL,
    lane    bigint NOT NULL,
    host    text NOT NULL,
    rank    smallint NOT NULL
);
CREATE INDEX parked_lane ON parked (gate_id, lane, host, rank, task_id);
CREATE TABLE running (
    task_id  uuid PRIMARY KEY,
    owner    uuid NOT NULL,    -- the process that claimed it
    gates    bigint[] NOT NULL, -- where it holds a slot
    check_at timestamptz       -- when to look at its time-out; null: never
);
CREATE INDEX running_check ON running (check_at);

-- Rules. The numbers of type are those of task.RuleType. version 0: not yet known to the pump. Those of Concurrency and
-- Running count slots (running.gates); the others are tallied.
CREATE TABLE shape (
    id      bigint PRIMARY KEY,
    type    smallint NOT NULL,
    kind    text NOT NULL,
    status  smallint NOT NULL,
    fields  json NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    -- Of a tallied shape that is new: transactions up to the horizon may not know it; null: no tick has seen it, 0: one has.
    -- And up to which task its kind was walked.
    horizon   xid8,
    walked_to uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);
CREATE INDEX shape_version ON shape (version);
CREATE INDEX shape_tallied ON shape (kind, type) WHERE type <> 0 OR status <> 4;
CREATE TABLE gate (
    id       bigint PRIMARY KEY,
    shape_id bigint NOT NULL REFERENCES shape,
    vals     text NOT NULL, -- canonical JSON
    used     bigint NOT NULL CHECK (used >= 0),
    lanes    bigint[] NOT NULL,
    dirty    boolean NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX gate_dirty ON gate (id) WHERE dirty;
CREATE INDEX gate_shape ON gate (shape_id, id); -- for lists
CREATE TABLE gate_delta (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gate_id bigint NOT NULL,
    delta   integer NOT NULL
);

-- What tasks add to the gates of tallied shapes, and the tasks for which that is to be found anew. Gates of the type Lookup
-- are stored nowhere else; there n is 0.
CREATE TABLE tally (
    task_id uuid NOT NULL,
    gate_id bigint NOT NULL,
    n       bigint NOT NULL CHECK (n >= 0),
    PRIMARY KEY (task_id, gate_id)
);
CREATE INDEX tally_gate ON tally (gate_id, task_id);
CREATE TABLE tally_event (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id uuid NOT NULL
);
CREATE INDEX tally_event_task ON tally_event (task_id);

-- Parents that ended and whose children have not all heard of it.
CREATE TABLE dep_event (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent_id   uuid NOT NULL,
    succeeded   boolean NOT NULL,
    after_child uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);

-- How far the batches are that have an on_complete. Only the pump changes these rows.
CREATE TABLE batch_progress (
    batch_id  uuid PRIMARY KEY,
    remaining integer NOT NULL CHECK (remaining >= 0), -- tasks that have not ended, before batch_delta is folded
    success   integer NOT NULL DEFAULT 0,
    failure   integer NOT NULL DEFAULT 0,
    canceled  integer NOT NULL DEFAULT 0,
    ended_at  timestamptz -- the last end; null: none
) WITH (fillfactor = 50);

-- Tasks of these batches that ended, counted by the transaction that ended them.
CREATE TABLE batch_delta (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL,
    success  integer NOT NULL,
    failure  integer NOT NULL,
    canceled integer NOT NULL,
    ended_at timestamptz NOT NULL -- the last of them
);

-- Parents of tasks that ended otherwise than by Success: they may be dead ends. One may stand here several times.
CREATE TABLE dead_end (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id uuid NOT NULL
);

-- The outbox: end and cancel actions of tasks, and what batches send when they are complete. The numbers are those of task.Trigger and store.DeliveryState.
CREATE TABLE delivery (
    id               uuid PRIMARY KEY,
    source_id        uuid NOT NULL, -- the task, or the batch, whose action it is
    trigger          smallint NOT NULL,
    place            smallint NOT NULL,
    host             text NOT NULL,
    state            smallint NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 3),
    leased           boolean NOT NULL DEFAULT false, -- it is being sent
    next_at          timestamptz NOT NULL, -- when to send it, or when the lease of who sends it ends
    failures         integer NOT NULL DEFAULT 0,
    earlier_failures integer NOT NULL DEFAULT 0, -- of them, up to when it was dead and was retried by hand
    last_status      smallint NOT NULL DEFAULT 0,
    last_error       text NOT NULL DEFAULT '',
    created_at       timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX delivery_source ON delivery (source_id, trigger, place);
CREATE INDEX delivery_due ON delivery (host, next_at) WHERE state = 1;
-- For lists. One for all states would be written by every claim and every end.
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 3;
CREATE INDEX delivery_dead_host ON delivery (host, id) WHERE state = 3;

-- What attempts to send deliveries came to.
CREATE TABLE delivery_attempt (
    delivery_id uuid NOT NULL,
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL, -- when it began
    took        interval NOT NULL,
    status      smallint NOT NULL, -- 0: no answer
    error       text NOT NULL,     -- empty: none
    answer      text NOT NULL,     -- how its body begins
    PRIMARY KEY (delivery_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Transitions of tasks that no time in their state tells of.
CREATE TABLE history (
    task_id uuid NOT NULL,
    seq     bigint GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL,
    cause   text NOT NULL,     -- a task.Cause
    status  smallint NOT NULL, -- where it led
    PRIMARY KEY (task_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Processes that claim; one whose lease has run out is dead.
CREATE TABLE process (
    id      uuid PRIMARY KEY,
    expires timestamptz NOT NULL
);

-- Counts how often a process told the others that there is work that it cannot take.
CREATE SEQUENCE notification;

-- Counts how often a process found another one pumping, which looks then at what others have put into its queues.
CREATE SEQUENCE pump_busy;

-- Transactions whose process may not know yet that they are committed. They are not known by their ids: PostgreSQL gives
-- an id again after a crash or a fail-over that lost its transaction.
CREATE TABLE mark (
    token     uuid PRIMARY KEY,
    committed boolean NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The lock of the pump, one row a shard.
CREATE TABLE pump (
    shard integer PRIMARY KEY,
    epoch integer NOT NULL DEFAULT 0 -- grows when shapes are deleted, which processes remember
);
INSERT INTO pump VALUES (0);
