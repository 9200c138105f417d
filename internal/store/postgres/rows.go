package postgres

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// stateScan reads the columns of a state row in the order in which every statement lists them. They may all be null.
type stateScan struct {
	id                               pgtype.UUID
	status, startStatus              pgtype.Int2
	unmet, attempt, startFail        pgtype.Int4
	timeout                          pgtype.Int4
	success, failures                pgtype.Int8
	startError, reason, kind         pgtype.Text
	claimed, started, ended, updated pgtype.Timestamptz
	hasChildren, endActions, tells   pgtype.Bool
}

func (c *stateScan) into() []any {
	return []any{&c.id, &c.status, &c.unmet, &c.success, &c.failures, &c.attempt, &c.startFail, &c.startStatus,
		&c.startError, &c.claimed, &c.started, &c.ended, &c.updated, &c.reason, &c.kind, &c.timeout, &c.hasChildren,
		&c.endActions, &c.tells}
}

func (c *stateScan) get() task.State {
	return task.State{
		ID: c.id.Bytes, Status: task.Status(c.status.Int16), Unmet: int(c.unmet.Int32),
		Success: c.success.Int64, Failures: c.failures.Int64,
		Attempt: int(c.attempt.Int32), StartFailures: int(c.startFail.Int32),
		StartStatus: int(c.startStatus.Int16), StartError: c.startError.String,
		ClaimedAt: timeOf(c.claimed), StartedAt: timeOf(c.started), EndedAt: timeOf(c.ended),
		LastUpdated: timeOf(c.updated), FailureReason: c.reason.String,
		Kind: c.kind.String, Timeout: time.Duration(c.timeout.Int32) * time.Second,
		HasChildren: c.hasChildren.Bool, EndActions: c.endActions.Bool, TellsBatch: c.tells.Bool,
	}
}

// maybe is nil for a row that is not there.
func (c *stateScan) maybe() *task.State {
	if !c.id.Valid {
		return nil
	}
	state := c.get()
	return &state
}

func timeOf(t pgtype.Timestamptz) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

// nullTime is null for the zero time.
func nullTime(t time.Time) pgtype.Timestamptz { return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()} }

// times hands times to pgx as an array, as uuids does ids. Made by nullTime, the zero time is null.
type times []pgtype.Timestamptz

// Dimensions is for pgtype.ArrayGetter.
func (a times) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(a)), LowerBound: 1}}
}

// Index is for pgtype.ArrayGetter.
func (a times) Index(i int) any { return &a[i] }

// IndexType is for pgtype.ArrayGetter.
func (a times) IndexType() any { return (*pgtype.Timestamptz)(nil) }

// nullJSON is null for nothing.
func nullJSON(raw []byte) *string {
	if len(raw) == 0 {
		return nil
	}
	s := string(raw)
	return &s
}

// lockedScan reads the columns of a state row that the statement locks, and behind them its place.
type lockedScan struct {
	stateScan
	place pgtype.TID
}

func (c *lockedScan) into() []any { return append(c.stateScan.into(), &c.place) }

// maybe is nil for a row that is not there. It remembers the place of the row in t.
func (c *lockedScan) maybe(t *tx) *task.State {
	state := c.stateScan.maybe()
	if state != nil {
		t.places[state.ID] = c.place
	}
	return state
}

// lockStates queues the locking of state rows, waiting for who has them; each gets them when the batch is flushed.
func (t *tx) lockStates(ids []task.ID, each func(task.State)) {
	var scan lockedScan
	into := scan.into()
	t.rows("lock_states", []any{uuids(ids)}, func(rows pgx.Rows) error {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		each(*scan.maybe(t))
		return nil
	})
}

// factsScan reads the columns of a task's facts.
type factsScan struct {
	task                                     task.Task
	priority                                 int16
	rules, start, success, failure, onCancel []byte
	metadata                                 []byte
}

func (c *factsScan) into() []any {
	t := &c.task
	return []any{(*[16]byte)(&t.ID), (*[16]byte)(&t.BatchID), &t.LocalID, &t.Name, &t.Kind, &c.priority, &t.ExpectedCount,
		&t.DeadEndBarrier, &c.metadata, &c.rules, &c.start, &c.success, &c.failure, &c.onCancel, &t.CreatedAt}
}

func (c *factsScan) get() (*task.Task, error) {
	t := c.task
	t.Priority = int(c.priority)
	t.Metadata = json.RawMessage(c.metadata)
	t.CreatedAt = t.CreatedAt.UTC()
	var err error
	if len(c.rules) > 0 {
		if t.Rules, err = task.ParseRules(c.rules); err != nil {
			return nil, err
		}
	}
	start := []task.Action{}
	for raw, into := range map[*[]byte]*[]task.Action{
		&c.start: &start, &c.success: &t.OnSuccess, &c.failure: &t.OnFailure, &c.onCancel: &t.OnCancel,
	} {
		if len(*raw) == 0 {
			continue
		}
		if *into, err = task.ParseActions(*raw); err != nil {
			return nil, err
		}
	}
	if len(start) > 0 {
		t.OnStart = start[0]
	}
	return &t, nil
}

// gateScan reads the columns of a gate.
type gateScan struct {
	id, shape int64
	values    string
	used      int64
	lanes     []int64
	dirty     bool
}

func (c *gateScan) into() []any {
	return []any{&c.id, &c.shape, &c.values, &c.used, &c.lanes, &c.dirty}
}

func (c *gateScan) get() store.GateRow {
	g := store.GateRow{
		Gate: task.Gate{ID: task.GateID(c.id), Shape: task.ShapeID(c.shape), Values: c.values},
		Used: int(c.used), Dirty: c.dirty,
	}
	for _, l := range c.lanes {
		g.Lanes = append(g.Lanes, task.Lane(l))
	}
	return g
}

// shapeScan reads the columns of a shape.
type shapeScan struct {
	shape        task.Shape
	kind, status int16
	fields       []byte
}

func (c *shapeScan) into() []any {
	return []any{(*int64)(&c.shape.ID), &c.kind, &c.shape.Kind, &c.status, &c.fields}
}

func (c *shapeScan) get() (task.Shape, error) {
	shape := c.shape
	shape.Type, shape.Status = task.RuleType(c.kind), task.Status(c.status)
	return shape, json.Unmarshal(c.fields, &shape.Fields)
}

// arrayText is the text form of an integer array, for arrays of arrays, which unnest cannot take apart.
func arrayText[T ~int | ~int64](values []T) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(int64(v), 10))
	}
	b.WriteByte('}')
	return b.String()
}

func bigints[T ~int64](ids []T) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}
