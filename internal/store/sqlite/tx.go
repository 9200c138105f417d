package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"taskrunner/internal/task"
)

// tx is one transaction. After the first error its methods do nothing, so that nothing is written past it: SQLite may
// have undone the transaction by itself, and each statement would be a transaction of its own.
type tx struct {
	s    *Store
	conn *conn
	// caller ends the transaction between statements, ctx also within one. Only reads have both: writes are short.
	caller, ctx context.Context
	err         error
	now         time.Time // writes only
	// committed is called after the commit, under the lock of the writer; nil: nothing.
	committed func()
}

// write runs fn in a transaction, alone, and commits it. There is nobody to conflict with, so it is tried once.
func (s *Store) write(ctx context.Context, fn func(t *tx) error) error {
	var c *conn
	select {
	case c = <-s.writers:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c == nil {
		return errClosed
	}
	defer func() { s.writers <- c }()
	t := &tx{s: s, conn: c, caller: ctx, ctx: context.WithoutCancel(ctx)}
	if err := t.run("BEGIN IMMEDIATE", func(t *tx) error {
		t.now = s.now()
		return fn(t)
	}); err != nil {
		return s.explain(err)
	}
	if t.committed != nil {
		t.committed()
	}
	return nil
}

// read runs fn in a transaction that sees one moment.
func (s *Store) read(ctx context.Context, fn func(t *tx) error) error {
	return s.using(ctx, s.readers, func(t *tx) error { return t.run("BEGIN", fn) })
}

// list is read for lists.
func (s *Store) list(ctx context.Context, fn func(t *tx) error) error {
	return s.lists.Do(ctx, func() error { return s.read(ctx, fn) })
}

// using lends fn a connection of from that reads, without a transaction.
func (s *Store) using(ctx context.Context, from chan *conn, fn func(t *tx) error) error {
	var c *conn
	var open bool
	select {
	case c, open = <-from:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !open {
		return errClosed
	}
	defer func() { from <- c }()
	if c == nil {
		var err error
		if c, err = s.connect(ctx, readerSettings); err != nil {
			return s.explain(err)
		}
	}
	return s.explain(fn(&tx{s: s, conn: c, caller: ctx, ctx: ctx}))
}

// run begins, runs fn and commits. It rolls back when something failed, also when fn panics.
func (t *tx) run(begin string, fn func(t *tx) error) error {
	t.query(begin, begin, nil)
	if t.err != nil {
		return t.err
	}
	done := false
	defer func() {
		if !done {
			_ = t.conn.exec(context.WithoutCancel(t.ctx), "ROLLBACK", nil) // fails when SQLite was faster
		}
	}()
	if err := fn(t); err != nil {
		return err
	}
	t.query("COMMIT", "COMMIT", nil)
	done = t.err == nil
	return t.err
}

// exec runs the statement name.
func (t *tx) exec(name string, args ...driver.Value) {
	t.query(name, t.s.queries.Get(name), nil, args...)
}

// rows runs the statement name and calls each for every row of its answer.
func (t *tx) rows(name string, each func(*row) error, args ...driver.Value) {
	t.query(name, t.s.queries.Get(name), each, args...)
}

// query runs sql. each is nil for a statement that does not answer.
func (t *tx) query(name, sql string, each func(*row) error, args ...driver.Value) {
	switch {
	case t.err != nil:
		return
	case t.caller.Err() != nil:
		t.err = context.Cause(t.caller)
		return
	case each == nil:
		t.err = t.conn.exec(t.ctx, sql, args)
	default:
		t.err = t.conn.query(t.ctx, sql, args, each)
	}
	if t.err != nil {
		t.err = fmt.Errorf("%s: %w", name, t.err)
	}
}

// put runs the statement name on rows that are given. Without any it does nothing.
func (t *tx) put(name string, rows givenRows, args ...driver.Value) {
	if rows.n > 0 {
		t.get(name, rows, nil, args...)
	}
}

// get is put for a statement that answers, and that is run without rows too.
func (t *tx) get(name string, rows givenRows, each func(*row) error, args ...driver.Value) {
	t.s.given.rows = rows
	defer func() { t.s.given.rows = givenRows{} }()
	t.rows(name, each, args...)
}

// find is get for ids, and does nothing without any.
func (t *tx) find(name string, ids []task.ID, each func(*row) error) {
	if len(ids) > 0 {
		t.get(name, givenIDs(ids), each)
	}
}
