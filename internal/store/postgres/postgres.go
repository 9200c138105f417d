// Package postgres keeps tasks in PostgreSQL 15 or newer, for any number of processes at once. It is the driver for
// production; the contract is in package store.
//
// Every method is one transaction of one to ten round trips, most of two or three: statements are pipelined, and each works
// on arrays, so their number does not depend on how many tasks there are. A session keeps nothing but prepared statements, and
// one LISTENs; behind a pooler there is neither.
//
// A transaction that PostgreSQL undid (serialization, deadlock) or whose connection broke before COMMIT is run again.
// When the connection breaks at COMMIT, the database is asked what became of the transaction before anything is
// repeated: each transaction has a token, and the question is whether its mark is there.
package postgres

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

//go:embed query/*.sql
var queryFiles embed.FS

// Options of [Open].
type Options struct {
	// URL is a connection string as libpq and pgx read it. pool_max_conns defaults to 16 here, and default_query_exec_mode
	// to cache_describe where the URL leads to a pooler.
	URL string
	// DeadEnds makes [Store.DeadEnds] find what it looks for.
	DeadEnds bool
	// Skew is added to the clock of the database; nil: nothing. For tests.
	Skew func() time.Duration
	// Log takes what is wrong with connections; nil: nowhere.
	Log *slog.Logger
	// patience in place of those of both pools; 0: as they are. For tests.
	patience time.Duration
}

// conns are connections. What got no answer within patience is given up with its connection: a pooler that has lost its server, a
// firewall that has forgotten the connection, or a server that is frozen answers when it likes, or never.
type conns struct {
	*pgxpool.Pool
	patience time.Duration
}

// within bounds ctx to the patience of c.
func (c *conns) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.patience)
}

// Store is a store.Store on PostgreSQL.
type Store struct {
	// pool is for requests of clients, engine for what keeps the service going: reads and creates in any number must not
	// hold up the pump, or the lease.
	pool    conns
	engine  conns
	lists   store.Lists // on pool
	queries *store.Queries
	log     *slog.Logger
	skew    func() time.Duration

	deadEnds bool
	pooled   bool   // a pooler is in between
	self     string // by which it knows its own notifications

	pumping  sync.Mutex // held during a tick; guards shapes, expected and patience
	shapes   *store.Shapes
	expected sorts         // what the last tick found
	patience time.Duration // of the next tick, after one that took too long; 0: that of engine
	cursors  *cursors

	ended     store.EndedBatches[store.BatchItem]
	endedSums store.EndedBatches[store.BatchSums]

	deletions deletionCount
	marks     marks
	purged    atomic.Pointer[time.Time] // when old keys were last looked for; nil: never
	sent      atomic.Int64              // statements
	lookups   sync.Map                  // by task.ShapeID: those that this process has registered
}

var _ store.Store = (*Store)(nil)

const (
	// defaultPool is how many connections requests have at most, unless the URL says otherwise.
	defaultPool = 16
	// enginePool is how many there are besides: for settle, the pump, the outbox (two), and the duties of reap.
	enginePool = 8
	// poolPatience is for large creates, which are one transaction; their clients get an answer within two minutes or none.
	poolPatience = 90 * time.Second
	// enginePatience is for transactions that are bounded: nothing is settled or started meanwhile. A tick that was cut off has
	// twice as long the next time, up to maxPatience.
	enginePatience = 30 * time.Second
	maxPatience    = 10 * time.Minute
	// pingAfter is how long a connection of the engine may wait before it is asked whether it still lives.
	pingAfter = 10 * time.Second
)

// Open connects. The error never shows the URL, which may hold a password.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Skew == nil {
		o.Skew = func() time.Duration { return 0 }
	}
	cfg, pooled, err := o.config(ctx)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{
		queries: store.LoadQueries(queryFiles), log: o.Log, skew: o.Skew, shapes: store.NewShapes(), cursors: newCursors(),
		deadEnds: o.DeadEnds, pooled: pooled, self: store.NewID().String(), lists: store.NewLists(int(cfg.MaxConns)),
	}
	engineCfg := cfg.Copy()
	engineCfg.MaxConns = enginePool
	engineCfg.MinConns, engineCfg.MinIdleConns = 0, 0
	// What is done on these is done again when the connection turns out to be dead, or comes again by itself. By default one that was
	// not used for a second is asked first, so that each look for work would be two round trips.
	engineCfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > pingAfter }
	s.engine.patience, s.pool.patience = cmp.Or(o.patience, enginePatience), cmp.Or(o.patience, poolPatience)
	if s.engine.Pool, err = pgxpool.NewWithConfig(ctx, engineCfg); err != nil {
		return nil, fmt.Errorf("open database: %w", redact(err))
	}
	cfg.AfterConnect = func(context.Context, *pgx.Conn) error { // after a fail-over, perhaps
		s.ended.Forget()
		s.endedSums.Forget()
		return nil
	}
	if s.pool.Pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		s.engine.Close()
		return nil, fmt.Errorf("open database: %w", redact(err))
	}
	return s, nil
}

