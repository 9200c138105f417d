package e2e

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/internal/pgtest"
)

// replicas are processes of the service over one database.
type replicas []*service

// onReplicas runs a test on two processes over PostgreSQL and on one over SQLite, which has no more, in parallel.
func onReplicas(t *testing.T, test func(t *testing.T, s replicas)) {
	t.Helper()
	onEach(t, func(t *testing.T, db string) {
		url := databaseURL(t, db)
		s := replicas{startService(t, url, nil)}
		if db == "postgres" {
			s = append(s, startService(t, url, nil))
		}
		test(t, s)
	})
}

// any is one of them, by chance.
func (s replicas) any() *service { return s[rand.IntN(len(s))] }

// at is a handle at any of them.
func (s replicas) at(handle string) string {
	return s.any().url + strings.TrimPrefix(handle, base(handle))
}

// checkDrift stops them, and compares what the gates say with what holds slots.
func (s replicas) checkDrift() {
	s[0].t.Helper()
	for _, other := range s[1:] {
		other.stop()
	}
	s[0].checkDrift()
}

// senders counts the tasks by the process that started them.
type senders map[string]int

func (w *crew) senders() senders {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := senders{}
	for _, j := range w.jobs {
		by[j.sender]++
	}
	return by
}

func TestReplicasKeepLimitsTogether(t *testing.T) {
	t.Parallel()
	url, w := pgtest.URL(t), newCrew(t)
	settings := map[string]string{"WEBHOOK_HOST_WINDOW": "5"} // so that neither can do it alone
	replicas := []*service{startService(t, url, settings), startService(t, url, settings)}
	at := func() string { return replicas[rand.IntN(len(replicas))].url }
	w.route = func(handle string) string { return at() + strings.TrimPrefix(handle, base(handle)) }
	n, size := scaled(8), 60
	var batches []string
	for post := range n {
		tasks := make([]obj, size)
		for i := range tasks {
			o := order{Post: post, Slot: "tenant " + strconv.Itoa(i%6), Max: 1 + 2*(i%2), Count: []int64{1 + rand.Int64N(9)}, Work: rand.IntN(3)}
			tasks[i] = w.task(strconv.Itoa(i), o, nil)
		}
		batch, status := w.post(at(), tasks)
		if status != http.StatusCreated {
			t.Fatalf("POST /task is answered with %d", status)
		}
		batches = append(batches, batch)
	}
	w.finish(n * size)
	for i, batch := range batches {
		w.checkCounts(&replicas[i%2].client, batch, size)
	}
	w.checkStarts()
	if by := w.senders(); len(by) != len(replicas) {
		t.Errorf("not every replica started tasks: %v", by)
	}
	for _, s := range replicas {
		s.stop()
	}
	if n := drift(t, url); n != 0 {
		t.Errorf("%d gates differ from the tasks that hold them", n)
	}
}

// holdFrom makes the crew keep the on_starts of a sender waiting until release.
func holdFrom(w *crew, sender string) (release func()) {
	open := make(chan struct{})
	w.accept = func(c call) {
		if base(c.Handle) == sender {
			<-open
		}
	}
	release = sync.OnceFunc(func() { close(open) })
	w.t.Cleanup(release) // before the crew waits for its handlers
	return release
}

// The work of a replica whose window is full is taken by the other, which is told: it does not wait for its tick.
func TestReplicaTakesWhatAnotherCannot(t *testing.T) {
	t.Parallel()
	url, w := pgtest.URL(t), newCrew(t)
	a := startService(t, url, map[string]string{"WEBHOOK_WINDOW": "2", "WEBHOOK_TIMEOUT": "60s"})
	release := holdFrom(w, a.url)
	_, held := a.create(manyTasks(w, 2))
	w.reach("the window is full", 2, func() int { return w.count(func(*job) bool { return true }) })

	b := startService(t, url, nil)
	var took []time.Duration
	var batches []string
	for range 15 {
		begun := time.Now()
		before := w.endedJobs()
		_, batch := a.create(manyTasks(w, 1))
		w.reach("the other starts it", before+1, w.endedJobs)
		took = append(took, time.Since(begun))
		batches = append(batches, batch)
	}
	slices.Sort(took)
	t.Logf("from POST at one to the end by the other: %s to %s, median %s", took[0], took[14], took[7])
	release()
	w.finish(17)
	for _, batch := range append(batches, held) {
		w.reach("it has succeeded", 1, func() int { return b.batch(batch).StatusCounts.Success })
	}
	w.checkStarts()
}

// What a killed replica had claimed is finished by the other, with the same slots.
func TestReplicaFinishesForAKilledOne(t *testing.T) {
	t.Parallel()
	url, w := pgtest.URL(t), newCrew(t)
	settings := map[string]string{"CLAIM_LEASE": "2s", "WEBHOOK_HOST_WINDOW": "20", "WEBHOOK_TIMEOUT": "60s"}
	a := startProcess(t, url, settings)
	defer holdFrom(w, a.url)()
	var b *process
	over := make(chan struct{})
	w.route = func(handle string) string {
		select {
		case <-over:
			return b.url + strings.TrimPrefix(handle, base(handle))
		case <-w.stop.Done():
			return handle
		}
	}
	const n, slots = 48, 16
	tasks := make([]obj, n)
	for i := range tasks {
		o := order{Slot: "tenant " + strconv.Itoa(i%8), Max: slots / 8, Count: []int64{1, 2}, Work: rand.IntN(3)}
		tasks[i] = w.task(strconv.Itoa(i), o, nil)
	}
	_, batch := a.create(tasks)
	w.reach("every slot is taken", slots, func() int { return w.count(func(*job) bool { return true }) })
	b = startProcess(t, url, settings) // only now, so that the first has taken every slot
	a.kill()
	w.crashed() // nobody could start anything
	sentTwice := func() int { return w.count(func(j *job) bool { return len(j.starts) == 2 }) }
	w.reach("the other sends them again", slots, sentTwice)
	close(over) // from here on tasks end
	w.finish(n)
	w.checkCounts(&b.client, batch, n)
	w.checkStarts()
	if sentTwice() != slots {
		t.Errorf("%d on_starts were sent twice, want the %d that the killed one sent", sentTwice(), slots)
	}
}
