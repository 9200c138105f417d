package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"taskrunner/api"
)

// load is a crowd of tasks that behave alike, and what has been seen of them. Its fields up to the blank line are what a
// workload says about it; of all but kind and tasks the zero value will do.
type load struct {
	kind  string // of its tasks; nobody else's kind begins with it
	tasks int
	to    string // where its webhooks go; empty: to the receiver
	spec  func(task int) spec
	// perPost is how many tasks stand in a request; 0: all in one. clients is how many post at once; 0: one.
	perPost, clients int
	// work is what a worker does when on_start has arrived; nil: it reports Success at once.
	work func(l *load, task int, handle string)
	// since is the task from whose report on, or from whose due time on, the arrival of a task counts; nil: none.
	since func(task int) (other int, ok bool)
	// ordered: look whether the tasks that a task depends on were reported on before it started.
	ordered bool
	// keys are the limits under which a task runs, as places in limits: how many may be at work at once.
	keys   func(task int) []int
	limits []int
	// may is how often a task may be started; nil: once.
	may func(task int) (least, most int)
	// tells: each batch tells its end. expect is how the tasks end; all by Success if nil.
	tells  bool
	expect *api.StatusCounts

	receiver *receiver
	place    int
	starts   []atomic.Int32
	ids      []atomic.Uint64 // hashes of those with which tasks were started; 0: not yet
	sent     []atomic.Int64  // when a task was reported on, or was due
	handles  []string        // of those that are held
	arrived  *latencies      // see since
	open     []atomic.Int32

	created, arrivals, ended, refused, exceeded, early, unseen, mixed, completions atomic.Int64

	mu      sync.Mutex
	batches []string
	last    error          // of a report
	sample  map[int]string // ids of some tasks
}

// sampled is of how many tasks of a load it is looked at whether they are those that their workers took them for.
const sampled = 50

// hash tells ids apart.
var hash = maphash.MakeSeed()

// spec is what is particular about a task. The zero value is a task without rules that waits for nothing.
type spec struct {
	kind     string // behind that of its load
	metadata string // members of the object; empty: some words, of 100 tenants
	rules    string // members of the array
	priority int
	// after are the tasks of the same request that it depends on; they stand before it.
	after []int
}

// newLoad makes room for what will be seen of l.
func (r *receiver) newLoad(l *load) *load {
	l.receiver = r
	l.starts, l.sent, l.open = make([]atomic.Int32, l.tasks), make([]atomic.Int64, l.tasks), make([]atomic.Int32, len(l.limits))
	l.ids, l.sample = make([]atomic.Uint64, l.tasks), map[int]string{}
	l.arrived = newLatencies()
	if l.to == "" {
		l.to = r.url
	}
	if l.spec == nil {
		l.spec = func(int) spec { return spec{} }
	}
	if l.work == nil {
		l.work = (*load).succeed
	}
	if l.perPost == 0 {
		l.perPost = l.tasks
	}
	r.add(l)
	return l
}

// started is told of an on_start.
func (l *load) started(now time.Duration, task int, w webhook) {
	l.starts[task].Add(1)
	l.identify(task, w)
	if l.since != nil {
		if other, ok := l.since(task); ok {
			if sent := l.sent[other].Load(); sent > 0 {
				l.arrived.record(now - time.Duration(sent))
			} else {
				l.unseen.Add(1)
			}
		}
	}
	if l.ordered && slices.ContainsFunc(l.spec(task).after, func(parent int) bool { return l.sent[parent].Load() == 0 }) {
		l.early.Add(1)
	}
	if l.keys != nil {
		for _, key := range l.keys(task) {
			if n := l.open[key].Add(1); int(n) > l.limits[key] {
				l.exceeded.Add(1)
			}
		}
	}
	l.work(l, task, w.handle)
	l.arrivals.Add(1) // whoever waits for it wants the work done, too
}

// identify looks whether what came is of one task, the same each time.
func (l *load) identify(task int, w webhook) {
	id := maphash.String(hash, w.id) | 1
	if !l.ids[task].CompareAndSwap(0, id) && l.ids[task].Load() != id || !w.agrees() {
		l.mixed.Add(1)
	}
	if task%((l.tasks+sampled-1)/sampled) == 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sample[task] = w.id
	}
}

// succeed has Success reported at once.
func (l *load) succeed(task int, handle string) { l.send(task, handle, success) }

// send has a report sent.
func (l *load) send(task int, handle, body string) {
	select {
	case l.receiver.reports <- report{l, task, handle, body}:
	case <-l.receiver.life.Done():
	}
}

// held keeps the handle and reports nothing.
func held(l *load, task int, handle string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handles == nil {
		l.handles = make([]string, l.tasks)
	}
	l.handles[task] = handle
}

// hung is a host that answers on_starts only once it is released; then they succeed.
func hung(release <-chan struct{}) func(*load, int, string) {
	return func(l *load, task int, handle string) {
		select {
		case <-release:
			l.succeed(task, handle)
		case <-l.receiver.life.Done():
		}
	}
}

