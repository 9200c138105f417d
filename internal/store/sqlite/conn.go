package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// Settings of connections. busy_timeout is for other programs that look at the file, such as a backup. A cache takes twice
// the memory that it is given: a page with its header is a little more than 4 096 bytes, and what is allocated is a power of two.
const (
	bothSettings = `
		PRAGMA busy_timeout = 5000;
		PRAGMA temp_store = memory;
		PRAGMA foreign_keys = on;`
	// The log is folded into the file every 16 MB, and cut back to 64 MB if a long read made it grow.
	writerSettings = bothSettings + `
		PRAGMA journal_mode = wal;
		PRAGMA synchronous = full;
		PRAGMA cache_size = -32768;
		PRAGMA wal_autocheckpoint = 4000;
		PRAGMA journal_size_limit = 67108864;`
	readerSettings = bothSettings + `
		PRAGMA cache_size = -4096;
		PRAGMA query_only = on;`
)

// conn is a connection with its prepared statements. database/sql is left out: it would convert every value of every
// row twice. Not safe for concurrent use.
type conn struct {
	raw        driver.Conn
	statements map[string]driver.Stmt
}

// connect opens the database and runs script.
func (s *Store) connect(ctx context.Context, script string) (*conn, error) {
	raw, err := s.driver.Open(fileURL(s.path))
	if err != nil {
		return nil, err
	}
	c := &conn{raw, map[string]driver.Stmt{}}
	if err := c.script(ctx, script); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// fileURL names a file so that no character of its path is special.
func fileURL(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/…
	}
	return "file://" + (&url.URL{Path: path}).EscapedPath()
}

// script runs any number of statements.
func (c *conn) script(ctx context.Context, sql string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(ctx, sql, nil)
	return err
}

func (c *conn) close() error {
	for _, statement := range c.statements {
		_ = statement.Close() // the connection goes too
	}
	return c.raw.Close()
}

// prepare returns the statement sql, which is kept.
func (c *conn) prepare(ctx context.Context, sql string) (driver.Stmt, error) {
	if statement, ok := c.statements[sql]; ok {
		return statement, nil
	}
	statement, err := c.raw.(driver.ConnPrepareContext).PrepareContext(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", sql, err)
	}
	c.statements[sql] = statement
	return statement, nil
}

func (c *conn) exec(ctx context.Context, sql string, args []driver.Value) error {
	statement, err := c.prepare(ctx, sql)
	if err != nil {
		return err
	}
	_, err = statement.(driver.StmtExecContext).ExecContext(ctx, named(args))
	return err
}

// query calls each for every row; it must not keep the row, and must not use the connection.
func (c *conn) query(ctx context.Context, sql string, args []driver.Value, each func(*row) error) (err error) {
	statement, err := c.prepare(ctx, sql)
	if err != nil {
		return err
	}
	rows, err := statement.(driver.StmtQueryContext).QueryContext(ctx, named(args))
	if err != nil {
		return err
	}
	defer func() {
		if closing := rows.Close(); err == nil { // else it says the same again
			err = closing
		}
	}()
	r := &row{values: make([]driver.Value, len(rows.Columns()))}
	for {
		switch err := rows.Next(r.values); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		r.at = 0
		if err := each(r); err != nil {
			return err
		}
	}
}

func named(values []driver.Value) []driver.NamedValue {
	args := make([]driver.NamedValue, len(values))
	for i, v := range values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return args
}
