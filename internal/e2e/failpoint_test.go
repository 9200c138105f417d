package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"taskrunner/api"
)

// killPoints are where a process is killed, and how often it surely comes there with one batch. The first are points of
// package failpoint. At the others the receiver kills it, when a webhook of that trigger has arrived, or when it has
// answered half.
var killPoints = []struct {
	name string
	most int
}{
	{"created", 1}, {"claimed", 3}, {"taken-over", 1}, {"start-accepted", 3}, {"start-refused", 1}, {"start-settled", 3},
	{"end-settled", 3}, {"pump-ended", 1}, {"deliveries-claimed", 3}, {"deliveries-sent", 3}, {"deliveries-finished", 3},
	{"arrived start", 5}, {"half start", 5}, {"arrived end", 5}, {"half end", 5}, {"arrived cancel", 1}, {"arrived batch", 1},
}

// stage is a receiver whose workers play, and what they may expect of the service whoever dies.
type stage struct {
	*receiver
	p    *process
	acts sync.WaitGroup

	mu       sync.Mutex
	trigger  string // at which the process is to be killed; "" is none
	half     bool
	halt     bool // it is stopped instead, and goes on when the test says so
	times    int
	struck   bool
	goesOn   chan struct{}        // closed when it does
	atWork   map[string]int       // by run
	reported map[string]time.Time // when the end of a task was first reported
}

// newStage has its own paths: /run ends its task in Success, /fail in Failure, /refuse does not take it, /hold takes it
// and leaves the end to the test, with a cancel action.
func newStage(t testing.TB) *stage {
	st := &stage{receiver: newReceiver(t), atWork: map[string]int{}, reported: map[string]time.Time{}, goesOn: make(chan struct{})}
	for _, path := range []string{"/run", "/fail", "/refuse", "/hold", "/end", "/cancel", "/batch"} {
		st.handle(path, func(w http.ResponseWriter, c call) {
			if st.strike(w, c.Trigger) {
				panic(http.ErrAbortHandler)
			}
			st.keepFromStopped(c)
			st.answer(w, c)
		})
	}
	return st
}

func (st *stage) answer(w http.ResponseWriter, c call) {
	switch c.Path {
	case "/run":
		st.end(c.Task, c.Handle, obj{"status": "Success"})
	case "/fail":
		st.end(c.Task, c.Handle, obj{"status": "Failure", "failure_reason": "the worker says so"})
	case "/refuse":
		w.WriteHeader(http.StatusUnprocessableEntity)
	case "/hold":
		st.withCancel("/cancel")(w, c)
	}
}

// end reports the end of a task until it is heard.
func (st *stage) end(id, handle string, body obj) {
	st.mu.Lock()
	if st.reported[id].IsZero() {
		st.reported[id] = time.Now()
	}
	st.mu.Unlock()
	st.jobs.Go(func() {
		if status := report(st.life, http.MethodPatch, handle, body); status != http.StatusOK && st.life.Err() == nil {
			st.t.Errorf("the end of %s is answered with %d", id, status)
		}
	})
}

// aim has the process killed at a point of this receiver, when it comes there for that time.
func (st *stage) aim(point string, times int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	how, trigger, _ := strings.Cut(point, " ")
	st.trigger, st.half, st.halt, st.times, st.struck = trigger, how == "half", how == "stopped", times, false
}

// strike kills the process if this is the time, and is true when it did.
func (st *stage) strike(w http.ResponseWriter, trigger string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if trigger != st.trigger || st.struck {
		return false
	}
	if st.times--; st.times > 0 {
		return false
	}
	st.struck = true
	if st.halt {
		if err := st.p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			st.t.Error(err)
		}
		return false
	}
	if st.half {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
	}
	st.p.kill()
	return true
}

// keepFromStopped holds the answer back from a process that is stopped, so that it finds none when it goes on.
func (st *stage) keepFromStopped(c call) {
	st.mu.Lock()
	stopped := st.halt && st.struck && base(c.Handle) == st.p.url
	st.mu.Unlock()
	if stopped {
		select {
		case <-st.goesOn:
		case <-st.life.Done():
		}
	}
}

// play is one batch and what is to become of it.
type play struct {
	st    *stage
	run   string
	batch string
	tasks map[string]api.Task
	ends  map[string]string // the status of each task in the end, by local id
}

