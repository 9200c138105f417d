package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/api"
)

// order is the body of an on_start: what the worker is to do. Every task that a crew works on has one.
type order struct {
	Post  int     `json:"post"`            // which POST it came with
	Slot  string  `json:"slot,omitempty"`  // what its rule limits
	Max   int     `json:"max,omitempty"`   // the limit
	Count []int64 `json:"count,omitempty"` // to report, each by a PUT of its own
	Work  int     `json:"work,omitempty"`  // milliseconds
}

// job is what a crew knows of a task.
type job struct {
	order
	sender string // whose handle came first
	starts []int  // the epochs in which on_start arrived
	begun  bool   // one of them was accepted
	ends   int    // end webhooks that arrived
	// acked is the sum of the counts that were answered with 202, sent also has those that got no answer.
	acked, sent int64
	ended       bool // its end was answered with 200
}

// crew is workers that keep books: what they were asked to do, what they reported and what was answered. Whatever
// must never be, whoever crashes meanwhile, is a fault.
type crew struct {
	t      testing.TB
	url    string
	client *http.Client
	stop   context.Context // ends with the test
	atWork sync.WaitGroup

	// route is where to report on a handle; nil: on the handle. accept is called for each on_start before it is
	// answered. Both are set before there are tasks.
	route  func(handle string) string
	accept func(c call)

	mu     sync.Mutex
	epoch  int
	dying  chan struct{}              // not nil: new on_starts wait until it is closed, and then get no answer
	inside int                        // those that wait
	jobs   map[string]*job            // by task
	held   map[string]map[string]bool // tasks at work by slot
	conns  map[net.Conn]bool
	ended  int
	faults []string
	// unanswered and refused count the requests that got no answer, or an answer of 5xx.
	unanswered, refused int
	unheard             string // why there was no answer, the last time
	slowest             time.Duration
}

// newCrew listens on a free port of 127.0.0.1 until the test ends, and then fails it for every fault.
func newCrew(t testing.TB) *crew {
	stop, cancel := context.WithCancel(context.Background())
	w := &crew{
		t: t, stop: stop, jobs: map[string]*job{}, held: map[string]map[string]bool{}, conns: map[net.Conn]bool{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}, Timeout: patience},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", w.start)
	mux.HandleFunc("POST /end", w.end)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.conns[c] = true; state == http.StateClosed || state == http.StateHijacked {
			delete(w.conns, c)
		}
	}
	server.Start()
	w.url = server.URL
	t.Cleanup(func() {
		cancel()
		w.atWork.Wait()
		w.client.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
		for i, fault := range w.faults {
			if i == 20 {
				t.Errorf("… and %d more", len(w.faults)-i)
				break
			}
			t.Error(fault)
		}
	})
	return w
}

// task is one that follows o. with edits it.
func (w *crew) task(id string, o order, with obj) obj {
	t := obj{
		"id": id, "name": id, "kind": "crew", "timeout": 3600,
		"on_start":   obj{"kind": "Webhook", "params": obj{"url": w.url + "/run", "verb": "Post", "body": o}},
		"on_success": []obj{{"kind": "Webhook", "params": obj{"url": w.url + "/end", "verb": "Post"}}},
	}
	if o.Slot != "" {
		t["kind"], t["metadata"] = "limited", obj{"slot": o.Slot}
		t["rules"] = []obj{limit("limited", o.Max, "slot")}
	}
	for k, v := range with {
		t[k] = v
	}
	return t
}

