// Package app puts the service together and runs it: used by the command and by the end-to-end tests.
//
// The stages know the store and small interfaces; here they are tied to each other. They stop in an order that loses
// nothing: first nothing new is claimed, then what is in flight is sent and settled, while workers may still report;
// then HTTP closes, the last outcomes are committed, the lease is given back, and the store closes.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"taskrunner/internal/config"
	"taskrunner/internal/create"
	"taskrunner/internal/dispatch"
	"taskrunner/internal/failpoint"
	"taskrunner/internal/httpapi"
	"taskrunner/internal/reap"
	"taskrunner/internal/schedule"
	"taskrunner/internal/settle"
	"taskrunner/internal/store"
	"taskrunner/internal/store/postgres"
	"taskrunner/internal/store/sqlite"
	"taskrunner/internal/telemetry"
)

// App is one process of the service.
type App struct {
	config   *config.Config
	log      *slog.Logger
	store    store.Store
	listener net.Listener
	server   *http.Server

	creator    *create.Creator
	settler    *settle.Settler
	pump       *schedule.Pump
	dispatcher *dispatch.Dispatcher
	reaper     *reap.Reaper
	stopping   atomic.Bool
}

// OpenStore opens the database that c names. It does not migrate it.
func OpenStore(ctx context.Context, c *config.Config, log *slog.Logger) (store.Store, error) {
	if c.Postgres != "" {
		return postgres.Open(ctx, postgres.Options{URL: c.Postgres, DeadEnds: c.DeadEndCancel, Log: log})
	}
	return sqlite.Open(ctx, sqlite.Options{Path: c.SQLitePath, DeadEnds: c.DeadEndCancel, Log: log})
}

// New opens and migrates the database and begins to listen; nothing is served before [App.Run].
func New(ctx context.Context, c *config.Config, log *slog.Logger) (*App, error) {
	guard, err := dispatch.NewGuard(dispatch.GuardOptions{Networks: c.AllowedNetworks, Ports: c.AllowedPorts})
	if err != nil {
		return nil, fmt.Errorf("WEBHOOK_ALLOWED_NETWORKS: %w", err)
	}
	s, err := OpenStore(ctx, c, log)
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), s.Close())
	}
	a := &App{config: c, log: log, listener: listener}
	a.wire(s, guard)
	return a, nil
}

