package sqlite

import (
	"database/sql/driver"
	"encoding/json"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// write writes c.
func (t *tx) write(c *store.Changes) {
	t.put("update_states", rowsOf(c.States, givenState))
	t.release(c.Release)
	// Before the edits: a row of ready is found by the priority it was put there with.
	t.put("unqueue_ready", givenIDs(c.Unqueue))
	t.put("unqueue_parked", givenIDs(c.Unqueue))
	t.put("edit_tasks", rowsOf(c.Edits, givenEdit))
	t.put("insert_shapes", rowsOf(c.Shapes, givenShape))
	t.put("enqueue", givenIDs(c.Enqueue))
	t.put("insert_tally_events", givenIDs(c.Tally))
	t.put("set_checks", rowsOf(c.Checks, givenCheck))
	t.put("insert_events", rowsOf(c.Ended, givenEvent))
	t.put("insert_batch_deltas", rowsOf(c.BatchEnds, givenEnd))
	t.put("count_late", givenIDs(c.Late))
	if t.s.deadEnds {
		t.put("insert_dead_ends", givenIDs(c.Futile))
	}
	t.put("insert_deliveries", rowsOf(c.Deliveries, givenDelivery), micros(t.now))
	t.put("insert_history", rowsOf(c.History, givenHistory))
	t.put("trim_history", givenIDs(c.Repeated()), int64(store.MaxHistory))
}

// delta is what is added to a gate.
type delta struct {
	gate task.GateID
	n    int
}

// release takes ids out of running, and appends one delta for each gate where they held a slot.
func (t *tx) release(ids []task.ID) {
	var deltas []delta
	index := map[task.GateID]int{}
	add := func(gate task.GateID, n int) {
		i, ok := index[gate]
		if !ok {
			i, index[gate] = len(deltas), len(deltas)
			deltas = append(deltas, delta{gate: gate})
		}
		deltas[i].n += n
	}
	t.find("release", ids, func(r *row) error {
		raw := r.raw()
		if len(raw) <= len("[]") {
			return nil
		}
		var gates []task.GateID
		if err := json.Unmarshal(raw, &gates); err != nil {
			return err
		}
		for _, gate := range gates {
			add(gate, -1)
		}
		return nil
	})
	t.put("insert_deltas", rowsOf(deltas, func(d *delta, to []driver.Value) []driver.Value {
		return append(to, int64(d.gate), int64(d.n))
	}))
}

func givenEdit(item **task.Task, to []driver.Value) []driver.Value {
	t := *item
	return append(to, t.ID[:], string(t.Metadata), rulesJSON(t.Rules), int64(t.Priority), maybe(t.ExpectedCount),
		actionsJSON(t.OnCancel))
}

func givenCheck(c *store.Check, to []driver.Value) []driver.Value {
	return append(to, c.ID[:], micros(c.At))
}

func givenEvent(e *store.Ended, to []driver.Value) []driver.Value {
	return append(to, e.ID[:], flag(e.Succeeded))
}

func givenEnd(e *store.BatchEnd, to []driver.Value) []driver.Value {
	return append(to, e.ID[:], int64(e.Status), micros(e.At))
}

func givenHistory(h *store.HistoryRow, to []driver.Value) []driver.Value {
	return append(to, h.Task[:], micros(h.At), string(h.Cause), int64(h.To))
}

func givenDelivery(d *store.Delivery, to []driver.Value) []driver.Value {
	id := store.NewID()
	return append(to, id[:], d.Source[:], int64(d.Trigger), int64(d.Place), d.Host)
}
