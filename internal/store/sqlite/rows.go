package sqlite

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// row reads the values of a row in their order. The tables are STRICT, so a value has the type of its column or is
// null, which reads as zero.
type row struct {
	values []driver.Value
	at     int
}

func (r *row) next() driver.Value {
	r.at++
	return r.values[r.at-1]
}

func (r *row) int64() int64 {
	n, _ := r.next().(int64)
	return n
}

func (r *row) int() int { return int(r.int64()) }

func (r *row) bool() bool { return r.int64() != 0 }

// maybe is nil for null.
func (r *row) maybe() *int64 {
	if n, ok := r.next().(int64); ok {
		return &n
	}
	return nil
}

func (r *row) text() string {
	s, _ := r.next().(string)
	return s
}

// raw is nil for null.
func (r *row) raw() []byte {
	if s := r.text(); s != "" {
		return []byte(s)
	}
	return nil
}

func (r *row) id() (id task.ID) {
	b, _ := r.next().([]byte)
	copy(id[:], b)
	return id
}

func (r *row) time() time.Time {
	n, ok := r.next().(int64)
	if !ok {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// state reads the columns of a state row in the order in which every statement lists them.
func (r *row) state() task.State {
	return task.State{
		ID: r.id(), Status: task.Status(r.int()), Unmet: r.int(), Success: r.int64(), Failures: r.int64(),
		Attempt: r.int(), StartFailures: r.int(), StartStatus: r.int(), StartError: r.text(),
		ClaimedAt: r.time(), StartedAt: r.time(), EndedAt: r.time(), LastUpdated: r.time(),
		FailureReason: r.text(), Kind: r.text(), Timeout: time.Duration(r.int64()) * time.Second,
		HasChildren: r.bool(), EndActions: r.bool(), TellsBatch: r.bool(),
	}
}

// task reads the columns of a task's facts, of which its time-out is in its state.
func (r *row) task() (*task.Task, error) {
	t := &task.Task{
		ID: r.id(), BatchID: r.id(), LocalID: r.text(), Name: r.text(), Kind: r.text(), Priority: r.int(),
		ExpectedCount: r.maybe(), DeadEndBarrier: r.bool(), Metadata: r.raw(),
	}
	if rules := r.raw(); rules != nil {
		var err error
		if t.Rules, err = task.ParseRules(rules); err != nil {
			return nil, fmt.Errorf("rules of task %s: %w", t.ID, err)
		}
	}
	var start []task.Action
	for _, into := range []*[]task.Action{&start, &t.OnSuccess, &t.OnFailure, &t.OnCancel} {
		actions := r.raw()
		if actions == nil {
			continue
		}
		var err error
		if *into, err = task.ParseActions(actions); err != nil {
			return nil, fmt.Errorf("actions of task %s: %w", t.ID, err)
		}
	}
	if len(start) != 1 {
		return nil, fmt.Errorf("on_start of task %s: %d actions", t.ID, len(start))
	}
	t.OnStart = start[0]
	t.CreatedAt = r.time()
	return t, nil
}

// facts reads what the pump needs of a task, but its on_failure.
func (r *row) facts() store.Facts {
	return store.Facts{
		ID: r.id(), Kind: r.text(), Priority: r.int(), Host: r.text(), Metadata: r.raw(), Rules: r.raw(), OnStart: r.raw(),
		ExpectedCount: r.maybe(),
	}
}

// found reads a task where it waits.
func (r *row) found() store.Found {
	facts, state := r.facts(), r.state()
	return store.Found{Facts: facts, State: &state}
}

func (r *row) gate() (store.GateRow, error) {
	g := store.GateRow{
		Gate: task.Gate{ID: task.GateID(r.int64()), Shape: task.ShapeID(r.int64()), Values: r.text()}, Used: r.int(),
	}
	err := json.Unmarshal(r.raw(), &g.Lanes)
	g.Dirty = r.bool()
	return g, err
}

func (r *row) shape() (task.Shape, error) {
	s := task.Shape{
		ID: task.ShapeID(r.int64()), Type: task.RuleType(r.int()), Kind: r.text(), Status: task.Status(r.int()),
	}
	return s, json.Unmarshal(r.raw(), &s.Fields)
}

// micros is null for the zero time.
func micros(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func flag(b bool) driver.Value {
	if b {
		return int64(1)
	}
	return int64(0)
}

func maybe[T int64 | string](v *T) driver.Value {
	if v == nil {
		return nil
	}
	return *v
}

// array is the JSON of values, [] for none.
func array[T any](values []T) driver.Value {
	if len(values) == 0 {
		return "[]"
	}
	return object(values)
}

func object(value any) driver.Value {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("sqlite: %v", err)) // numbers and texts
	}
	return string(raw)
}

func rulesJSON(rules []task.Rule) driver.Value {
	if len(rules) == 0 {
		return nil
	}
	return string(task.MarshalRules(rules))
}

func actionsJSON(actions []task.Action) driver.Value {
	if len(actions) == 0 {
		return nil
	}
	return string(task.MarshalActions(actions))
}
