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

const (
	// perArray is how many counts an array brings.
	perArray = 1000
	// arrayClients are enough for arrays to share transactions, as single counts do.
	arrayClients = 16
)

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
		return floorShape{what: count, clients: arrayClients, perRequest: perArray, bytes: 70 * perArray, perCommit: perArray, rows: c.hot}
	}
	return floorShape{what: count, clients: 64, bytes: 20, perCommit: 64, rows: min(c.hot, 64)}
}

func (c counters) run(ctx context.Context, r *run) error {
	l := r.receiver.newLoad(&load{kind: "counters", tasks: c.hot, work: held})
	if err := r.post(ctx, l); err != nil {
		return err
	}
	if err := r.wait(ctx, "tasks started", l.arrivals.Load, l.tasks); err != nil {
		return err
	}
	requests, send, perRequest := r.count(200_000, 500), c.single, 1
	if c.array {
		requests, send, perRequest = r.count(2000, 5), c.many, perArray
	}
	err := r.measure(ctx, func() (int, error) {
		return requests * perRequest, each(ctx, c.shape().clients, requests, func(ctx context.Context, i int) error { return send(ctx, r, l, i) })
	})
	if err != nil {
		return err
	}
	want := func(i int) int { // the counts are dealt out in turns: all of them, or those of each array
		if c.array {
			return requests * dealt(perArray, c.hot, i)
		}
		return dealt(requests, c.hot, i)
	}
	return errors.Join(r.sums(ctx, l, want), r.finishHeld(ctx, l), r.check(ctx, l))
}

// dealt is how many of n things the i-th of so many gets.
func dealt(n, among, i int) int { return (n + among - 1 - i) / among }

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

// sums checks that the tasks of l have the counts that are wanted of each, and their batch all of them.
func (r *run) sums(ctx context.Context, l *load, want func(task int) int) error {
	var sum int64
	for i, handle := range l.handles {
		var t api.Task
		if err := r.do(ctx, request{method: http.MethodGet, path: handle, want: http.StatusOK, into: &t}); err != nil {
			return err
		}
		if sum += t.Success; t.Success != int64(want(i)) {
			return fmt.Errorf("counters: task %d has %d counts, want %d", i, t.Success, want(i))
		}
	}
	var batch api.Batch
	if err := r.do(ctx, request{method: http.MethodGet, path: "/batch/" + l.batches[0], want: http.StatusOK, into: &batch}); err != nil {
		return err
	}
	if batch.TotalSuccess != sum {
		return fmt.Errorf("counters: the tasks have %d counts, their batch %d", sum, batch.TotalSuccess)
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
