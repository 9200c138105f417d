package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// listDeliveries is GET /deliveries, and GET /webhook-deliveries.
func (s *server) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	items, err := readPage(w, r, deliveryFilters, store.MaxWalk, s.Store.Deliveries, func(d *store.DeliveryItem, _ store.Sort) string {
		return d.ID.String()
	})
	if err != nil {
		return err
	}
	list := make([]api.DeliverySummary, len(items))
	for i := range items {
		list[i] = deliverySummary(&items[i])
	}
	return writeJSON(w, http.StatusOK, list)
}

// getDelivery is GET /deliveries/{id}.
func (s *server) getDelivery(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	return s.writeDelivery(w, r, id)
}

func (s *server) writeDelivery(w http.ResponseWriter, r *http.Request, id task.ID) error {
	d, err := s.Store.Delivery(r.Context(), id)
	if err != nil {
		return missing(err, "delivery", id)
	}
	return writeJSON(w, http.StatusOK, delivery(d))
}

// retryDelivery is POST /deliveries/{id}/retry. A body is not looked at.
func (s *server) retryDelivery(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	states, err := s.Store.RetryDeliveries(r.Context(), []task.ID{id})
	switch state, found := states[id]; {
	case err != nil:
		return err
	case !found:
		return missing(store.ErrNotFound, "delivery", id)
	case state == store.DeliveryDone:
		return &failure{code: conflict, message: "delivery " + id.String() + " is done"}
	}
	s.OnRetried()
	return s.writeDelivery(w, r, id)
}

// How many dead deliveries are read at once, and how many of them are retried in one transaction.
const retryPage, retryChunk = 10_000, 1_000

// retryDead is POST /deliveries/retry. When it fails, some are retried.
func (s *server) retryDead(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	f, err := parseRetry(body)
	if err != nil {
		return err
	}
	answer := api.Retried{}
	for more := true; more; { // from the newest to the oldest: one that dies again meanwhile is not met twice
		page, err := s.Store.Deliveries(r.Context(), f)
		if err != nil {
			return err
		}
		more = len(page.Items) == f.Limit
		for chunk := range slices.Chunk(page.Items, retryChunk) {
			n, err := s.retry(r.Context(), chunk)
			if err != nil {
				return err
			}
			answer.Retried += n
			f.Before = chunk[len(chunk)-1].ID
		}
	}
	return writeJSON(w, http.StatusOK, answer)
}

// retry returns how many of items were dead.
func (s *server) retry(ctx context.Context, items []store.DeliveryItem) (dead int, err error) {
	ids := make([]task.ID, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	states, err := s.Store.RetryDeliveries(ctx, ids)
	if err != nil {
		return 0, err
	}
	for _, state := range states {
		if state == store.DeliveryDead {
			dead++
		}
	}
	s.OnRetried()
	return dead, nil
}

// retryFields are what a retry of dead deliveries may say.
var retryFields = []string{"host", "task_id", "batch_id", "all"}

// parseRetry reads which dead deliveries are meant. All of them have to be asked for, so that nobody does by mistake.
func parseRetry(body []byte) (store.Filter, error) {
	f := store.Filter{DeliveryStates: []store.DeliveryState{store.DeliveryDead}, Limit: retryPage}
	v, err := jsonread.Parse(body, "")
	if err != nil {
		return f, err
	}
	r := jsonread.NewReader("")
	fields := make([]jsonread.Value, len(retryFields))
	r.Fields(v, retryFields, fields)
	chosen, all := false, false
	for i, name := range retryFields {
		if fields[i].IsNull() {
			continue
		}
		if name == "all" {
			all, _ = r.Bool(name, fields[i])
			continue
		}
		chosen = true
		if text, ok := r.String(name, fields[i]); !ok {
			continue
		} else if text == "" {
			r.Addf(name, "must not be empty")
		} else if reason := deliveryFilters[name](&f, []string{text}); reason != "" {
			r.Addf(name, "%s", reason)
		}
	}
	if r.Count() == 0 && chosen == all {
		r.Addf("", `needs either some of host, task_id and batch_id, or "all": true for every dead delivery`)
	}
	return f, r.Err()
}

func deliverySummary(d *store.DeliveryItem) api.DeliverySummary {
	source := d.Task
	if source == (task.ID{}) {
		source = d.Batch
	}
	shown := api.DeliverySummary{
		ID: d.ID.String(), BatchID: d.Batch.String(), Place: d.Place,
		IdempotencyKey: task.IdempotencyKey(source, d.Trigger, d.Place), Host: d.Host, State: deliveryStates[d.State],
		Failures: d.Failures, LastStatus: orNil(d.LastStatus), LastError: orNil(d.LastError),
		CreatedAt: at(d.CreatedAt), NextAttemptAt: at(d.NextAt),
	}
	if source == d.Task {
		shown.TaskID = new(d.Task.String())
	}
	shown.Trigger, shown.Condition = triggerName(d.Trigger)
	return shown
}

func delivery(d *store.DeliveryDetail) *api.Delivery {
	shown := &api.Delivery{
		DeliverySummary: deliverySummary(&d.DeliveryItem), Params: params(&d.Action),
		Timeout: orNil(int64(d.Action.Timeout / time.Second)), Retry: retry(d.Action.Retry), Attempts: make([]api.Attempt, len(d.Attempts)),
	}
	for i, a := range d.Attempts {
		shown.Attempts[i] = api.Attempt{
			At: at(a.At), DurationMS: float64(a.Took.Microseconds()) / 1000,
			Status: orNil(a.Status), Error: orNil(a.Error), Answer: orNil(a.Answer),
		}
	}
	return shown
}
