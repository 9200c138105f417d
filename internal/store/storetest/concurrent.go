package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var concurrencyTests = []conformance{
	{"pumps, workers and clients all at once", testAllAtOnce},
	{"claims of concurrent pumps are disjoint", testDisjointClaims},
	{"edits that race with claims", testEditsRace},
	{"creates that race with claims", testCreatesRace},
}

// process is one of several on a database.
type process struct {
	store.Store
	owner task.ID
}

// patience bounds what must come to an end by itself.
const patience = 60 * time.Second

// crowd is a batch under rules and everything that happens to it.
type crowd struct {
	*env
	t      *testing.T
	batch  *task.Batch
	value  map[task.ID]int // of the field that the rules are about
	limits []int           // by value

	processes []process
	followed  atomic.Int64 // ticks that followed outcomes

	mu      sync.Mutex
	held    []int // by value: claimed, and its end not yet asked for
	claimed map[task.ID]int
	given   map[task.ID]bool // its end was asked for
	claims  chan store.Claim
}

func testAllAtOnce(t *testing.T, e *env) {
	c := newCrowd(t, e, 240)
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	var background sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		c.processes = append(c.processes, process{e.another(), e.process()})
	}
	for _, p := range c.processes {
		background.Go(func() { c.pumpUntil(ctx, done, p) })
	}
	background.Go(func() { c.watch(ctx, done) })
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() { c.work(ctx) })
	}
	workers.Go(func() { c.meddle(ctx) })
	workers.Wait()
	for ctx.Err() == nil && !c.allEnded() {
		c.resumeAll()
	}
	if ctx.Err() != nil {
		t.Errorf("not all tasks have ended")
	}
	close(done) // and not cancel, which may leave a tick behind
	background.Wait()
	for id, n := range c.claimed {
		if n != 1 {
			t.Errorf("task %s was claimed %d times", id, n)
		}
	}
	if got := e.claim(); len(got) > 0 {
		t.Errorf("claimed after the end: %v", got)
	}
	if n := c.followed.Load(); n == 0 {
		t.Error("no tick has followed outcomes")
	} else {
		t.Logf("%d ticks have followed outcomes", n)
	}
}

func newCrowd(t *testing.T, e *env, n int) *crowd {
	c := &crowd{
		env: e, t: t, value: map[task.ID]int{}, limits: []int{1, 2, 4, 8}, held: make([]int, 4), claimed: map[task.ID]int{},
		given: map[task.ID]bool{}, claims: make(chan store.Claim, n),
	}
	var tasks []*task.Task
	for i := range n {
		v := rand.IntN(len(c.limits))
		k := newTask(limit(c.limits[v], "v"), metadata(`{"v":%d}`, v), host([]string{hostA, hostB}[i%2]), priority(rand.IntN(3)))
		if i > 20 && i%3 == 0 {
			afterAny(tasks[rand.IntN(i)])(k)
		}
		c.value[k.ID] = v
		tasks = append(tasks, k)
	}
	c.batch = e.create(tasks...)
	return c
}

func (c *crowd) pumpUntil(ctx context.Context, done <-chan struct{}, p process) {
	for !closed(done) {
		pumped, err := p.Pump(ctx, store.PumpParams{Owner: p.owner, Room: task.Room{Total: 20, PerHost: 15}, Fetch: 40, Links: 20})
		if err != nil {
			if ctx.Err() == nil {
				c.t.Errorf("Pump: %v", err)
			}
			return
		}
		c.take(pumped.Claims)
		if !pumped.More { // others may pump, and ticks may follow outcomes
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		}
	}
}

