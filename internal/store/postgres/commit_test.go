package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"taskrunner/internal/pgtest"
	"taskrunner/internal/store"
	"taskrunner/internal/store/storetest"
	"taskrunner/internal/task"
)

var errLost = errors.New("connection lost")

func openForCommits(t *testing.T) *Store {
	t.Helper()
	return openURL(t, pgtest.URL(t))
}

func openURL(t *testing.T, url string) *Store {
	t.Helper()
	return openWith(t, Options{URL: url})
}

func openWith(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// lend gives the test a connection of its own.
func lend(t *testing.T, s *Store) *pgxpool.Conn {
	t.Helper()
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	return conn
}

// begun is a transaction that has written its mark, and that the database does not end for being idle.
func begun(t *testing.T, s *Store) (conn *pgxpool.Conn, token task.ID) {
	t.Helper()
	conn = lend(t, s)
	token = uuid.Must(uuid.NewV7())
	do(t, conn, "begin")
	do(t, conn, "INSERT INTO mark (token, committed) VALUES ($1, true)", token)
	return conn, token
}

func do(t *testing.T, conn *pgxpool.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// wantFate asks twice: the first answer may have been lost, too.
func wantFate(t *testing.T, s *Store, token task.ID, want error) {
	t.Helper()
	for range 2 {
		err := s.became(t.Context(), token, errLost)
		if !errors.Is(err, want) || (want == nil) != (err == nil) || want != nil && !retryable(err) {
			t.Errorf("became: %v, want %v, to be run again", err, want)
		}
	}
}

func TestFateOfATransaction(t *testing.T) {
	t.Parallel()
	for end, want := range map[string]error{"commit": nil, "rollback": errLost} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			s := openForCommits(t)
			conn, token := begun(t, s)
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				wantFate(t, s, token, want)
			}()
			waitForWaiter(t, s)
			do(t, conn, end)
			<-asked
			if err := s.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The mark that keeps a transaction out stays: the transaction may still be on its way.
			var kept int
			if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM mark WHERE NOT committed OR $1", want == nil).Scan(&kept); err != nil {
				t.Fatal(err)
			}
			if (kept == 1) != (want != nil) {
				t.Errorf("%d marks are kept after %s", kept, end)
			}
		})
	}
}

// Whoever comes too late, as on_start's answer does behind a quick worker's report, waits for no disk.
func TestSettlingNothingIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	tasks := createTasks(t, s, 1)
	cancel := task.Outcome{ID: tasks[0].ID, Kind: task.Cancel}
	settle := func(o task.Outcome) store.Result {
		t.Helper()
		settled, err := s.Settle(t.Context(), []task.Outcome{o})
		if err != nil {
			t.Fatal(err)
		}
		return settled.Results[0]
	}
	before := committed(t, s)
	settle(cancel)
	if n := committed(t, s); n != before+1 {
		t.Fatalf("a cancel left %d marks", n-before)
	}
	late := settle(task.Outcome{ID: tasks[0].ID, Kind: task.Started, Attempt: 1})
	if late.Err != nil || late.State.Status != task.Canceled {
		t.Errorf("an answer to on_start that came too late: %+v", late)
	}
	if again := settle(cancel); again.Err == nil {
		t.Error("a task was canceled twice")
	}
	if n := committed(t, s); n != before+1 {
		t.Errorf("what changed nothing left %d marks", n-before-1)
	}
}

