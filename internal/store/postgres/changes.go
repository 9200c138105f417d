package postgres

import (
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// write queues c. The state rows of all its tasks are locked by this transaction, or are its own.
func (t *tx) write(c *store.Changes) {
	t.updateStates(c.States)
	if len(c.Release) > 0 {
		t.enter(gateDeltas, "release", uuids(c.Release))
	}
	if len(c.Unqueue) > 0 { // before the edits: a row of ready is found by the priority it was put there with
		t.exec("unqueue_ready", uuids(c.Unqueue))
		t.exec("unqueue_parked", uuids(c.Unqueue))
	}
	t.editTasks(c.Edits)
	t.insertShapes(c.Shapes)
	t.enqueue(c.Enqueue)
	if len(c.Tally) > 0 {
		t.exec("insert_tally_events", uuids(c.Tally))
	}
	t.setChecks(c.Checks)
	if n := len(c.Ended); n > 0 {
		ids, succeeded := make(uuids, n), make([]bool, n)
		for i, e := range c.Ended {
			ids[i], succeeded[i] = e.ID, e.Succeeded
		}
		t.enter(events, "insert_events", ids, succeeded)
	}
	t.insertBatchDeltas(c.BatchEnds)
	if len(c.Late) > 0 {
		t.exec("count_late", uuids(c.Late))
	}
	if len(c.Unpaused) > 0 {
		t.exec("delete_paused", uuids(c.Unpaused))
	}
	if n := len(c.Rare); n > 0 {
		ids, statuses := make(uuids, n), make([]int16, n)
		for i, r := range c.Rare {
			ids[i], statuses[i] = r.ID, int16(r.Status)
		}
		t.exec("insert_rare_status", statuses, ids)
	}
	if len(c.Futile) > 0 && t.s.deadEnds {
		t.exec("insert_dead_ends", uuids(c.Futile))
	}
	t.insertDeliveries(c.Deliveries)
	t.insertHistory(c)
}

func (t *tx) insertBatchDeltas(ends []store.BatchEnd) {
	n := len(ends)
	if n == 0 {
		return
	}
	ids, statuses, at := make(uuids, n), make([]int16, n), make([]time.Time, n)
	for i, e := range ends {
		ids[i], statuses[i], at[i] = e.ID, int16(e.Status), e.At
	}
	t.enter(batchDeltas, "insert_batch_deltas", ids, statuses, at)
}

func (t *tx) insertHistory(c *store.Changes) {
	n := len(c.History)
	if n == 0 {
		return
	}
	ids, at, causes, statuses := make(uuids, n), make(times, n), make([]string, n), make([]int16, n)
	for i, h := range c.History {
		ids[i], at[i], causes[i], statuses[i] = h.Task, nullTime(h.At), string(h.Cause), int16(h.To)
	}
	t.exec("insert_history", ids, at, causes, statuses)
	if repeated := c.Repeated(); len(repeated) > 0 {
		t.exec("trim_history", uuids(repeated), store.MaxHistory)
	}
}

func (t *tx) updateStates(states []task.State) {
	n := len(states)
	if n == 0 {
		return
	}
	places, statuses, unmet := make(tids, n), make([]int16, n), make([]int32, n)
	success, failures, attempts := make([]int64, n), make([]int64, n), make([]int32, n)
	startFailures, startStatuses, startErrors := make([]int32, n), make([]int16, n), make([]string, n)
	claimed, started, ended := make(times, n), make(times, n), make(times, n)
	updated, reasons := make(times, n), make([]string, n)
	for i := range states {
		s := &states[i]
		places[i], statuses[i], unmet[i] = t.places[s.ID], int16(s.Status), int32(s.Unmet)
		success[i], failures[i], attempts[i] = s.Success, s.Failures, int32(s.Attempt)
		startFailures[i], startStatuses[i], startErrors[i] = int32(s.StartFailures), int16(s.StartStatus), s.StartError
		claimed[i], started[i], ended[i] = nullTime(s.ClaimedAt), nullTime(s.StartedAt), nullTime(s.EndedAt)
		updated[i], reasons[i] = nullTime(s.LastUpdated), s.FailureReason
	}
	t.exec("update_states", places, statuses, unmet, success, failures, attempts, startFailures, startStatuses,
		startErrors, claimed, started, ended, updated, reasons)
}

func (t *tx) editTasks(tasks []*task.Task) {
	n := len(tasks)
	if n == 0 {
		return
	}
	ids, metadata, priorities := make(uuids, n), make([]string, n), make([]int16, n)
	rules, expected, cancels := make([]*string, n), make([]*int64, n), make([]*string, n)
	for i, k := range tasks {
		ids[i], metadata[i], priorities[i] = k.ID, string(k.Metadata), int16(k.Priority)
		rules[i] = rulesJSON(k.Rules)
		expected[i], cancels[i] = k.ExpectedCount, actionsJSON(k.OnCancel)
	}
	t.exec("edit_tasks", ids, metadata, rules, priorities, expected, cancels)
}

func (t *tx) setChecks(checks []store.Check) {
	n := len(checks)
	if n == 0 {
		return
	}
	ids, at := make(uuids, n), make(times, n)
	for i, c := range checks {
		ids[i], at[i] = c.ID, nullTime(c.At)
	}
	t.exec("lock_running", ids)
	t.exec("set_checks", ids, at)
}

func (t *tx) insertDeliveries(deliveries []store.Delivery) {
	n := len(deliveries)
	if n == 0 {
		return
	}
	ids, sources, triggers, places, hosts := make(uuids, n), make(uuids, n), make([]int16, n), make([]int16, n), make([]string, n)
	for i, d := range deliveries {
		ids[i], sources[i], triggers[i], places[i], hosts[i] = store.NewID(), d.Source, int16(d.Trigger), int16(d.Place), d.Host
	}
	t.exec("insert_deliveries", t.now, ids, sources, triggers, places, hosts)
}
