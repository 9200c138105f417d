package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// workflow is a recorded one; see testdata/workflows/README.md.
type workflow struct {
	name  string
	steps []step
}

// step is a task of a workflow. Parents are places in the workflow, in any order.
type step struct {
	work    time.Duration
	parents []int
}

// workScale is how long a worker takes for a recorded second.
const workScale = 2 * time.Millisecond

// workflows reads those of testdata.
func workflows(t testing.TB) []workflow {
	t.Helper()
	files, err := filepath.Glob("testdata/workflows/*.txt")
	if err != nil || len(files) != 12 {
		t.Fatalf("there are %d workflows, want 12: %v", len(files), err)
	}
	var all []workflow
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wf := workflow{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n")[1:] {
			wf.steps = append(wf.steps, readStep(t, line))
		}
		all = append(all, wf)
	}
	return all
}

func readStep(t testing.TB, line string) step {
	t.Helper()
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	words := strings.Fields(line)
	s := step{work: time.Duration(number(words[0])) * time.Millisecond * workScale / time.Second}
	for _, word := range words[1:] {
		first, last, many := strings.Cut(word, "-")
		if !many {
			last = first
		}
		for parent := number(first); parent <= number(last); parent++ {
			s.parents = append(s.parents, parent)
		}
	}
	return s
}

// criticalPath is the longest time that steps have to take one after the other.
func (w *workflow) criticalPath() time.Duration {
	ends := make([]time.Duration, len(w.steps)) // 0: not known yet
	var end func(i int) time.Duration
	end = func(i int) time.Duration {
		if ends[i] == 0 {
			for _, p := range w.steps[i].parents {
				ends[i] = max(ends[i], end(p))
			}
			ends[i] += w.steps[i].work
		}
		return ends[i]
	}
	var longest time.Duration
	for i := range w.steps {
		longest = max(longest, end(i))
	}
	return longest
}

// workflowRun is a workflow that is at work: how often each step was started, and which have finished their work.
type workflowRun struct {
	*workflow
	mu     sync.Mutex
	starts []int
	done   []bool
	left   int
	last   time.Time // when the last report was answered
	ended  chan struct{}
	faults []string
}

// begin makes the worker of w, at a path of its own. Before the service sends anything.
func (w *workflow) begin(r *receiver) *workflowRun {
	run := &workflowRun{
		workflow: w, starts: make([]int, len(w.steps)), done: make([]bool, len(w.steps)), left: len(w.steps),
		ended: make(chan struct{}),
	}
	r.handle("/"+w.name, func(rw http.ResponseWriter, c call) {
		i, err := strconv.Atoi(string(c.Body))
		if err != nil || i >= len(w.steps) {
			http.Error(rw, "not a step", http.StatusBadRequest)
			return
		}
		run.start(i)
		r.jobs.Go(func() {
			time.Sleep(w.steps[i].work)
			run.finish(i) // before the service can know
			status := report(r.life, http.MethodPatch, c.Handle, obj{"status": "Success"})
			run.reported(i, status)
		})
	})
	return run
}

func (run *workflowRun) start(i int) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.starts[i]++; run.starts[i] > 1 {
		run.faults = append(run.faults, fmt.Sprintf("step %d is started for the %d. time", i, run.starts[i]))
	}
	for _, p := range run.steps[i].parents {
		if !run.done[p] {
			run.faults = append(run.faults, fmt.Sprintf("step %d is started before step %d, for which it waits, is done", i, p))
		}
	}
}

func (run *workflowRun) finish(i int) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.done[i] = true
}

func (run *workflowRun) reported(i, status int) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if status != http.StatusOK {
		run.faults = append(run.faults, fmt.Sprintf("the report of step %d is answered %d", i, status))
	}
	run.last = time.Now()
	if run.left--; run.left == 0 {
		close(run.ended)
	}
}

// wait waits for the end of the run, for as long as webhooks arrive, be they of others.
func (run *workflowRun) wait(t testing.TB, r *receiver) {
	t.Helper()
	for last := -1; ; {
		select {
		case <-run.ended:
			return
		case <-time.After(patience):
		}
		arrived := len(r.got(sent("start")))
		if arrived == last {
			t.Errorf("%s: has not ended, and nothing has arrived for %v", run.name, patience)
			return
		}
		last = arrived
	}
}

// check wants every step started once, and none before its parents were done.
func (run *workflowRun) check(t testing.TB) {
	t.Helper()
	run.mu.Lock()
	defer run.mu.Unlock()
	for i, n := range run.starts {
		if n == 0 {
			run.faults = append(run.faults, fmt.Sprintf("step %d was never started", i))
		}
	}
	for _, fault := range run.faults[:min(len(run.faults), 10)] {
		t.Errorf("%s: %s", run.name, fault)
	}
}

// batch is the body of the POST.
func (w *workflow) batch(r *receiver) []obj {
	tasks := make([]obj, len(w.steps))
	for i, s := range w.steps {
		deps := make([]obj, len(s.parents))
		for k, p := range s.parents {
			deps[k] = dep(strconv.Itoa(p), true)
		}
		start := r.hook("/" + w.name)
		start["params"].(obj)["body"] = i
		tasks[i] = r.newTask(strconv.Itoa(i), "", obj{"on_start": start, "dependencies": deps})
	}
	return tasks
}

// run runs w to its end, and returns how long it took from the POST to the answer to the last report.
func (w *workflow) run(t testing.TB, s *service, r *receiver, run *workflowRun) time.Duration {
	t.Helper()
	body := jsonOf(w.batch(r))
	begun := time.Now()
	a, err := s.try(t.Context(), http.MethodPost, "/task", body, "Prefer", "return=minimal")
	if err != nil || a.status != http.StatusCreated {
		t.Errorf("%s: create: %v %d", w.name, err, a.status)
		return 0
	}
	run.wait(t, r)
	run.check(t)
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.last.Sub(begun)
}

// TestWorkflows runs twelve recorded workflows at the same time. Their makespans are logged; BenchmarkWorkflow measures
// them, and TestWorkflowMakespan is strict.
func TestWorkflows(t *testing.T) {
	onBoth(t, func(t *testing.T, s *service) {
		r := newReceiver(t)
		all := workflows(t)
		runs := make([]*workflowRun, len(all))
		for i := range all {
			runs[i] = all[i].begin(r)
		}
		var work sync.WaitGroup
		for i, run := range runs {
			work.Go(func() {
				took, critical := all[i].run(t, s, r, run), run.criticalPath()
				t.Logf("%-11s %4d tasks, critical path %8v, makespan %8v: %.2f", run.name, len(run.steps),
					critical.Round(time.Millisecond), took.Round(time.Millisecond), float64(took)/float64(critical))
				if took < critical {
					t.Errorf("%s: took %v, less than its critical path of %v", run.name, took, critical)
				}
			})
		}
		work.Wait()
		s.checkDrift()
	})
}

// BenchmarkWorkflow measures how much longer than its critical path each recorded workflow takes, with the collector set as the
// command sets it.
func BenchmarkWorkflow(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	for _, db := range databases {
		for _, w := range workflows(b) {
			b.Run("driver="+db+"/workflow="+w.name, func(b *testing.B) {
				s := startService(b, databaseURL(b, db), nil)
				var took time.Duration
				for b.Loop() {
					r := newReceiver(b)
					took += w.run(b, s, r, w.begin(r))
				}
				b.ReportMetric(float64(took)/float64(b.N)/float64(w.criticalPath()), "×critical-path")
			})
		}
	}
}