// committed counts the transactions that were committed.
func committed(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM mark").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Nor does whoever looks for something to do, again and again, and finds nothing.
func TestFindingNothingIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	s.deadEnds = true
	p := pumpParams(t, s)
	create := func(ctx context.Context) error {
		_, err := s.Create(ctx, []store.Create{{Batch: batchOfTasks(1), Key: &store.Idempotency{Key: "k"}}})
		return err
	}
	if err := create(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := lend(t, s)
	do(t, conn, "begin")
	do(t, conn, "SELECT FROM pump FOR UPDATE")
	before := committed(t, s)
	for name, find := range map[string]func(context.Context) error{
		"create": create,                                                                   // again
		"pump":   func(ctx context.Context) error { _, err := s.Pump(ctx, p); return err }, // while another process does
		"due":    func(ctx context.Context) error { _, _, err := s.Due(ctx, 10); return err },
		"claim deliveries": func(ctx context.Context) error {
			_, err := s.ClaimDeliveries(ctx, store.ClaimDeliveriesParams{Room: p.Room, Lease: time.Minute})
			return err
		},
		"take over": func(ctx context.Context) error { _, err := s.TakeOver(ctx, p.Owner); return err },
		"dead ends": func(ctx context.Context) error { _, _, err := s.DeadEnds(ctx, 10); return err },
		"purge":     func(ctx context.Context) error { _, err := s.Purge(ctx, 10); return err },
		"old keys":  s.purge,
	} {
		if err := find(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := committed(t, s); n != before {
			t.Errorf("%s: what changed nothing left %d marks", name, n-before)
			before = n
		}
	}
	do(t, conn, "rollback")
}

// waitForWaiter waits until somebody waits for a transaction of this schema.
func waitForWaiter(t *testing.T, s *Store) {
	t.Helper()
	const waiting = `SELECT count(*) FROM pg_locks l JOIN pg_locks m ON m.pid = l.pid
		WHERE NOT l.granted AND l.locktype = 'transactionid' AND m.relation = 'mark'::regclass`
	for n := 0; n == 0; time.Sleep(time.Millisecond) {
		if err := s.pool.QueryRow(t.Context(), waiting).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTransactionThatComesTooLateIsKeptOut(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	conn, other := begun(t, s)
	do(t, conn, "rollback")
	do(t, conn, "begin")
	late := uuid.Must(uuid.NewV7())
	wantFate(t, s, late, errLost) // it has not got as far as to write its mark
	_, err := conn.Exec(t.Context(), s.queries.Get("open"), late)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "23505" {
		t.Errorf("the mark of a transaction that was said not to be committed: %v", err)
	}
	do(t, conn, "rollback")
	wantFate(t, s, other, errLost)
}

func TestUnknownFateIsNotRunAgain(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	_, token := begun(t, s) // and never ends
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.became(ctx, token, &connError{errLost}); err == nil || retryable(err) {
		t.Errorf("became: %v, want an error that is not retried", err)
	}
}

func TestProcessTakenForDeadClaimsNothing(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	skew := time.Duration(0)
	s.skew = func() time.Duration { return skew }
	late, other := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	beat := func(owner task.ID) {
		t.Helper()
		if err := s.Heartbeat(t.Context(), owner, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	beat(late)
	skew = time.Minute
	beat(other)
	if _, err := s.TakeOver(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	params := store.PumpParams{Owner: late, Room: task.Room{Total: 1, PerHost: 1}}
	if _, err := s.Pump(t.Context(), params); !errors.Is(err, errNoLease) {
		t.Errorf("Pump of a process that was taken for dead: %v", err)
	}
	skew = time.Hour
	if _, err := s.TakeOver(t.Context(), late); !errors.Is(err, errNoLease) {
		t.Errorf("TakeOver by a process that was taken for dead: %v", err)
	}
	beat(late)
	if _, err := s.Pump(t.Context(), params); err != nil {
		t.Errorf("Pump after a heartbeat: %v", err)
	}
}

// Whoever asks what became of a transaction must not wait for a connection that another one of them holds.
func TestEveryConnectionIsLostAtOnce(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	var all, done sync.WaitGroup
	all.Add(enginePool)
	for range enginePool {
		done.Go(func() {
			tries := 0
			err := s.run(t.Context(), func(ctx context.Context, tx *tx) error {
				if tries++; tries > 1 {
					return errNothing
				}
				if err := tx.flush(ctx); err != nil {
					return err
				}
				all.Done()
				all.Wait()
				tx.batch.Queue("SELECT pg_terminate_backend(pg_backend_pid())")
				return nil
			})
			if err != nil || tries != 2 {
				t.Errorf("run: %v after %d tries", err, tries)
			}
		})
	}
	done.Wait()
}

// A connection that broke while nobody used it costs nobody the lease, nor a process its start, and no look for work. Nobody asks it
// beforehand what has become of it, from one look to the next.
func TestDutiesOutliveTheirConnection(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	if should := s.engine.Config().ShouldPing; should(t.Context(), pgxpool.ShouldPingParams{IdleDuration: 2 * time.Second}) ||
		!should(t.Context(), pgxpool.ShouldPingParams{IdleDuration: time.Minute}) {
		t.Error("a connection is asked too often, or never")
	}
	owner := uuid.Must(uuid.NewV7())
	look := func() error {
		_, err := s.Work(t.Context(), owner)
		return err
	}
	for i, duty := range []func() error{
		func() error { return s.Heartbeat(t.Context(), owner, time.Minute) }, look,
		func() error { return s.Heartbeat(t.Context(), owner, time.Minute) }, look, look,
		func() error { return s.Notify(t.Context()) },
		func() error { return s.forget(t.Context()) },
		func() error { return s.Leave(t.Context(), owner) },
		look,
	} {
		if err := duty(); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		conn, err := s.engine.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			other, err := s.pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			do(t, other, "SELECT pg_terminate_backend($1, 10000)", int(conn.Conn().PgConn().PID()))
			other.Release()
		} else { // without a word from the server
			_ = conn.Conn().PgConn().Conn().Close()
		}
		conn.Release() // the next one finds it
	}
}

// A statement that gets no answer holds nobody up for ever: it is given up, and what it was part of is done once, or not at all where
// it has taken too long to be tried again.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	const statement, commit = "TRIGGER slow BEFORE UPDATE ON task_state", "CONSTRAINT TRIGGER slow AFTER UPDATE ON task_state DEFERRABLE INITIALLY DEFERRED"
	for name, test := range map[string]struct {
		trigger  string
		patience time.Duration
		err      error
	}{
		"to a statement":           {statement, time.Second, nil},
		"to COMMIT":                {commit, time.Second, nil},
		"to a statement, for long": {statement, 7 * time.Second, store.ErrUnavailable},
		"to COMMIT, for long":      {commit, 7 * time.Second, store.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openWith(t, Options{URL: pgtest.URL(t), patience: test.patience})
			id := createTasks(t, s, 1)[0].ID
			conn := lend(t, s)
			do(t, conn, "CREATE TABLE frozen AS SELECT true AS still")
			do(t, conn, `CREATE FUNCTION freeze() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				PERFORM pg_sleep(3600) FROM frozen WHERE still; RETURN NEW; END $$`)
			do(t, conn, "CREATE "+test.trigger+" FOR EACH ROW EXECUTE FUNCTION freeze()")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			answered := make(chan error, 1)
			go func() {
				_, err := s.Settle(ctx, []task.Outcome{{ID: id, Kind: task.Count, NewSuccess: 1}})
				answered <- err
			}()
			for n := 0; n == 0; time.Sleep(time.Millisecond) {
				const asleep = "SELECT count(*) FROM pg_locks WHERE relation = 'frozen'::regclass AND pid <> pg_backend_pid()"
				if err := conn.QueryRow(ctx, asleep).Scan(&n); err != nil {
					t.Fatal(err)
				}
			}
			do(t, conn, "UPDATE frozen SET still = false")
			err := <-answered
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			var counted int
			if e := conn.QueryRow(ctx, "SELECT success FROM task_state").Scan(&counted); e != nil || (counted == 1) != (err == nil) {
				t.Errorf("counted %d times, %v; error %v", counted, e, err)
			}
		})
	}
}

func TestImpossibleStates(t *testing.T) {
	t.Parallel()
	s := openForCommits(t)
	createTasks(t, s, 1)
	storetest.Impossible(t, func(sql string) error {
		_, err := s.pool.Exec(t.Context(), sql)
		return err
	})
}

// A tick that takes long, as one does that counts a new rule over very many, is not cut off for ever.
func TestTickThatTakesLong(t *testing.T) {
	t.Parallel()
	s := openWith(t, Options{URL: pgtest.URL(t), patience: time.Second})
	p := pumpParams(t, s)
	createTasks(t, s, 1)
	conn := lend(t, s)
	do(t, conn, "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$")
	do(t, conn, "CREATE TRIGGER slow BEFORE INSERT ON running FOR EACH ROW EXECUTE FUNCTION slow()")
	var err error
	for range 5 {
		var pumped store.Pumped
		if pumped, err = s.Pump(t.Context(), p); err == nil {
			if len(pumped.Claims) != 1 {
				t.Errorf("%d claims", len(pumped.Claims))
			}
			return
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	t.Error(err)
}