// after works for a time before it reports.
func after(d time.Duration) func(*load, int, string) {
	return func(l *load, task int, handle string) {
		time.AfterFunc(d, func() { l.succeed(task, handle) })
	}
}

const success, failure = `{"status":"Success"}`, `{"status":"Failure","failure_reason":"asked to fail"}`

// end ends a task. From just before on it is not at work any more: never longer than it holds its slots.
func (l *load) end(ctx context.Context, task int, handle, body string) {
	if l.keys != nil {
		for _, key := range l.keys(task) {
			l.open[key].Add(-1)
		}
	}
	l.sent[task].Store(int64(l.receiver.now()))
	if err := l.patch(ctx, handle, body); err != nil {
		l.refused.Add(1)
		l.mu.Lock()
		l.last = err
		l.mu.Unlock()
		return
	}
	l.ended.Add(1)
}

func (l *load) patch(ctx context.Context, handle, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, handle, strings.NewReader(body))
	if err != nil {
		return err
	}
	// Whoever calls the receiver chooses the handle. The token goes to the service and to nobody else.
	ours := func(service string) bool { return strings.HasPrefix(handle, service+"/task/") }
	if r := l.receiver; r.bench.Token != "" && slices.ContainsFunc(r.services, ours) {
		req.Header.Set("Authorization", "Bearer "+r.bench.Token)
	}
	req.Header.Set("Content-Type", "application/json")
	a, err := l.receiver.bench.exchange(req)
	if err == nil && a.code != http.StatusOK {
		err = fmt.Errorf("PATCH %s: %s %.300s", handle, a.status, a.body)
	}
	return err
}

// body is a request with n tasks from first on.
func (l *load) body(first, n int) []byte {
	var b bytes.Buffer
	if l.tells {
		fmt.Fprintf(&b, `{"on_batch_complete":[{"kind":"Webhook","params":{"url":"%s/%d/%d","verb":"Post"}}],"tasks":`, l.to, l.place, complete)
	}
	separator := byte('[')
	for task := first; task < first+n; task++ {
		b.WriteByte(separator)
		separator = ','
		l.write(&b, task)
	}
	b.WriteByte(']')
	if l.tells {
		b.WriteByte('}')
	}
	return b.Bytes()
}