// script is a batch in which everything happens that sends a webhook, or must not.
func (st *stage) script(run string) (body obj, ends map[string]string) {
	ends = map[string]string{}
	var tasks []obj
	add := func(id, path, end string, with obj) {
		t := st.newTask(id, path, obj{
			"kind": "play", "metadata": obj{"run": run},
			"on_success": []obj{st.hook("/end"), st.hook("/end")}, "on_failure": []obj{st.hook("/end")},
		})
		for k, v := range with {
			t[k] = v
		}
		tasks, ends[id] = append(tasks, t), end
	}
	after := func(requiresSuccess bool, parents ...string) obj {
		var deps []obj
		for _, id := range parents {
			deps = append(deps, dep(id, requiresSuccess))
		}
		return obj{"dependencies": deps}
	}
	alone := func(priority int) obj {
		return obj{"kind": "alone", "priority": priority, "rules": []obj{limit("alone", 1, "run")}}
	}
	add("first", "/run", "Success", nil)
	add("second", "/run", "Success", after(true, "first"))
	add("third", "/run", "Success", after(true, "second"))
	add("failing", "/fail", "Failure", after(true, "first"))
	add("doomed", "/run", "Failure", after(true, "failing"))
	add("doomed too", "/run", "Failure", after(true, "doomed"))
	add("regardless", "/run", "Success", after(false, "failing"))
	add("refused", "/refuse", "Failure", nil)
	add("after refused", "/run", "Success", after(false, "refused", "third"))
	add("canceled", "/hold", "Canceled", nil)
	add("canceled early", "/hold", "Canceled", nil)
	add("alone", "/hold", "Success", alone(10))
	add("held", "/run", "Canceled", alone(5))
	add("next alone", "/run", "Success", alone(0))
	add("waiting", "/run", "Canceled", after(true, "alone"))
	return obj{"tasks": tasks, "on_batch_complete": []obj{st.hook("/batch")}}, ends
}