// take counts slots from when it is known that they are taken.
func (c *crowd) take(claims []store.Claim) {
	defer func() {
		for _, claim := range claims {
			c.claims <- claim
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claim := range claims {
		v := c.value[claim.ID]
		c.claimed[claim.ID]++
		if c.given[claim.ID] {
			continue
		}
		if c.held[v]++; c.held[v] > c.limits[v] {
			c.t.Errorf("%d tasks hold a slot of value %d, the limit is %d", c.held[v], v, c.limits[v])
		}
	}
}

// give counts them until just before they may be given back.
func (c *crowd) give(id task.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claimed[id] > 0 && !c.given[id] {
		c.held[c.value[id]]--
	}
	c.given[id] = true
}

// work does what workers and dispatch do with claims, until everything has ended.
func (c *crowd) work(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case claim := <-c.claims:
			outcomes := []task.Outcome{count(claim.ID, 1, 0), end(claim.ID, task.Success)}
			switch rand.IntN(4) {
			case 0:
				outcomes = []task.Outcome{startFailed(claim.ID, claim.Attempt)}
			case 1:
				outcomes[1] = end(claim.ID, task.Failure)
				fallthrough
			default:
				c.settleCtx(ctx, started(claim.ID))
			}
			c.give(claim.ID)
			c.settleCtx(ctx, outcomes...)
		case <-time.After(20 * time.Millisecond):
			if c.allEnded() {
				return
			}
			c.resumeAll()
		}
	}
}

// settleCtx lets a tick follow as a rule, at a process as it comes.
func (c *crowd) settleCtx(ctx context.Context, outcomes ...task.Outcome) {
	p := c.processes[rand.IntN(len(c.processes))]
	_, pumped, err := p.SettleAndPump(ctx, outcomes, func() (store.PumpParams, bool) {
		return store.PumpParams{Owner: p.owner, Room: task.Room{Total: 20, PerHost: 15}, Links: 20}, rand.IntN(10) > 0
	})
	if errors.Is(err, store.ErrUndone) && pumped == nil {
		_, err = p.Settle(ctx, outcomes)
	}
	if err != nil && ctx.Err() == nil {
		c.t.Errorf("SettleAndPump: %v", err)
	}
	if pumped != nil {
		c.followed.Add(1)
		c.take(pumped.Claims)
	}
}

// meddle cancels, pauses, resumes and edits whatever it finds, several tasks a call.
func (c *crowd) meddle(ctx context.Context) {
	for range 60 {
		var outcomes []task.Outcome
		for range 5 {
			k := c.batch.Tasks[rand.IntN(len(c.batch.Tasks))]
			switch rand.IntN(5) {
			case 0:
				c.give(k.ID) // whether it holds a slot or not, it will not any more
				outcomes = append(outcomes, cancel(k))
			case 1:
				outcomes = append(outcomes, pause(k))
			case 2:
				outcomes = append(outcomes, resume(k))
			default:
				outcomes = append(outcomes, setPriority(k, rand.IntN(5)), count(k.ID, 1, 0))
			}
		}
		c.settleCtx(ctx, outcomes...)
	}
}

func (c *crowd) resumeAll() {
	paused, err := c.Tasks(c.ctx, store.Filter{Statuses: []task.Status{task.Paused}, Limit: 1000})
	if err != nil || len(paused.Items) == 0 {
		return
	}
	var outcomes []task.Outcome
	for _, item := range paused.Items {
		outcomes = append(outcomes, task.Outcome{ID: item.Task.ID, Kind: task.Resume})
	}
	c.settleCtx(c.ctx, outcomes...)
}

func (c *crowd) allEnded() bool {
	live := []task.Status{task.Waiting, task.Pending, task.Claimed, task.Running, task.Paused}
	items, err := c.Tasks(c.ctx, store.Filter{Statuses: live, Limit: 1})
	return err == nil && len(items.Items) == 0
}