func (l *load) write(b *bytes.Buffer, task int) {
	s := l.spec(task)
	number := strconv.Itoa(task)
	for _, text := range []string{`{"id":"t`, number, `","name":"Task `, number, `","kind":"`, l.kind, s.kind, `","priority":`, strconv.Itoa(s.priority), `,"timeout":86400,"metadata":{`} {
		b.WriteString(text)
	}
	if s.metadata == "" {
		fmt.Fprintf(b, `"tenant_id":%d,"note":"some words that a task carries"`, task%100)
	}
	b.WriteString(s.metadata)
	if s.rules != "" {
		b.WriteString(`},"rules":[` + s.rules + `]`)
	} else {
		b.WriteByte('}')
	}
	for i, parent := range s.after {
		if i == 0 {
			b.WriteString(`,"dependencies":[`)
		} else {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"id":"t%d"}`, parent)
	}
	if len(s.after) > 0 {
		b.WriteByte(']')
	}
	for _, text := range []string{
		`,"on_start":{"kind":"Webhook","trigger":"Start","params":{"url":"`, l.to, `/`, strconv.Itoa(l.place), `/`, number,
		`","verb":"Post","body":{"input":"s3://bucket/key-`, number, `"}}}}`,
	} {
		b.WriteString(text)
	}
}

// post posts all tasks of l.
func (r *run) post(ctx context.Context, l *load) error {
	posts := (l.tasks + l.perPost - 1) / l.perPost
	return each(ctx, max(l.clients, 1), posts, func(ctx context.Context, i int) error {
		first := i * l.perPost
		return r.postSome(ctx, l, first, min(l.perPost, l.tasks-first))
	})
}

// postSome posts n tasks of l from first on.
func (r *run) postSome(ctx context.Context, l *load, first, n int) error {
	var batch string
	err := r.do(ctx, request{method: http.MethodPost, path: "/task", body: l.body(first, n), want: http.StatusCreated, batch: &batch})
	if err != nil {
		return err
	}
	l.created.Add(int64(n))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, batch)
	return nil
}

// each calls fn for 0 to n-1 from some goroutines, and returns the first error.
func each(ctx context.Context, goroutines, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(goroutines, n) {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	work.Wait()
	return context.Cause(ctx)
}

func (b *bench) patience() time.Duration { return cmp.Or(b.Patience, 2*time.Minute) }

// wait waits until a counter has come to n. Nothing is measured more finely than it looks.
func (b *bench) wait(ctx context.Context, what string, counter func() int64, n int) error {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	seen, moved := int64(-1), time.Now()
	for {
		switch now := counter(); {
		case now >= int64(n):
			return nil
		case now != seen:
			seen, moved = now, time.Now()
		case time.Since(moved) > b.patience():
			return fmt.Errorf("stuck: %d of %d %s", now, n, what)
		}
		b.progress.now("%d of %d %s", seen, n, what)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
	}
}

// posted is how many tasks of l there are: all of them, unless it was broken off.
func (l *load) posted() int { return int(l.created.Load()) }

// reported counts the reports that were answered, one way or the other.
func (l *load) reported() int64 { return l.ended.Load() + l.refused.Load() }

// whole posts l, waits until all its tasks have been reported on, and returns their number.
func (r *run) whole(ctx context.Context, l *load) (int, error) {
	if err := r.post(ctx, l); err != nil {
		return 0, err
	}
	return l.tasks, r.wait(ctx, "tasks of kind "+l.kind+" reported on", l.reported, l.tasks)
}

// lookedAt is how many batches of a load are checked one by one, spread over all.
const lookedAt = 1000

// check finds what went wrong with l.
func (r *run) check(ctx context.Context, l *load) error {
	return errors.Join(l.seen(), r.lives(ctx, l), r.checkSample(ctx, l), r.checkBatches(ctx, l))
}

// lives wants all tasks of l to have ended.
func (r *run) lives(ctx context.Context, l *load) error {
	var lives []api.TaskSummary
	for next := "/task?status=Waiting,Pending,Claimed,Running,Paused&kind=" + l.kind + "*"; next != "" && len(lives) == 0; {
		if err := r.do(ctx, request{method: http.MethodGet, path: next, want: http.StatusOK, into: &lives, next: &next}); err != nil {
			return err
		}
	}
	if len(lives) > 0 {
		return fmt.Errorf("%s: tasks have not ended, such as %s, which is %s", l.kind, lives[0].ID, lives[0].Status)
	}
	return nil
}

// checkSample wants some tasks to be those that their workers took them for.
func (r *run) checkSample(ctx context.Context, l *load) error {
	l.mu.Lock()
	sample := maps.Clone(l.sample)
	l.mu.Unlock()
	for task, id := range sample {
		var found api.TaskSummary
		if err := r.do(ctx, request{method: http.MethodGet, path: "/task/" + id, want: http.StatusOK, into: &found}); err != nil {
			return err
		}
		if want := fmt.Sprintf("t%d", task); found.LocalID != want {
			return fmt.Errorf("%s: the worker of %s was given the handle of %s", l.kind, want, found.LocalID)
		}
	}
	return nil
}

// checkBatches wants the batches of l to have ended as they should.
func (r *run) checkBatches(ctx context.Context, l *load) error {
	var sum, odd api.StatusCounts
	oddOnes := 0
	stride := (len(l.batches) + lookedAt - 1) / lookedAt
	for i := 0; i < len(l.batches); i += stride {
		var b api.Batch
		if err := r.do(ctx, request{method: http.MethodGet, path: "/batch/" + l.batches[i], want: http.StatusOK, into: &b}); err != nil {
			return err
		}
		c := b.StatusCounts
		sum.Success, sum.Failure, sum.Canceled = sum.Success+c.Success, sum.Failure+c.Failure, sum.Canceled+c.Canceled
		if ended := c.Success + c.Failure + c.Canceled; ended != b.TotalTasks || l.expect == nil && c.Success != ended {
			oddOnes, odd = oddOnes+1, c
		}
	}
	if oddOnes > 0 {
		return fmt.Errorf("%s: %d batches have not ended as they should; the last has %+v", l.kind, oddOnes, odd)
	}
	if l.expect != nil && stride == 1 && sum != *l.expect {
		return fmt.Errorf("%s: ended with %+v, want %+v", l.kind, sum, *l.expect)
	}
	return nil
}

// seen is what is wrong with what the workers saw.
func (l *load) seen() error {
	var errs []error
	wrong := func(n int64, what string) {
		if n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d %s", l.kind, n, what))
		}
	}
	var missing, repeated, shared int64
	least, most := 1, 1
	ids := make(map[uint64]bool, l.posted())
	for i := range l.posted() {
		if id := l.ids[i].Load(); id != 0 {
			if ids[id] {
				shared++
			}
			ids[id] = true
		}
		if l.may != nil {
			least, most = l.may(i)
		}
		switch n := int(l.starts[i].Load()); {
		case n < least:
			missing++
		case n > most:
			repeated++
		}
	}
	wrong(missing, "tasks were not started")
	wrong(repeated, "tasks were started too often")
	wrong(shared, "tasks were started with the id of another one")
	wrong(l.mixed.Load(), "starts with an id, a key and a handle that do not belong together")
	wrong(l.exceeded.Load(), "starts over a limit")
	wrong(l.unseen.Load(), "starts before that from which their latency counts")
	wrong(l.early.Load(), "starts before what they depend on had ended")
	if l.tells {
		wrong(max(0, l.completions.Load()-int64(len(l.batches))), "batches too many told of their end")
	}
	if n := l.refused.Load(); n > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		errs = append(errs, fmt.Errorf("%s: %d reports were refused; the last: %w", l.kind, n, l.last))
	}
	return errors.Join(errs...)
}