// fault is called under the lock.
func (w *crew) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *crew) start(rw http.ResponseWriter, r *http.Request) {
	var o order
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &o)
	}
	if err != nil { // cut off: its sender died
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	id, handle := r.Header.Get("X-Task-Id"), r.URL.Query().Get("handle")
	w.mu.Lock()
	if key := r.Header.Get("Idempotency-Key"); key != id+":start" {
		w.fault("on_start of %s has the key %q", id, key)
	}
	j, known := w.jobs[id]
	if !known {
		j = &job{order: o, sender: base(handle)}
		w.jobs[id] = j
		w.hold(id, o)
	}
	j.starts = append(j.starts, w.epoch)
	dying := w.dying
	if dying != nil {
		w.inside++
	}
	w.mu.Unlock()
	if dying != nil {
		<-dying
		panic(http.ErrAbortHandler)
	}
	if w.accept != nil {
		w.accept(call{Task: id, Handle: handle})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !j.begun { // the same start may come again
		j.begun = true
		w.atWork.Go(func() { w.work(id, handle, j) })
	}
}

// hold takes a slot for as long as the task cannot have ended: the service holds it for longer.
func (w *crew) hold(id string, o order) {
	if o.Slot == "" {
		return
	}
	if w.held[o.Slot] == nil {
		w.held[o.Slot] = map[string]bool{}
	}
	w.held[o.Slot][id] = true
	if n := len(w.held[o.Slot]); n > o.Max {
		w.fault("%d tasks are at work in slot %s, which allows %d", n, o.Slot, o.Max)
	}
}

func (w *crew) end(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	id := r.Header.Get("X-Task-Id")
	w.mu.Lock()
	defer w.mu.Unlock()
	if key := r.Header.Get("Idempotency-Key"); key != id+":end:success" {
		w.fault("the end webhook of %s has the key %q", id, key)
	}
	j := w.jobs[id]
	if j == nil {
		w.fault("end webhook of %s, which never started", id)
		return
	}
	j.ends++
}

func (w *crew) work(id, handle string, j *job) {
	time.Sleep(time.Duration(j.Work) * time.Millisecond)
	for _, n := range j.Count {
		w.report(http.MethodPut, handle, obj{"new_success": n}, func(status int) bool {
			if status == 0 || status == http.StatusAccepted {
				j.sent += n
			}
			if status == http.StatusAccepted {
				j.acked += n
			}
			return status == http.StatusAccepted
		})
	}
	w.mu.Lock()
	delete(w.held[j.Slot], id)
	w.mu.Unlock()
	w.report(http.MethodPatch, handle, obj{"status": "Success"}, func(status int) bool {
		if j.ended = status == http.StatusOK; j.ended {
			w.ended++
		}
		return j.ended
	})
}

// report sends body until there is an answer that is not 5xx. answered is told of each attempt, under the lock; status 0
// is no answer. It returns whether that is the answer to expect.
func (w *crew) report(method, handle string, body any, answered func(status int) bool) {
	for w.stop.Err() == nil {
		target := handle
		if w.route != nil {
			target = w.route(handle)
		}
		begun := time.Now()
		status, text := w.send(method, target, body)
		w.mu.Lock()
		expected := answered(status)
		w.slowest = max(w.slowest, time.Since(begun))
		again := true
		if status == 0 && time.Since(begun) >= patience && w.stop.Err() == nil {
			w.fault("%s %s: no answer within %s", method, target, patience)
		}
		switch {
		case status == 0:
			w.unanswered++
			w.unheard = string(text)
		case status >= 500:
			w.refused++
		default:
			if again = false; !expected {
				w.fault("%s %s is answered with %d: %s", method, target, status, text)
			}
		}
		w.mu.Unlock()
		if !again {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// send returns status 0 when there is no answer, and why.
func (w *crew) send(method, url string, body any) (status int, text []byte) {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own maps always marshal
	}
	req, err := http.NewRequestWithContext(w.stop, method, url, bytes.NewReader(raw))
	if err != nil {
		panic(err) // handles are URLs
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	text, _ = io.ReadAll(resp.Body) // the status is the answer, also when the rest breaks off
	_ = resp.Body.Close()
	return resp.StatusCode, text
}

// post creates tasks at url, with one attempt. It returns the id of the batch and the status, 0 for no answer.
func (w *crew) post(url string, tasks []obj) (batch string, status int) {
	status, text := w.send(http.MethodPost, url+"/task", tasks)
	if status == 0 && strings.Contains(string(text), "connection refused") {
		return "", http.StatusServiceUnavailable // nobody was there: nothing was created, as with this answer
	}
	if status != http.StatusCreated {
		return "", status
	}
	var created []api.Task
	if err := json.Unmarshal(text, &created); err != nil || len(created) != len(tasks) {
		return "", 0 // cut off
	}
	return created[0].BatchID, status
}

// count counts jobs.
func (w *crew) count(match func(*job) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, j := range w.jobs {
		if match(j) {
			n++
		}
	}
	return n
}

func (w *crew) endedJobs() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// nextEpoch begins after the death of the only process that sends to the crew: everything it had sent has arrived. It
// says that on_starts that arrive from now on may be repeats.
func (w *crew) nextEpoch() {
	w.t.Helper()
	once := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := once.Get(w.url + "/") // what was waiting to be accepted is accepted before it
	if err != nil {
		w.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "connections of the dead process are closed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.conns) == 0
	})
	w.crashed()
}

// kill kills the only process that sends to the crew, while some of its on_starts have arrived and are not accepted.
func (w *crew) kill(p *process) {
	w.t.Helper()
	dying := make(chan struct{})
	release := sync.OnceFunc(func() { close(dying) })
	defer release()
	w.mu.Lock()
	w.dying, w.inside = dying, 0
	w.mu.Unlock()
	const enough = 10
	w.reach("on_starts are in flight", enough, func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.inside
	})
	p.kill()
	w.mu.Lock()
	w.dying = nil
	w.mu.Unlock()
	release()
	w.nextEpoch()
}

// crashed begins an epoch when it is known that nothing is on its way from the process that died.
func (w *crew) crashed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch++
}

// finish waits until n tasks have ended and every end webhook has arrived. It gives up when nothing moves any more.
func (w *crew) finish(n int) {
	w.t.Helper()
	w.reach(fmt.Sprintf("%d tasks end, and their end webhooks arrive", n), n+n, func() int {
		return w.endedJobs() + w.count(func(j *job) bool { return j.ends > 0 })
	})
}

// reach waits until measure gives n, for as long as it rises now and then.
func (w *crew) reach(what string, n int, measure func() int) {
	w.t.Helper()
	last, moved := -1, time.Now()
	for {
		switch now := measure(); {
		case now >= n:
			return
		case now > last:
			last, moved = now, time.Now()
		case time.Since(moved) > patience:
			w.t.Fatalf("stuck at %d of %d: %s", last, n, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// checkCounts compares the counts of the tasks of a batch, all of which must have succeeded, with the books.
func (w *crew) checkCounts(c *client, batch string, tasks int) {
	w.t.Helper()
	dag := decode[api.DAG](w.t, c.want(http.StatusOK, http.MethodGet, "/dag/"+batch, nil))
	if len(dag.Tasks) != tasks {
		w.t.Errorf("batch %s has %d tasks, want %d", batch, len(dag.Tasks), tasks)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range dag.Tasks {
		j := w.jobs[k.ID]
		if j == nil || k.Status != "Success" {
			w.t.Errorf("task %s is %s, and known to the crew: %t", k.ID, k.Status, j != nil)
			continue
		}
		if k.Success < j.acked || k.Success > j.sent {
			w.t.Errorf("task %s counts %d; %d were acknowledged, %d sent", k.ID, k.Success, j.acked, j.sent)
		}
	}
}

// checkStarts wants on_start repeated in a new epoch only, and so at most once a crash.
func (w *crew) checkStarts() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	repeats := 0
	for id, j := range w.jobs {
		for i := 1; i < len(j.starts); i++ {
			if repeats++; j.starts[i] == j.starts[i-1] {
				w.t.Errorf("on_start of %s was sent twice without a crash: %v", id, j.starts)
			}
		}
	}
	w.t.Logf("%d tasks, %d on_starts repeated over %d crashes, %d reports without answer (%s), %d with 5xx, slowest %s",
		len(w.jobs), repeats, w.epoch, w.unanswered, w.unheard, w.refused, w.slowest.Round(time.Millisecond))
}

// scaled is n, or more of it where TEST_LONG asks for it.
func scaled(n int) int {
	if os.Getenv("TEST_LONG") != "" {
		return 10 * n
	}
	return n
}

// base is the scheme and host of a handle.
func base(handle string) string {
	at, _, _ := strings.Cut(handle, "/task/")
	return at
}