// begin creates a batch, again and again until that is acknowledged, and has its tasks canceled and ended as its script wants.
func (st *stage) begin(run string) *play {
	body, ends := st.script(run)
	pl := &play{st: st, run: run, tasks: map[string]api.Task{}, ends: ends}
	st.acts.Go(func() {
		for st.life.Err() == nil {
			a, err := st.p.try(st.life, http.MethodPost, "/task", body, "Idempotency-Key", run)
			if err != nil || a.status >= 500 {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			if a.status != http.StatusCreated && a.status != http.StatusOK { // it was created, and the answer got lost
				st.t.Errorf("POST /task is answered with %d: %.500s", a.status, a.body)
				return
			}
			pl.batch = a.header.Get("X-Batch-ID")
			for _, task := range decode[[]api.Task](st.t, a) {
				pl.tasks[task.LocalID] = task
			}
			break
		}
		pl.act()
	})
	return pl
}

// act cancels what is to be canceled, when it is known where it is, and then ends what it had to wait for.
func (pl *play) act() {
	st := pl.st
	handle := func(local string) string {
		id := pl.tasks[local].ID
		for st.life.Err() == nil {
			if calls := st.got(sent("start", id)); len(calls) > 0 {
				return calls[0].Handle
			}
			time.Sleep(5 * time.Millisecond)
		}
		return ""
	}
	alone := handle("alone")
	handle("canceled early") // is Claimed or Running
	for running := false; !running && st.life.Err() == nil; time.Sleep(5 * time.Millisecond) {
		a, err := st.p.try(st.life, http.MethodGet, "/task/"+pl.tasks["canceled"].ID, nil)
		running = err == nil && strings.Contains(string(a.body), `"status":"Running"`)
	}
	for _, local := range []string{"held", "waiting", "canceled early", "canceled"} {
		status := report(st.life, http.MethodDelete, st.p.url+"/task/"+pl.tasks[local].ID, nil)
		if status != http.StatusOK && status != http.StatusConflict { // it was canceled, and the answer got lost
			st.t.Errorf("DELETE of %q is answered with %d", local, status)
		}
	}
	st.end(pl.tasks["alone"].ID, alone, obj{"status": "Success"})
}

// keys are the webhooks that have to arrive, in the end, and no others.
func (pl *play) keys() []string {
	keys := []string{"batch:" + pl.batch + ":complete"}
	for local, end := range pl.ends {
		id := pl.tasks[local].ID
		switch local {
		case "held", "waiting", "doomed", "doomed too":
		default:
			keys = append(keys, id+":start")
		}
		switch {
		case local == "canceled":
			keys = append(keys, id+":cancel")
		case end == "Success":
			keys = append(keys, id+":end:success", id+":end:success:1")
		case end == "Failure":
			keys = append(keys, id+":end:failure")
		}
	}
	slices.Sort(keys)
	return keys
}

// arrived are the keys of the webhooks of the batch that have arrived, each once.
func (pl *play) arrived() []string {
	ids := map[string]bool{}
	for _, task := range pl.tasks {
		ids[task.ID] = true
	}
	var keys []string
	for _, c := range pl.st.got(func(c call) bool { return ids[c.Task] || c.Header.Get("X-Batch-Id") == pl.batch }) {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// check waits for the end of the batch and of its webhooks, and compares.
func (pl *play) check() {
	t, st, keys := pl.st.t, pl.st, pl.keys()
	t.Helper()
	st.p.waitEnd(pl.batch)
	var missing []string
	defer func() {
		if len(missing) > 0 {
			t.Logf("%s: missing: %v", pl.run, missing)
		}
	}()
	eventually(t, "every webhook of "+pl.run+" arrives", func() bool {
		arrived := pl.arrived()
		missing = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return slices.Contains(arrived, key) })
		return len(missing) == 0
	})
	// The answer that brings a cancel action may be lost with the process, and nobody asks again about a task that was
	// canceled meanwhile.
	keys = append(keys, pl.tasks["canceled early"].ID+":cancel")
	for _, key := range pl.arrived() {
		if !slices.Contains(keys, key) {
			t.Errorf("%s: %s arrived", pl.run, key)
		}
	}
	for local, end := range pl.ends {
		if task := st.p.task(pl.tasks[local].ID); task.Status != end {
			t.Errorf("%s: %q is %s (%v), want %s", pl.run, local, task.Status, jsonOf(task.FailureReason), end)
		}
	}
	pl.checkOrder()
}

// checkOrder wants no on_start before the end of what it had to wait for was reported.
func (pl *play) checkOrder() {
	for child, parents := range map[string][]string{
		"second": {"first"}, "third": {"second"}, "failing": {"first"}, "regardless": {"failing"}, "after refused": {"third"},
		"next alone": {"alone"},
	} {
		for _, parent := range parents {
			pl.st.mu.Lock()
			ended := pl.st.reported[pl.tasks[parent].ID]
			pl.st.mu.Unlock()
			for _, c := range pl.st.got(sent("start", pl.tasks[child].ID)) {
				if ended.IsZero() || c.At.Before(ended) {
					pl.st.t.Errorf("%s: %q was started at %v, before the end of %q at %v", pl.run, child, c.At, parent, ended)
				}
			}
		}
	}
}

// dies waits for the process to be killed at its point, and not to end in another way.
func (st *stage) dies(point string, times int, since int) {
	t := st.t
	t.Helper()
	state := st.p.wait()
	if ws, ok := state.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: the process ended with %s", point, state)
	}
	if st.p.point == "" {
		st.mu.Lock()
		defer st.mu.Unlock()
		if !st.struck {
			t.Fatalf("%s: the receiver did not kill the process", point)
		}
	} else if text := fmt.Sprintf("failpoint %s:%d\n", point, times); !strings.Contains(st.p.log.String()[since:], text) {
		t.Fatalf("%s: the process did not die there", point)
	}
}

// killAt starts the process to die at a point when it comes there for that time, begins a batch, and waits for the death.
func (st *stage) killAt(point string, times int) *play {
	st.t.Helper()
	since := len(st.p.log.String())
	st.p.point = ""
	if st.aim("", 0); strings.Contains(point, " ") {
		st.aim(point, times)
	} else {
		st.p.point = point + ":" + strconv.Itoa(times)
	}
	st.launch()
	pl := st.begin(fmt.Sprint(point, " ", times, " ", since))
	st.dies(point, times, since)
	return pl
}

// launch is the process's, before any of its webhooks is answered.
func (st *stage) launch() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.p.launch()
}

