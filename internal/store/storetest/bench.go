package storetest

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Bench measures a driver. It reports µs/task and tasks/s; a task is created, claimed, started and ended once in a
// whole life, and everything is done in batches.
func Bench(b *testing.B, open Open) {
	for _, n := range []int{1, 100, 1000} {
		name := "/tasks=" + strconv.Itoa(n)
		b.Run("create"+name, func(b *testing.B) {
			e := newEnv(b, open)
			measure(b, n, func() { e.create(typical(n)...) })
		})
		b.Run("claim"+name, func(b *testing.B) {
			e := newEnv(b, open)
			measure(b, n, func() {
				b.StopTimer()
				e.create(typical(n)...)
				b.StartTimer()
				e.claimN(n)
			})
		})
		b.Run("start-and-end"+name, func(b *testing.B) {
			e := newEnv(b, open)
			measure(b, n, func() {
				b.StopTimer()
				e.create(typical(n)...)
				claims := e.claimN(n)
				b.StartTimer()
				e.startAndEnd(claims)
			})
		})
		b.Run("life"+name, func(b *testing.B) {
			e := newEnv(b, open)
			measure(b, n, func() {
				e.create(typical(n)...)
				e.startAndEnd(e.claimN(n))
			})
		})
		b.Run("deliver"+name, func(b *testing.B) {
			e := newEnv(b, open)
			measure(b, n, func() {
				b.StopTimer()
				tasks := e.running(n, endActions(1))
				b.StartTimer()
				e.finish(task.Success, tasks...) // which writes the deliveries
				var attempts []store.Attempt
				for _, d := range e.claimDeliveries(ample()).Deliveries {
					attempts = append(attempts, attempt(d, store.DeliveryDone, 200, "", 0))
				}
				e.finishDeliveries(attempts...)
			})
		})
	}
	b.Run("expire-and-purge/tasks=1000", func(b *testing.B) {
		e := newEnv(b, open)
		measure(b, 1000, func() {
			b.StopTimer()
			e.create(typical(1000)...)
			e.startAndEnd(e.claimN(1000))
			e.clock.Advance(kept)
			b.StartTimer()
			e.expire()
			for e.purge(1000).More {
			}
		})
	})
	b.Run("life-under-a-rule/tasks=1000", func(b *testing.B) {
		e := newEnv(b, open)
		measure(b, 1000, func() {
			e.create(newTasks(1000, limit(100, "tenant"), metadata(`{"tenant":1}`))...)
			for range 10 {
				e.startAndEnd(e.claimN(100))
			}
		})
	})
	benchHosts(b, open)
	b.Run("claim-beside-parked/parked=20000/tasks=100", func(b *testing.B) {
		e := newEnv(b, open)
		e.create(newTasks(20_000, limit(1, "tenant"), metadata(`{"tenant":1}`), priority(1))...)
		e.claimWith(store.PumpParams{Owner: e.owner, Room: ample(), Fetch: 2000})
		measure(b, 100, func() {
			b.StopTimer()
			e.create(typical(100)...)
			b.StartTimer()
			e.startAndEnd(e.claimN(100))
		})
	})
}

// benchHosts measures ticks beside 100 000 ready tasks, by the hosts they are for. Each tick claims room of them.
func benchHosts(b *testing.B, open Open) {
	for _, hosts := range []int{1, 4, 1000} {
		b.Run(fmt.Sprintf("claim-of-many/hosts=%d", hosts), func(b *testing.B) {
			e := newEnv(b, open)
			n := 0
			more := func() {
				tasks := typical(1000)
				for _, t := range tasks {
					t.OnStart.URL = fmt.Sprintf("http://host%d.test/run", n%hosts)
					n++
				}
				e.create(tasks...)
			}
			for n < 100_000 {
				more()
			}
			claimed := 0
			for _, room := range []int{256, 32, 4} {
				b.Run("room="+strconv.Itoa(room), func(b *testing.B) {
					var took []time.Duration
					measure(b, room, func() {
						begun := time.Now()
						pumped, err := e.Pump(e.ctx, store.PumpParams{Owner: e.owner, Room: task.Room{Total: room, PerHost: room}})
						took = append(took, time.Since(begun))
						if err != nil || len(pumped.Claims) != room {
							b.Fatalf("%d claims, %v", len(pumped.Claims), err)
						}
						b.StopTimer()
						if claimed += room; claimed >= 1000 {
							claimed -= 1000
							more()
						}
						b.StartTimer()
					})
					slices.Sort(took)
					b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs/tick")
				})
			}
		})
	}
}

func measure(b *testing.B, n int, do func()) {
	for b.Loop() {
		do()
	}
	tasks := float64(b.N) * float64(n)
	b.ReportMetric(float64(b.Elapsed().Microseconds())/tasks, "µs/task")
	b.ReportMetric(tasks/b.Elapsed().Seconds(), "tasks/s")
}

// typical tasks are of a few hundred bytes each, for two hosts, without rules.
func typical(n int) []*task.Task {
	tasks := newTasks(n, metadata(`{"tenant":7,"region":"eu-west-1","documents":["a1","b2"],"nested":{"x":1.5}}`))
	for i, t := range tasks {
		t.OnStart.Headers = map[string]string{"Content-Type": "application/json"}
		t.OnStart.Body = []byte(`{"job":17,"options":{"fast":true}}`)
		if i%2 == 0 {
			t.OnStart.URL = "http://" + hostB + "/run"
		}
	}
	return tasks
}

func (e *env) claimN(n int) []store.Claim {
	claims := e.tick(ample()).Claims
	if len(claims) != n {
		e.Fatalf("claimed %d, want %d", len(claims), n)
	}
	return claims
}

func (e *env) startAndEnd(claims []store.Claim) {
	outcomes := make([]task.Outcome, 0, len(claims))
	for _, c := range claims {
		outcomes = append(outcomes, started(c.ID))
	}
	e.settle(outcomes...)
	for i, c := range claims {
		outcomes[i] = end(c.ID, task.Success)
	}
	e.settle(outcomes...)
}
