package sqlite

import (
	"database/sql/driver"
	"fmt"
	"strings"

	"modernc.org/sqlite/vtab"

	"taskrunner/internal/task"
)

// given is the module of the virtual tables of query/given.sql: rows from Go for the statement in hand. They exist on
// the connection that writes, and under its lock.
type given struct{ rows givenRows }

// givenRows makes rows as they are read. row appends the values of row i to to.
type givenRows struct {
	n   int
	row func(i int, to []driver.Value) []driver.Value
}

// rowsOf gives a row for each of items.
func rowsOf[T any](items []T, row func(item *T, to []driver.Value) []driver.Value) givenRows {
	return givenRows{len(items), func(i int, to []driver.Value) []driver.Value { return row(&items[i], to) }}
}

func givenIDs(ids []task.ID) givenRows {
	return rowsOf(ids, func(id *task.ID, to []driver.Value) []driver.Value { return append(to, id[:]) })
}

func givenNumbers[T ~int64](numbers []T) givenRows {
	return rowsOf(numbers, func(n *T, to []driver.Value) []driver.Value { return append(to, int64(*n)) })
}

func givenTexts(texts []string) givenRows {
	return rowsOf(texts, func(s *string, to []driver.Value) []driver.Value { return append(to, *s) })
}

// Create makes a table; the arguments after the third are its columns.
func (g *given) Create(ctx vtab.Context, args []string) (vtab.Table, error) {
	columns := make([]string, 0, len(args))
	for _, arg := range args[3:] {
		columns = append(columns, `"`+strings.TrimSpace(arg)+`"`)
	}
	if err := ctx.Declare(fmt.Sprintf("CREATE TABLE given (%s)", strings.Join(columns, ", "))); err != nil {
		return nil, err
	}
	return givenTable{g}, nil
}

// Connect is Create: nothing is kept.
func (g *given) Connect(ctx vtab.Context, args []string) (vtab.Table, error) {
	return g.Create(ctx, args)
}

type givenTable struct{ given *given }

// BestIndex offers only to be read from the beginning.
func (t givenTable) BestIndex(info *vtab.IndexInfo) error {
	info.EstimatedCost, info.EstimatedRows = 100, 100
	return nil
}

// Open reads what is given now.
func (t givenTable) Open() (vtab.Cursor, error) { return &givenCursor{givenRows: t.given.rows}, nil }

// Disconnect and Destroy have nothing to do.
func (t givenTable) Disconnect() error { return nil }

// Destroy has nothing to do.
func (t givenTable) Destroy() error { return nil }

type givenCursor struct {
	givenRows
	i      int
	values []driver.Value
}

// Filter goes to the first row.
func (c *givenCursor) Filter(int, string, []vtab.Value) error {
	c.i = -1
	return c.Next()
}

// Next goes to the next row.
func (c *givenCursor) Next() error {
	if c.i++; c.i < c.n {
		c.values = c.row(c.i, c.values[:0])
	}
	return nil
}

// Eof is past the last row.
func (c *givenCursor) Eof() bool { return c.i >= c.n }

// Column is a value of the row.
func (c *givenCursor) Column(i int) (vtab.Value, error) {
	if i >= len(c.values) {
		return nil, fmt.Errorf("column %d was not given", i)
	}
	return c.values[i], nil
}

// Rowid is the number of the row.
func (c *givenCursor) Rowid() (int64, error) { return int64(c.i), nil }

// Close has nothing to do.
func (c *givenCursor) Close() error { return nil }