// TestKilledAtEveryStep kills the process at each step of the way of a task. Each life gets a batch of its own, and
// finds what those before have left. In the end every webhook that is owed has arrived, with its one key, and no other.
func TestKilledAtEveryStep(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		url, st := databaseURL(t, db), newStage(t)
		st.p = startProcess(t, url, map[string]string{"CLAIM_LEASE": "2s", "WEBHOOK_TIMEOUT": "2s"})
		st.p.kill()
		var plays []*play
		for round := range scaled(1) {
			for _, point := range killPoints {
				plays = append(plays, st.killAt(point.name, 1+round%point.most))
			}
		}
		st.aim("", 0)
		st.p.point = ""
		st.p.start()
		st.acts.Wait()
		for _, pl := range plays {
			pl.check()
		}
		repeated := map[string]int{}
		for _, c := range st.got(func(call) bool { return true }) {
			repeated[c.Key]++
		}
		most := slices.MaxFunc(plays[0].arrived(), func(a, b string) int { return cmp.Compare(repeated[a], repeated[b]) })
		t.Logf("%d batches, %d deaths, %d webhooks, %d keys, at most %d of one", len(plays), len(plays),
			len(st.got(func(call) bool { return true })), len(repeated), repeated[most])
		st.p.terminate()
		if state := st.p.wait(); state.ExitCode() != 0 {
			t.Errorf("the service ended with %s", state)
		}
		if n := drift(t, url); n != 0 {
			t.Errorf("%d gates differ from the tasks that hold them", n)
		}
	})
}

// A process that was stopped for longer than its leases finds that another has done its work, and does none of it again.
func TestStoppedProcessComesBack(t *testing.T) {
	t.Parallel()
	for _, trigger := range []string{"start", "end"} {
		t.Run(trigger, func(t *testing.T) {
			t.Parallel()
			url, st := databaseURL(t, "postgres"), newStage(t)
			settings := map[string]string{"CLAIM_LEASE": "2s", "WEBHOOK_TIMEOUT": "2s"}
			st.p = startProcess(t, url, settings)
			st.aim("stopped "+trigger, 1)
			pl := st.begin("stopped " + trigger)
			eventually(t, "the process is stopped", func() bool {
				st.mu.Lock()
				defer st.mu.Unlock()
				return st.struck
			})
			other := startProcess(t, url, settings)
			done := map[string]bool{} // by the other, what the first has sent
			for _, c := range st.got(func(c call) bool { return c.Trigger == trigger && base(c.Handle) == st.p.url }) {
				st.wait(1, "the other process repeats it", func(again call) bool { return again.Key == c.Key && base(again.Handle) == other.url })
				eventually(t, "and records it", func() bool { return other.settled(c.Task) })
				done[c.Key] = true
			}
			before := len(st.got(sent(trigger)))
			if err := st.p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			close(st.goesOn)
			st.acts.Wait()
			pl.check()
			eventually(t, "the first has given up what it had", func() bool {
				h := st.p.hosts(st.receiver)
				return h.Requests > 0 && h.InFlight+h.Queued == 0
			})
			st.p.terminate()
			if state := st.p.wait(); state.ExitCode() != 0 {
				t.Errorf("the service ended with %s", state)
			}
			eventually(t, "nothing is to be sent", func() bool { return len(other.deliveries("state=pending")) == 0 })
			for _, c := range st.got(sent(trigger))[before:] {
				if done[c.Key] {
					t.Errorf("%s is sent again, on behalf of %s", c.Key, base(c.Handle))
				}
			}
			other.terminate()
			if state := other.wait(); state.ExitCode() != 0 {
				t.Errorf("the service ended with %s", state)
			}
			if n := drift(t, url); n != 0 {
				t.Errorf("%d gates differ from the tasks that hold them", n)
			}
		})
	}
}

// settled reports whether nothing of a task that was sent waits for being recorded.
func (c *client) settled(id string) bool {
	c.t.Helper()
	return text(actions(c.task(id), "Start")[0].State) != "pending" && len(c.deliveries("state=pending&task_id="+id)) == 0
}

// What is released has no points.
func TestReleaseHasNoFailPoints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		program func() (*build, error)
		want    bool
	}{{"released", program, false}, {"with the tag", mortal, true}} {
		built, err := c.program()
		if err != nil {
			t.Fatal(err)
		}
		code, err := os.ReadFile(built.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(code, []byte("TASKRUNNER_FAILPOINT")); got != c.want {
			t.Errorf("the program %s: has the name of the variable: %t, want %t", c.name, got, c.want)
		}
	}
}