// config is that of the pool for requests.
func (o *Options) config(ctx context.Context) (cfg *pgxpool.Config, pooled bool, err error) {
	if cfg, err = pgxpool.ParseConfig(o.URL); err != nil {
		return nil, false, errors.New("DATABASE_URL is not a PostgreSQL connection string")
	}
	conn := cfg.ConnConfig
	if conn.DefaultQueryExecMode == pgx.QueryExecModeExec || conn.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		// They guess the types of parameters, and cannot guess all of ours.
		return nil, false, errors.New("default_query_exec_mode in DATABASE_URL must be cache_statement, cache_describe or describe_exec")
	}
	if cfg.MaxConns < defaultPool && !says(o.URL, "pool_max_conns") {
		cfg.MaxConns = defaultPool
	}
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = 5 * time.Second
	}
	if pooled, err = behindPooler(ctx, conn); err != nil {
		return nil, false, redact(err)
	}
	if pooled && !says(o.URL, "default_query_exec_mode") {
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		o.Log.Warn("DATABASE_URL leads to a pooler, so statements are planned each time; " +
			"if it keeps prepared statements, add default_query_exec_mode=cache_statement to the URL")
	}
	return cfg, pooled, nil
}

// behindPooler reports whether a pooler is in between, which may give each transaction another session: then prepared statements
// are not there when they are needed. Who takes a connection says which process serves it; a pooler does not know yet, and
// makes one up.
func behindPooler(ctx context.Context, cfg *pgx.ConnConfig) (bool, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	var pid uint32
	err = conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid)
	return pid != conn.PgConn().PID(), err
}

// Unused lists the statements that no call has run yet. For tests.
func (s *Store) Unused() []string { return s.queries.Unused() }

// Statements counts those sent so far in transactions, but those that read the heads of queues. For tests.
func (s *Store) Statements() int64 { return s.sent.Load() }

// Close ends every connection.
func (s *Store) Close() error {
	s.engine.Close()
	s.pool.Close()
	return nil
}

// Health asks the database for a sign of life.
func (s *Store) Health(ctx context.Context) (store.Health, error) {
	var one int
	if err := s.pool.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return store.Health{}, fmt.Errorf("ask database: %w", redact(err))
	}
	stat := s.pool.Stat()
	return store.Health{PoolSize: int(stat.MaxConns()), PoolIdle: int(stat.MaxConns() - stat.AcquiredConns())}, nil
}

// redact keeps connection strings out of errors: a failure to connect names user, host and database.
func redact(err error) error {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return fmt.Errorf("connect to PostgreSQL: %w", errors.Unwrap(connect))
	}
	return err
}

// tx is one run of a transaction. Statements are queued and sent together.
type tx struct {
	s     *Store
	conn  *pgxpool.Conn
	batch *pgx.Batch
	token task.ID
	now   time.Time
	// places are those of the state rows that it has locked, and lined those of such tasks in ready. Nobody else can move
	// them; what it has written itself it locks again before it writes it a second time.
	places, lined map[task.ID]pgtype.TID
	// entered is where what it puts into queues begins.
	entered heads
}

// errNothing is for a transaction that has found nothing to do: it is undone, so that no disk waits for it.
var errNothing = errors.New("nothing to do")

// run runs fn in a transaction and commits it, again and again while the database or the connection undid it, until
// giveUp has passed. fn must start from nothing each time, and leave its last statements queued, unless what they answer
// is needed: they travel with COMMIT, whose answer may be lost although it is carried out.
func (s *Store) run(ctx context.Context, fn func(ctx context.Context, t *tx) error) error {
	return s.runOn(ctx, &s.engine, fn)
}

// runOn is run on connections of pool.
func (s *Store) runOn(ctx context.Context, pool *conns, fn func(ctx context.Context, t *tx) error) error {
	return s.again(ctx, func() error { return s.try(ctx, pool, fn) })
}

