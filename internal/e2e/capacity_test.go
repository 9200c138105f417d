package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"taskrunner/api"
)

// capacity is a rule of Capacity in the later dialect.
func capacity(kind string, n int, fields ...string) obj {
	rule := limit(kind, 0, fields...)["Concurency"].(obj)
	return obj{"type": "Capacity", "matcher": rule["matcher"], "max_capacity": n}
}

// scales weigh the work that is left in each lane, as workers know it: from the arrival of on_start until just before a
// report is sent that makes it less. It is never more than what the service has to count.
type scales struct {
	most int // max_capacity

	mu      sync.Mutex
	changed sync.Cond
	left    map[string]map[string]int // by lane and task
	full    map[string]bool           // lanes that had no room at some time
	faults  []string
}

func newScales(most int) *scales {
	s := &scales{most: most, left: map[string]map[string]int{}, full: map[string]bool{}}
	s.changed.L = &s.mu
	return s
}

// start puts a task on. Of the tasks that are at work, all but the one that was admitted last were there when it was:
// without the heaviest, they must weigh less than most. This holds whichever was the last, and however late on_start comes.
func (s *scales) start(lane, task string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left[lane] == nil {
		s.left[lane] = map[string]int{}
	}
	if _, twice := s.left[lane][task]; twice {
		s.faults = append(s.faults, fmt.Sprintf("%s is started again", task))
	}
	s.left[lane][task] = n
	sum, heaviest := 0, 0
	for _, n := range s.left[lane] {
		sum, heaviest = sum+n, max(heaviest, n)
	}
	if sum-heaviest >= s.most {
		s.faults = append(s.faults, fmt.Sprintf("lane %s has %v left: the last should not have been started", lane, s.left[lane]))
	}
	s.full[lane] = s.full[lane] || sum >= s.most
	s.changed.Broadcast()
}

// work takes some of what a task has left away.
func (s *scales) work(lane, task string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left[lane][task] -= n
}

// wait returns when the lane has been full, or ctx ends.
func (s *scales) wait(ctx context.Context, lane string) {
	defer context.AfterFunc(ctx, s.changed.Broadcast)()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil && !s.full[lane] {
		s.changed.Wait()
	}
}

// TestCapacity: whatever is reported wherever, no task starts while the others have as much left as the rule allows.
func TestCapacity(t *testing.T) {
	const lanes, size, most, heaviest = 3, 40, 6, 3
	onReplicas(t, func(t *testing.T, s replicas) {
		r, w := newReceiver(t), newScales(most)
		expected := func(i int) int { return 1 + i%5%heaviest }
		r.handle("/run", func(_ http.ResponseWriter, c call) {
			i, _ := strconv.Atoi(string(c.Body))
			lane, left := fmt.Sprint(i%lanes), expected(i)
			w.start(lane, c.Task, left)
			r.jobs.Go(func() {
				w.wait(r.life, lane)
				for left > 0 && rand.IntN(8) > 0 { // some end before they have done all
					n := 1 + rand.IntN(left)
					time.Sleep(5 * time.Millisecond) // so that one too many would be seen
					w.work(lane, c.Task, n)
					left -= n
					counts := []obj{{"task_id": c.Task, "new_success": n}, {"task_id": c.Task, "new_failures": n}}
					report(r.life, http.MethodPut, s.any().url+"/task", counts[rand.IntN(2)])
				}
				time.Sleep(5 * time.Millisecond)
				w.work(lane, c.Task, left)
				report(r.life, http.MethodPatch, s.at(c.Handle), obj{"status": "Success"})
			})
		})
		var batches []string
		for post := range lanes {
			var batch []obj
			for i := post * size; i < (post+1)*size; i++ {
				start := r.hook("/run")
				start["params"].(obj)["body"] = i
				batch = append(batch, r.newTask(strconv.Itoa(i), "", obj{
					"on_start": start, "expected_count": expected(i), "metadata": obj{"lane": i % lanes}, "rules": []obj{capacity("test", most, "lane")},
				}))
			}
			_, id := s[post%len(s)].create(batch)
			batches = append(batches, id)
		}
		for _, id := range batches {
			if n := s.any().waitEnd(id); n.Success != size {
				t.Errorf("ends %+v", n)
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, fault := range w.faults[:min(len(w.faults), 10)] {
			t.Error(fault)
		}
		if n := len(r.got(sent("start"))); n != lanes*size {
			t.Errorf("%d on_start, want %d", n, lanes*size)
		}
		s.checkDrift()
	})
}

// TestCapacityHandOver: progress that makes room starts the next task at once, not with a tick.
func TestCapacityHandOver(t *testing.T) {
	const tasks, most = 21, 10
	onReplicas(t, func(t *testing.T, s replicas) {
		r := newReceiver(t)
		var mu sync.Mutex
		var started, reported []time.Time
		var before string // the handle of the task that started last
		r.handle("/run", func(_ http.ResponseWriter, c call) {
			r.jobs.Go(func() {
				mu.Lock() // one start after the other: each is let go by the report of the last
				defer mu.Unlock()
				if before != "" {
					report(r.life, http.MethodPatch, s.at(before), obj{"status": "Success"}) // makes no room: the new one fills it
				}
				before, started, reported = c.Handle, append(started, c.At), append(reported, time.Now())
				report(r.life, http.MethodPut, s.at(c.Handle), obj{"new_success": 1})
			})
		})
		var batch []obj
		for i := range tasks {
			batch = append(batch, r.newTask(strconv.Itoa(i), "/run", obj{"expected_count": most, "rules": []obj{capacity("test", most)}}))
		}
		_, id := s[0].create(batch)
		want := api.StatusCounts{Success: tasks - 1, Running: 1}
		eventually(t, "the last one runs", func() bool { return s.any().batch(id).StatusCounts == want })
		mu.Lock()
		defer mu.Unlock()
		var gaps []time.Duration
		for i := 1; i < len(started); i++ {
			if started[i].Before(reported[i-1]) {
				t.Errorf("start %d came before there was room", i)
			}
			gaps = append(gaps, started[i].Sub(reported[i-1]))
		}
		slices.Sort(gaps)
		t.Logf("from a report to the next on_start: median %v, slowest %v", gaps[len(gaps)/2], gaps[len(gaps)-1])
		s.checkDrift()
	})
}