// watch looks at moments: who holds slots by the rows, and whether gates agree with them.
func (c *crowd) watch(ctx context.Context, done <-chan struct{}) {
	for !closed(done) {
		dag, err := c.DAG(ctx, c.batch.ID)
		if err != nil {
			if ctx.Err() == nil {
				c.t.Errorf("DAG: %v", err)
			}
			return
		}
		held := make([]int, len(c.limits))
		for _, item := range dag.Items {
			if item.State.HoldsSlots() {
				held[c.value[item.Task.ID]]++
			}
		}
		for v, n := range held {
			if n > c.limits[v] {
				c.t.Errorf("%d rows hold a slot of value %d, the limit is %d", n, v, c.limits[v])
			}
		}
		if n, err := c.Drift(ctx); (err != nil || n != 0) && ctx.Err() == nil {
			c.t.Errorf("Drift: %d, %v", n, err)
		}
		select {
		case <-done:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func testDisjointClaims(t *testing.T, e *env) {
	tasks := newTasks(400)
	e.create(tasks...)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var got []task.ID
	for range 6 {
		s, owner := e.another(), e.process()
		wg.Go(func() {
			for {
				pumped, err := s.Pump(e.ctx, store.PumpParams{Owner: owner, Room: task.Room{Total: 7, PerHost: 7}})
				if err != nil {
					t.Error(err)
					return
				}
				if pumped.Busy && (len(pumped.Claims) > 0 || len(pumped.Transitions) > 0) {
					t.Errorf("busy, and yet %+v", pumped)
				}
				if !pumped.Busy && len(pumped.Claims) == 0 {
					return
				}
				mu.Lock()
				got = append(got, claimIDs(pumped.Claims)...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	e.sameTasks("claimed, by whomever", got, tasks)
}

// testEditsRace edits what the pump is just looking at. A task is claimed by its newest metadata, or the edit finds it
// claimed already; in either case no gate has more than its limit, by the metadata they had when they were claimed.
func testEditsRace(t *testing.T, e *env) {
	const n, values, rounds = 100, 20, 5
	tasks := newTasks(n, limit(1, "v"), metadata(`{"v":0}`))
	e.create(tasks...)
	done := make(chan struct{})
	var pumps sync.WaitGroup
	for range 2 {
		s, owner := e.another(), e.process()
		pumps.Go(func() {
			for !closed(done) {
				if _, err := s.Pump(e.ctx, store.PumpParams{Owner: owner, Room: task.Room{Total: 2, PerHost: 2}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	value := make([]int, n)
	var places []int
	for i := range tasks {
		places = append(places, i)
	}
	var editors sync.WaitGroup
	for part := range slices.Chunk(places, n/3) {
		editors.Go(func() {
			for range rounds {
				for _, i := range part {
					v := rand.IntN(values)
					o := setMetadata(tasks[i], `{"v":%d}`, v)
					o.Priority = new(rand.IntN(10))
					settled, err := e.Settle(e.ctx, []task.Outcome{o})
					if err != nil {
						t.Error(err)
						return
					}
					if settled.Results[0].From == task.Pending {
						value[i] = v // of what is claimed already the slots stay where they were
					}
				}
			}
		})
	}
	editors.Wait()
	close(done)
	pumps.Wait()
	e.claim()
	held, waiting := make([]int, values), make([]int, values)
	for i, item := range slices.Backward(e.list(store.Filter{})) {
		v := value[n-1-i] // the newest comes first
		switch status := item.State.Status; status {
		case task.Claimed:
			held[v]++
		case task.Pending:
			waiting[v]++
		default:
			t.Errorf("a task is %s", status)
		}
	}
	for v := range values {
		if held[v] > 1 || held[v] == 0 && waiting[v] > 0 {
			t.Errorf("value %d: %d hold the slot, %d wait for it", v, held[v], waiting[v])
		}
	}
}

// testCreatesRace creates tasks whose shapes are new while pumps run. What runs of their kinds has been counted by
// nobody so far, and leaves no room.
func testCreatesRace(t *testing.T, e *env) {
	const kinds, max, creators = 40, 2, 3
	var holders []*task.Task
	for i := range kinds {
		holders = append(holders, newTasks(max, kind(fmt.Sprint("kind-", i)))...)
	}
	e.create(holders...)
	e.wantClaims(holders...)
	done := make(chan struct{})
	var pumps, creating sync.WaitGroup
	for range 2 {
		s, owner := e.another(), e.process()
		pumps.Go(func() {
			for !closed(done) {
				if _, err := s.Pump(e.ctx, store.PumpParams{Owner: owner, Room: ample()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range creators {
		creating.Go(func() {
			for i := range kinds { // the creators send the same shapes in the same order
				name := fmt.Sprint("kind-", i)
				if _, err := e.Create(e.ctx, batchOf(newTasks(2, kind(name), limitKind(name, max))...), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	creating.Wait()
	close(done)
	pumps.Wait()
	e.wantClaims()
	if got := len(e.list(store.Filter{Statuses: []task.Status{task.Claimed}})); got != len(holders) {
		t.Errorf("%d are claimed; the %d that were before leave no room", got, len(holders))
	}
	var ends []*task.Task
	for i := range kinds {
		ends = append(ends, holders[i*max])
	}
	e.finish(task.Success, ends...)
	if got := e.claim(); len(got) != kinds {
		t.Errorf("%d are claimed, want one of each of the %d kinds", len(got), kinds)
	}
}
