package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"taskrunner/internal/handle"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Store is what the handlers need of store.Store, whose comments hold here.
type Store interface {
	Health(ctx context.Context) (store.Health, error)
	Task(ctx context.Context, id task.ID) (*store.Detail, error)
	History(ctx context.Context, id task.ID) ([]task.Step, error)
	Tasks(ctx context.Context, f store.Filter) (store.Page[store.Item], error)
	Batches(ctx context.Context, f store.Filter) (store.Page[store.BatchItem], error)
	Batch(ctx context.Context, id task.ID) (*store.BatchSummary, error)
	Details(ctx context.Context, batch task.ID) ([]store.Detail, error)
	DAG(ctx context.Context, batch task.ID) (*store.DAG, error)
	Explain(ctx context.Context, id task.ID) (*store.Situation, error)
	Limits(ctx context.Context, f store.LimitFilter) (*store.Limits, error)
	Deliveries(ctx context.Context, f store.Filter) (store.Page[store.DeliveryItem], error)
	Delivery(ctx context.Context, id task.ID) (*store.DeliveryDetail, error)
	RetryDeliveries(ctx context.Context, ids []task.ID) (map[task.ID]store.DeliveryState, error)
}

// Creator creates a batch and returns once it is durable; a key that is not nil may stand for an earlier one. It answers
// store.ErrKeyReused, or task.Problems about duplicates. Safe for concurrent use.
type Creator interface {
	Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error)
}

// Settler takes outcomes in and returns once they are durable, with a result for each in its place. An error means that
// none was applied. Safe for concurrent use.
type Settler interface {
	Settle(ctx context.Context, outcomes ...task.Outcome) ([]store.Result, error)
	// StopBatch cancels every task of a batch that has not ended, or answers store.ErrNotFound. When it fails, some are
	// canceled and others are not.
	StopBatch(ctx context.Context, batch task.ID) (store.Stopped, error)
	// EditRules gives rules to the tasks of a kind of a batch that have not ended, and returns how many those were. It
	// answers store.ErrNotFound, or task.Problems when they do not fit. When it fails otherwise, some have them.
	EditRules(ctx context.Context, batch task.ID, kind string, rules []task.Rule) (int, error)
}

// Limits that hold where [Options] say nothing.
const (
	DefaultMaxTasksPerBatch = 10_000
	DefaultMaxBodyBytes     = 32 << 20
	DefaultBodyWindowBytes  = 64 << 20
)

// Options are what the handlers work with. Store, Creator, Settler and NewID are required.
type Options struct {
	Store   Store
	Creator Creator
	Settler Settler
	// NewID makes UUIDv7, each greater than those before. Safe for concurrent use.
	NewID func() task.ID
	// AuthToken is what every request but GET /health and GET /ready must carry as its bearer token. Empty: none is needed.
	AuthToken string
	// Handles check the tokens of handles, which reports need then; a request with AuthToken needs none. HandleGrace is how long
	// after the end of a task its handle is good. No Handles: reports need no tokens.
	Handles     handle.Keys
	HandleGrace time.Duration
	// CheckURL refuses addresses that must not be called; its error is shown to the client. Nil refuses none.
	CheckURL func(rawURL string) error
	// OnRetried is told that there are deliveries to send again. It must not block. Nil: nobody is.
	OnRetried func()
	// Starts explains why a task is not started. Nil: this process sends nothing.
	Starts Starts
	// Ready says why this process should get no requests, in words for strangers. Nil, or a nil error: it should.
	Ready func() error
	// MaxTasksPerBatch and MaxBodyBytes bound a request; 0 means the defaults above.
	MaxTasksPerBatch int
	MaxBodyBytes     int64
	// BodyWindowBytes bounds all bodies above 64 KiB together that are in work; others wait, up to 10 s. One that is larger is
	// let in alone. With Handles, reports whose bodies name their tasks, of callers without AuthToken, have a quarter as much of
	// their own beside it, at least 4 MiB. 0 means the default above.
	BodyWindowBytes int64
	// Registry gets the metrics of the handlers, and is what GET /metrics shows. Nil: one of their own.
	Registry *prometheus.Registry
	// Log gets the errors that clients are not shown. Nil discards them.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.OnRetried == nil {
		o.OnRetried = func() {}
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.MaxTasksPerBatch == 0 {
		o.MaxTasksPerBatch = DefaultMaxTasksPerBatch
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if o.BodyWindowBytes == 0 {
		o.BodyWindowBytes = DefaultBodyWindowBytes
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// server holds what the handlers share. Nothing in it but the windows of bodies changes after New.
type server struct {
	Options
	mux       *http.ServeMux
	guard     *guard
	origins   *http.CrossOriginProtection
	durations *prometheus.HistogramVec
	bodies    *window
	strangers *window
}

// New is the handler of the whole API. It panics when something required is missing, or when the registry has its
// metrics already.
func New(o Options) http.Handler {
	if o.Store == nil || o.Settler == nil || o.NewID == nil {
		panic("httpapi: Store, Settler and NewID are required")
	}
	s := &server{
		Options:   o.withDefaults(),
		mux:       http.NewServeMux(),
		guard:     newGuard(o.AuthToken, o.Handles, o.HandleGrace),
		origins:   http.NewCrossOriginProtection(),
		durations: newDurations(),
	}
	s.bodies, s.strangers = newWindow(s.BodyWindowBytes), newStrangers(s.BodyWindowBytes)
	s.Registry.MustRegister(s.durations)
	s.routes()
	return s
}

func (s *server) routes() {
	s.handle("POST /task", s.createTasks)
	s.handle("GET /task", s.listTasks)
	s.handle("PATCH /task", s.updateTasks)
	s.handle("PUT /task", s.countTasks)
	s.handle("GET /task/{id}", s.getTask)
	s.handle("GET /task/{id}/history", s.getHistory)
	s.handle("GET /task/{id}/explain", s.explainTask)
	s.handle("PATCH /task/{id}", s.updateTask)
	s.handle("PUT /task/{id}", s.countTask)
	s.handle("DELETE /task/{id}", s.control(task.Cancel))
	s.handle("PATCH /task/pause/{id}", s.control(task.Pause))
	s.handle("PATCH /task/resume/{id}", s.control(task.Resume))
	s.handle("GET /batches", s.listBatches)
	s.handle("GET /batch/{id}", s.getBatch)
	s.handle("PATCH /batch/{id}/rules", s.editRules)
	s.handle("DELETE /batch/{id}", s.stopBatch)
	s.handle("GET /dag/{batch_id}", s.getDAG)
	s.handle("GET /limits", s.listLimits)
	s.handle("GET /deliveries", s.listDeliveries)
	s.handle("GET /webhook-deliveries", s.listDeliveries)
	s.handle("GET /deliveries/{id}", s.getDelivery)
	s.handle("POST /deliveries/{id}/retry", s.retryDelivery)
	s.handle("POST /deliveries/retry", s.retryDead)
	s.handle("GET /hosts", s.listHosts)
	s.handle("GET /health", s.health)
	s.handle("GET /ready", s.ready)
	s.mux.Handle("GET /metrics", s.metrics())
}

// handle serves pattern. An error that a handler returns is answered as a problem; it must not have answered before.
func (s *server) handle(pattern string, handler func(w http.ResponseWriter, r *http.Request) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := handler(w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}
