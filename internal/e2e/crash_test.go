package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/internal/app"
	"taskrunner/internal/config"
)

// mixed is what a POST of a run creates: chains of five, tasks under a limit, and single ones, all with counts and end
// webhooks.
func mixed(w *crew, post, n int) []obj {
	tasks := make([]obj, n)
	for i := range tasks {
		id := fmt.Sprintf("%d-%d", post, i)
		o := order{Post: post, Count: []int64{1 + rand.Int64N(9), 1 + rand.Int64N(9)}, Work: rand.IntN(4)}
		switch with := (obj{}); i % 3 {
		case 0:
			if i%15 > 0 {
				with["dependencies"] = []obj{dep(fmt.Sprintf("%d-%d", post, i-3), true)}
			}
			tasks[i] = w.task(id, o, with)
		case 1:
			o.Slot, o.Max = "slot "+strconv.Itoa(i%11), 3
			tasks[i] = w.task(id, o, with)
		default:
			tasks[i] = w.task(id, o, with)
		}
	}
	return tasks
}

// posts keeps books of the POSTs of a run.
type posts struct {
	mu      sync.Mutex
	batches []string     // acknowledged
	lost    map[int]bool // got no answer: they may be there, whole, or not
	made    int
}

// make creates n POSTs of size tasks by some clients at once, and goes on to the next after one that failed.
func (p *posts) make(w *crew, url func() string, n, size int) *sync.WaitGroup {
	p.lost = map[int]bool{}
	clients := &sync.WaitGroup{}
	for range 3 {
		clients.Go(func() {
			for {
				p.mu.Lock()
				post := p.made
				p.made++
				p.mu.Unlock()
				if post >= n || w.stop.Err() != nil {
					return
				}
				for again := true; again && w.stop.Err() == nil; {
					again = p.one(w, url(), post, size)
				}
			}
		})
	}
	return clients
}

// one is true when nothing was created and the POST is to be sent again.
func (p *posts) one(w *crew, url string, post, size int) bool {
	batch, status := w.post(url, mixed(w, post, size))
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status == http.StatusCreated:
		p.batches = append(p.batches, batch)
	case status == 0:
		p.lost[post] = true
		time.Sleep(20 * time.Millisecond)
	case status >= 500:
		time.Sleep(20 * time.Millisecond)
		return true
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fault("POST /task is answered with %d", status)
	}
	return false
}

// check wants what was acknowledged to be there, and what was not to be there whole or not at all. All tasks have
// ended. It returns how many there are.
func (p *posts) check(w *crew, c *client, size int) {
	w.t.Helper()
	for _, batch := range p.batches {
		w.checkCounts(c, batch, size)
	}
	for post := range p.lost {
		if n := w.count(func(j *job) bool { return j.Post == post }); n != 0 && n != size {
			w.t.Errorf("POST %d got no answer and created %d of %d tasks", post, n, size)
		}
	}
	w.t.Logf("%d POSTs acknowledged, %d without answer", len(p.batches), len(p.lost))
}

// allEnded waits until no task is left that could move, whoever created it.
func allEnded(w *crew, c *client) {
	w.t.Helper()
	w.reach("no task is live", 1, func() int {
		a := c.want(http.StatusOK, http.MethodGet, "/task?per_page=1&status=Waiting,Pending,Running,Paused", nil)
		if strings.TrimSpace(string(a.body)) == "[]" {
			return 1
		}
		return min(0, w.endedJobs()-1_000_000) // as long as tasks end it is not stuck
	})
}

// drift counts the gates that differ from the tasks that hold them. The database at url must not be in use, if it is
// SQLite.
func drift(t testing.TB, url string) int {
	t.Helper()
	c, err := config.Load(nil, func(name string) string { return map[string]string{"DATABASE_URL": url}[name] })
	if err != nil {
		t.Fatal(err)
	}
	s, err := app.OpenStore(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Drift(t.Context())
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return n
}

func TestKilledProcessLosesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		total, size, kills := scaled(5000), 250, 3
		if db == "sqlite" {
			kills = 2
		}
		url, w := databaseURL(t, db), newCrew(t)
		p := startProcess(t, url, map[string]string{"CLAIM_LEASE": "2s", "WEBHOOK_HOST_WINDOW": "128"})
		var books posts
		clients := books.make(w, func() string { return p.url }, total/size, size)
		for i := range kills {
			at := total*(i+1)/(kills+2) + rand.IntN(total/10)
			w.reach("tasks end", at, w.endedJobs)
			w.kill(p)
			p.start()
		}
		clients.Wait()
		allEnded(w, &p.client)
		w.finish(w.count(func(*job) bool { return true }))
		books.check(w, &p.client, size)
		w.checkStarts()
		freeSlots(w, p)
		p.terminate()
		if state := p.wait(); state.ExitCode() != 0 {
			t.Errorf("the service ended with %s", state)
		}
		if n := drift(t, url); n != 0 {
			t.Errorf("%d gates differ from the tasks that hold them", n)
		}
	})
}

// freeSlots wants every slot of a run to be free: a task that allows itself alone starts.
func freeSlots(w *crew, p *process) {
	w.t.Helper()
	var tasks []obj
	for i := range 11 {
		tasks = append(tasks, w.task(strconv.Itoa(i), order{Post: -1, Slot: "slot " + strconv.Itoa(i), Max: 1}, nil))
	}
	p.create(tasks)
	w.reach("a slot is free", len(tasks), func() int { return w.count(func(j *job) bool { return j.Post == -1 && j.ended }) })
}