// again tries until the database and the connection let it, or giveUp has passed.
func (s *Store) again(ctx context.Context, try func() error) error {
	const giveUp = 6 * time.Second // the next in line waits for as long. What had no answer for longer is not tried again
	begun := time.Now()
	for tries := 0; ; tries++ {
		err := try()
		if err == nil || !retryable(err) {
			return redact(err)
		}
		if time.Since(begun) > giveUp {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, redact(err))
		}
		s.log.Debug("transaction is run again", "error", redact(err))
		select {
		case <-ctx.Done():
			return redact(err)
		case <-time.After(min(time.Duration(1)<<tries*time.Millisecond, 500*time.Millisecond)):
		}
	}
}

func (s *Store) try(caller context.Context, pool *conns, fn func(ctx context.Context, t *tx) error) error {
	ctx, cancel := pool.within(caller)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return &connError{err}
	}
	release := sync.OnceFunc(conn.Release)
	defer release()
	t := &tx{
		s: s, conn: conn, batch: &pgx.Batch{}, token: uuid.Must(uuid.NewV7()),
		places: map[task.ID]pgtype.TID{}, lined: map[task.ID]pgtype.TID{}, entered: heads{},
	}
	defer func() { s.cursors.enter(t.entered) }()
	t.batch.Queue("begin")
	t.exec("open", t.token)
	if err := fn(ctx, t); err != nil {
		t.rollback(ctx)
		if errors.Is(err, errNothing) {
			return nil
		}
		return err
	}
	t.batch.Queue("commit")
	err = t.flush(ctx)
	if err == nil {
		s.marks.done(t.token)
		return nil
	}
	if _, isServer := errors.AsType[*pgconn.PgError](err); isServer && !conn.Conn().IsClosed() {
		t.rollback(ctx)
		return err
	}
	release()                // it is dead, and who asks needs a place in the pool
	defer s.cursors.forget() // what it has put there may not have been told
	return s.became(caller, t.token, err)
}

func (t *tx) rollback(ctx context.Context) {
	if t.conn.Conn().IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.conn.Exec(ctx, "rollback"); err != nil {
		_ = t.conn.Conn().Close(ctx) // the pool throws it away
	}
}

// exec queues a statement.
func (t *tx) exec(name string, args ...any) { t.batch.Queue(t.s.queries.Get(name), args...) }

// rows queues a statement and calls each for every row of its answer.
func (t *tx) rows(name string, args []any, each func(rows pgx.Rows) error) {
	t.query(name, t.s.queries.Get(name), args, each)
}

// query queues sql, and each for every row of its answer.
func (t *tx) query(name, sql string, args []any, each func(rows pgx.Rows) error) {
	t.batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			if err := each(rows); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return rows.Err()
	})
}

// clock queues the reading of the time.
func (t *tx) clock() {
	t.batch.Queue(t.s.queries.Get("now")).QueryRow(func(row pgx.Row) error {
		defer t.adjust()
		return row.Scan(&t.now)
	})
}

// adjust makes of what the database gave as the time what it is.
func (t *tx) adjust() { t.now = t.now.UTC().Add(t.s.skew()) }

// flush sends what is queued, if there is anything, and takes the answers.
func (t *tx) flush(ctx context.Context) error {
	batch := t.batch
	if batch.Len() == 0 {
		return nil
	}
	t.batch = &pgx.Batch{}
	t.s.sent.Add(int64(batch.Len()))
	err := t.conn.SendBatch(ctx, batch).Close()
	if err != nil && (t.conn.Conn().IsClosed() || ctx.Err() != nil) {
		return &connError{err}
	}
	return err
}

// connError is a failure that is not the statement's fault; the transaction had no effect.
type connError struct{ error }

func (e *connError) Unwrap() error { return e.error }

// exec carries out a single statement, perhaps twice, which must not matter.
func (s *Store) exec(ctx context.Context, name string, args ...any) error {
	return s.again(ctx, func() error {
		ctx, cancel := s.engine.within(ctx)
		defer cancel()
		_, err := s.engine.Exec(ctx, s.queries.Get(name), args...)
		return broken(err)
	})
}

// broken makes of an error of single statements that is not the server's a connError: whether they were carried out must not matter.
func broken(err error) error {
	if _, isServer := errors.AsType[*pgconn.PgError](err); err == nil || isServer {
		return err
	}
	return &connError{err}
}

func retryable(err error) bool {
	if _, ok := errors.AsType[*connError](err); ok {
		return true
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock time-out
		return true
	case "57P01", "57P02", "57P03", "25P03": // shut down, crash, starting up; idle in transaction for too long
		return true
	}
	return false
}
