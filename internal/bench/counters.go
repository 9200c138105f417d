package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"taskrunner/api"
)

// perArray is how many counts an array brings.
const perArray = 1000

// counters is counts for tasks at work, in single requests or in arrays.
type counters struct {
	hot   int // tasks that are counted
	array bool
}

func (c counters) name() string {
	if c.array {
		return fmt.Sprintf("counters/array-%d", c.hot)
	}
	return fmt.Sprintf("counters/put-%d", c.hot)
}

// shape is that of the floor.
func (c counters) shape() floorShape {
	if c.array {
		return floorShape{what: count, clients: 4, perRequest: perArray, bytes: 70 * perArray, perCommit: perArray, rows: c.hot}
	}
	return floorShape{what: count, clients: 64, bytes: 20, perCommit: 64, rows: min(c.hot, 64)}
}

func (c counters) run(ctx context.Context, r *run) error {
	l := r.receiver.newLoad(&load{kind: "counters", tasks: min(c.hot, r.count(c.hot, 10)), work: held})
	if err := r.post(ctx, l); err != nil {
		return err
	}
	if err := r.wait(ctx, "tasks started", l.arrivals.Load, l.tasks); err != nil {
		return err
	}
	requests, send := r.count(200_000, 500), c.single
	if c.array {
		requests, send = r.count(2000, 5), c.many
	}
	counted := 0
	err := r.measure(ctx, func() (int, error) {
		counted = requests
		if c.array {
			counted *= perArray
		}
		return counted, each(ctx, c.shape().clients, requests, func(ctx context.Context, i int) error { return send(ctx, r, l, i) })
	})
	if err != nil {
		return err
	}
	return errors.Join(r.sums(ctx, l, counted), r.finishHeld(ctx, l), r.check(ctx, l))
}

func (c counters) single(ctx context.Context, r *run, l *load, i int) error {
	return r.do(ctx, request{method: http.MethodPut, path: l.handles[i%l.tasks], body: []byte(`{"new_success":1}`), want: http.StatusAccepted})
}

func (c counters) many(ctx context.Context, r *run, l *load, _ int) error {
	var b bytes.Buffer
	for i := range perArray {
		b.WriteByte("[,"[min(i, 1)])
		fmt.Fprintf(&b, `{"task_id":"%s","new_success":1}`, idOf(l.handles[i%l.tasks]))
	}
	b.WriteByte(']')
	return r.do(ctx, request{method: http.MethodPut, path: "/task", body: b.Bytes(), want: http.StatusAccepted})
}

// idOf is the id of a task, given its handle, which may have a token.
func idOf(handle string) string {
	path, _, _ := strings.Cut(handle, "?")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// sums checks that the tasks of l have n counts, spread as they were sent.
func (r *run) sums(ctx context.Context, l *load, n int) error {
	var sum int64
	var batch api.Batch
	for i, handle := range l.handles {
		var t api.Task
		if err := r.do(ctx, request{method: http.MethodGet, path: handle, want: http.StatusOK, into: &t}); err != nil {
			return err
		}
		if sum += t.Success; l.tasks < perArray && t.Success < int64(n/l.tasks) {
			return fmt.Errorf("counters: task %d has %d counts, want %d", i, t.Success, n/l.tasks)
		}
	}
	if err := r.do(ctx, request{method: http.MethodGet, path: "/batch/" + l.batches[0], want: http.StatusOK, into: &batch}); err != nil {
		return err
	}
	if sum != int64(n) || batch.TotalSuccess != int64(n) {
		return fmt.Errorf("counters: the tasks have %d counts, their batch %d, want %d", sum, batch.TotalSuccess, n)
	}
	return nil
}

// finishHeld reports Success for all that are held.
func (r *run) finishHeld(ctx context.Context, l *load) error {
	return each(ctx, 64, len(l.handles), func(ctx context.Context, i int) error {
		l.end(ctx, i, l.handles[i], success)
		return nil
	})
}
