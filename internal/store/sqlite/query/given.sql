-- The rows that Go gives to a statement, as tables. Each is read by the statements named after it; what it holds is set
-- before each of them. See given.go.
-- name: given
CREATE VIRTUAL TABLE temp.given_id USING given(id);
CREATE VIRTUAL TABLE temp.given_batch USING given(id, requester, scope, metadata, on_complete, key);
CREATE VIRTUAL TABLE temp.given_key USING given(key, batch_id, digest);
CREATE VIRTUAL TABLE temp.given_progress USING given(batch_id, remaining);
CREATE VIRTUAL TABLE temp.given_kind USING given(batch_id, kind);
CREATE VIRTUAL TABLE temp.given_task USING given(id, batch_id, local_id, name, kind, host, priority, expected_count,
    dead_end_barrier, metadata, rules, on_start, on_success, on_failure);
CREATE VIRTUAL TABLE temp.given_state USING given(id, status, unmet, success, failures, attempt, start_failures,
    start_status, start_error, claimed_at, started_at, ended_at, last_updated, failure_reason, kind, timeout,
    has_children, end_actions, tells_batch);
CREATE VIRTUAL TABLE temp.given_link USING given(parent_id, child_id, requires_success, settled);
CREATE VIRTUAL TABLE temp.given_shape USING given(id, type, kind, status, fields);
CREATE VIRTUAL TABLE temp.given_edit USING given(id, metadata, rules, priority, expected_count, on_cancel);
CREATE VIRTUAL TABLE temp.given_delta USING given(gate_id, delta);
CREATE VIRTUAL TABLE temp.given_tally USING given(task_id, gate_id, n);
CREATE VIRTUAL TABLE temp.given_check USING given(id, check_at);
CREATE VIRTUAL TABLE temp.given_event USING given(parent_id, succeeded);
CREATE VIRTUAL TABLE temp.given_end USING given(id, status, ended_at);
CREATE VIRTUAL TABLE temp.given_batch_delta USING given(batch_id, success, failure, canceled, ended_at);
CREATE VIRTUAL TABLE temp.given_delivery USING given(id, source_id, trigger, place, host);
CREATE VIRTUAL TABLE temp.given_history USING given(task_id, at, cause, status);
CREATE VIRTUAL TABLE temp.given_attempt USING given(delivery_id, state, next_at, status, error, at, took, answer);
CREATE VIRTUAL TABLE temp.given_wake USING given(gate_id, lane, n);
CREATE VIRTUAL TABLE temp.given_claim USING given(id, gates, check_at);
CREATE VIRTUAL TABLE temp.given_ready USING given(host, rank, id);
CREATE VIRTUAL TABLE temp.given_parked USING given(id, gate_id, lane, host, rank);
CREATE VIRTUAL TABLE temp.given_hold USING given(id, gates);
CREATE VIRTUAL TABLE temp.given_gate USING given(id, shape_id, vals, used, lanes, dirty);