func TestKilledProcessKeepsCounts(t *testing.T) {
	t.Parallel()
	url := databaseURL(t, "sqlite")
	p := startProcess(t, url, nil)
	const counters = 16
	tasks := make([]obj, counters)
	w := newCrew(t)
	w.accept = func(call) {} // counts come from here
	for i := range tasks {
		tasks[i] = w.task(strconv.Itoa(i), order{}, nil)
	}
	created, _ := p.create(tasks)
	for range scaled(3) {
		countUntilKilled(t, p, w, created[strconv.Itoa(rand.IntN(counters))].ID)
	}
}

// countUntilKilled counts on a task from many clients, kills the process, and compares after a restart.
func countUntilKilled(t *testing.T, p *process, w *crew, id string) {
	before := p.task(id).Success
	var mu sync.Mutex
	var acked, sent int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				n := 1 + rand.Int64N(1000)
				status, _ := w.send(http.MethodPut, p.url+"/task/"+id, obj{"new_success": n})
				mu.Lock()
				sent += n
				switch status {
				case http.StatusAccepted:
					acked += n
				case 0:
					cancel()
				default:
					t.Errorf("PUT is answered with %d", status)
				}
				mu.Unlock()
			}
		})
	}
	enough := int64(scaled(200_000))
	eventually(t, "counts are acknowledged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return acked > enough
	})
	p.kill()
	clients.Wait()
	p.start()
	if got := p.task(id).Success - before; got < acked || got > sent {
		t.Errorf("counted %d, acknowledged %d, sent %d", got, acked, sent)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	url := databaseURL(t, "sqlite")
	first := startProcess(t, url, nil)
	second := &process{client: client{t: t}, log: &logBuffer{}, env: first.env}
	t.Cleanup(second.kill)
	second.launch()
	if state := second.wait(); state.ExitCode() != 1 {
		t.Errorf("the second process ended with %s, want exit code 1", state)
	}
	path := strings.TrimPrefix(url, "sqlite:")
	if text := second.log.String(); !strings.Contains(text, "in use by another process") || !strings.Contains(text, path) {
		t.Errorf("the second process says %q, want the file and that it is in use", text)
	}
	first.want(http.StatusOK, http.MethodGet, "/health", nil)
}

// slowCrew accepts on_starts only after release.
func slowCrew(t testing.TB) (w *crew, release func()) {
	w = newCrew(t)
	open := make(chan struct{})
	w.accept = func(call) { <-open }
	release = sync.OnceFunc(func() { close(open) })
	t.Cleanup(release) // before the crew waits for its handlers
	return w, release
}

func manyTasks(w *crew, n int) []obj {
	tasks := make([]obj, n)
	for i := range tasks {
		tasks[i] = w.task(strconv.Itoa(i), order{Count: []int64{1}}, nil)
	}
	return tasks
}

func TestTerminatedProcessFinishesWhatIsInFlight(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		const n, inFlight = 400, 300
		w, release := slowCrew(t)
		p := startProcess(t, databaseURL(t, db), map[string]string{
			"WEBHOOK_WINDOW": strconv.Itoa(inFlight), "WEBHOOK_HOST_WINDOW": strconv.Itoa(inFlight), "WEBHOOK_TIMEOUT": "60s",
		})
		_, batch := p.create(manyTasks(w, n))
		arrived := func() int { return w.count(func(*job) bool { return true }) }
		w.reach("on_starts arrive", inFlight, arrived)
		p.terminate()
		eventually(t, "the service is not ready any more", func() bool {
			a, err := p.try(t.Context(), http.MethodGet, "/ready", nil)
			return err != nil || a.status == http.StatusServiceUnavailable
		})
		release()
		if state := p.wait(); state.ExitCode() != 0 {
			t.Errorf("the service ended with %s", state)
		}
		if got := arrived(); got != inFlight {
			t.Errorf("%d on_starts were sent, %d of them after the signal", got, got-inFlight)
		}
		p.start()
		w.finish(n)
		w.checkCounts(&p.client, batch, n)
		w.checkStarts() // nothing was given up, so nothing is repeated
	})
}

func TestTerminatedProcessKeepsItsDeadline(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		const n = 300
		w, release := slowCrew(t)
		p := startProcess(t, databaseURL(t, db), map[string]string{
			"SHUTDOWN_TIMEOUT": "1s", "WEBHOOK_HOST_WINDOW": strconv.Itoa(n), "WEBHOOK_TIMEOUT": "60s",
		})
		_, batch := p.create(manyTasks(w, n))
		w.reach("on_starts arrive", n, func() int { return w.count(func(*job) bool { return true }) })
		p.terminate()
		if state := p.wait(); state.ExitCode() != 0 { // nobody answers, so only the deadline can end it
			t.Errorf("the service ended with %s", state)
		}
		w.crashed() // everything had arrived
		p.start()
		w.reach("they are sent again", n, func() int { return w.count(func(j *job) bool { return len(j.starts) == 2 }) })
		release()
		w.finish(n)
		w.checkCounts(&p.client, batch, n)
		w.checkStarts()
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	w, release := slowCrew(t)
	p := startProcess(t, databaseURL(t, "sqlite"), map[string]string{"SHUTDOWN_TIMEOUT": "10m", "WEBHOOK_TIMEOUT": "60s"})
	_, batch := p.create(manyTasks(w, 1))
	w.reach("on_start arrives", 1, func() int { return w.count(func(*job) bool { return true }) })
	p.terminate()
	eventually(t, "the service is stopping", func() bool { return strings.Contains(p.log.String(), "stopping") })
	p.terminate()
	if state := p.wait(); state.Exited() {
		t.Errorf("the service ended with %s, want the signal", state)
	}
	w.crashed() // everything had arrived
	p.start()
	release()
	w.finish(1)
	w.checkCounts(&p.client, batch, 1)
}