func (a *App) wire(s store.Store, guard *dispatch.Guard) {
	c, registry := a.config, prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.store = telemetry.Instrument(failpoint.Store(s), registry)
	owner := store.NewID()
	hostURL := c.HostURL
	if c.HostURLGuessed {
		hostURL = "http://localhost:" + strconv.Itoa(a.port())
		a.log.Warn("HOST_URL is not set; workers elsewhere cannot report", "host_url", hostURL)
	}
	a.log.Info("webhook targets", "policy", guard.String())
	keep := "for good"
	if c.Retention > 0 {
		keep = c.Retention.String()
	}
	a.log.Info("retention of batches after their end", "keep", keep)

	a.creator = create.New(create.Options{
		Store:      a.store,
		WakePump:   func() { a.pump.Wake() },
		WakeOutbox: func() { a.dispatcher.WakeOutbox() },
	})
	a.settler = settle.New(settle.Options{
		Store:      a.store,
		WakePump:   func() { a.pump.Wake() },
		WakeOutbox: func() { a.dispatcher.WakeOutbox() },
		Follow:     func(do func(store.Turn) (*store.Pumped, error)) error { return a.pump.Follow(do) },
	})
	a.dispatcher = dispatch.New(dispatch.Options{
		Store: a.store, Settler: a.settler, Guard: guard, HostURL: hostURL,
		Handles: c.HandleSecrets, Secrets: c.WebhookSecrets, Window: c.Window, HostWindow: c.HostWindow,
		Timeout: c.WebhookTimeout, Lease: c.ClaimLease, StartRetry: c.StartRetry, Retry: c.Retry, Registry: registry, Log: a.log,
		OnRoom: func() { a.pump.Wake() },
	})
	a.pump = schedule.New(schedule.Options{
		Store: a.store, Owner: owner, Starter: a.dispatcher, OnOutbox: a.dispatcher.WakeOutbox, Log: a.log,
	})
	onPump := a.pump.Wake
	if c.HintsOnly {
		onPump = nil
	}
	a.reaper = reap.New(reap.Options{
		Store: a.store, Settler: a.settler, Starter: a.dispatcher, Owner: owner, Lease: c.ClaimLease, Keep: c.Retention, Registry: registry, Log: a.log,
		OnPump: onPump, OnOutbox: a.dispatcher.WakeOutbox,
	})
	a.server = &http.Server{
		Handler: httpapi.New(httpapi.Options{
			Store: a.store, Creator: a.creator, Settler: a.settler, NewID: store.NewID, CheckURL: guard.CheckURL, OnRetried: a.dispatcher.WakeOutbox,
			AuthToken: c.AuthToken, Handles: c.HandleSecrets, HandleGrace: c.HandleGrace, Starts: a.dispatcher, Ready: a.ready, MaxTasksPerBatch: c.MaxTasks, MaxBodyBytes: c.MaxBody, BodyWindowBytes: c.BodyWindow, Registry: registry, Log: a.log,
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	(&silent{}).closeWith(a.server)
}

func (a *App) port() int {
	if tcp, ok := a.listener.Addr().(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// Addr is where the service listens.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// Open reports whether whoever reaches the address can use the service: it wants no token, and it listens to more than
// this machine.
func (a *App) Open() bool {
	tcp, ok := a.listener.Addr().(*net.TCPAddr)
	return a.config.AuthToken == "" && (!ok || !tcp.IP.IsLoopback())
}

func (a *App) ready() error {
	if a.stopping.Load() {
		return errors.New("shutting down")
	}
	return nil
}

// worker is a goroutine with an owner.
type worker struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// spawn runs fn until it returns or the worker is stopped. A failure is sent to failed.
func spawn(failed chan<- error, fn func(ctx context.Context) error) *worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			select {
			case failed <- err:
			default: // one failure is enough to stop
			}
		}
	}()
	return w
}

func (w *worker) stop() {
	w.cancel()
	<-w.done
}

// Run serves until ctx ends or a part fails, then stops within SHUTDOWN_TIMEOUT and a few seconds. What a stop leaves
// unfinished is finished by another process or after the next start. It closes everything New opened.
func (a *App) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	creator := spawn(failed, a.creator.Run)
	settler := spawn(failed, a.settler.Run)
	registered := a.reaper.Register(ctx)
	if registered != nil {
		creator.stop()
		settler.stop()
		return errors.Join(fmt.Errorf("register this process: %w", registered), a.listener.Close(), a.store.Close())
	}
	reaper := spawn(failed, a.reaper.Run)
	claiming := []*worker{
		spawn(failed, a.pump.Run),
		spawn(failed, a.dispatcher.Run),
		spawn(failed, func(ctx context.Context) error {
			a.store.Listen(ctx, func() {
				a.pump.Wake()
				a.dispatcher.WakeOutbox()
			})
			return nil
		}),
	}
	server := spawn(failed, func(context.Context) error {
		if err := a.server.Serve(&accepting{Listener: a.listener, log: a.log}); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	a.log.Info("serving", "address", a.listener.Addr().String())

	var cause error
	select {
	case <-ctx.Done():
		a.log.Info("stopping", "deadline", a.config.ShutdownTimeout.String())
	case cause = <-failed:
		a.log.Error("a part of the service failed; stopping", "error", cause)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- a.stop(claiming, server, creator, settler, reaper) }()
	select {
	case err := <-stopped:
		return errors.Join(cause, err)
	case <-time.After(a.config.ShutdownTimeout + 5*time.Second): // the database does not answer
		return errors.Join(cause, errors.New("the stop took too long; what is left is taken over when the lease ends"))
	}
}

func (a *App) stop(claiming []*worker, server, creator, settler, reaper *worker) error {
	a.stopping.Store(true)
	a.reaper.Drain()
	deadline, cancel := context.WithTimeout(context.Background(), a.config.ShutdownTimeout)
	defer cancel()
	draining, cancelDraining := context.WithTimeout(deadline, a.config.ShutdownTimeout*3/4) // the rest is for requests
	defer cancelDraining()
	for _, w := range claiming {
		w.cancel()
	}
	for _, w := range claiming {
		<-w.done
	}
	passing := spawn(make(chan error, 1), a.pump.PassOn)
	if err := a.dispatcher.Drain(draining); err != nil {
		a.log.Warn("webhooks were still out; they are sent again", "error", err)
	}
	if err := a.server.Shutdown(deadline); err != nil {
		a.log.Warn("requests were still open", "error", err)
		_ = a.server.Close() // they get no answer; nothing acknowledged is lost
	}
	<-server.done
	creator.stop()
	reaper.stop()
	settler.stop()
	passing.stop()
	leaving, cancelLeaving := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancelLeaving()
	if err := a.reaper.Stop(leaving); err != nil {
		a.log.Warn("the lease could not be given back; it runs out by itself", "error", err)
	}
	if err := a.store.Close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	a.log.Info("stopped")
	return nil
}
