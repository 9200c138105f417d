package storetest

import (
	"fmt"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var statementTests = []conformance{
	{"their number does not depend on the number of tasks", testStatements},
	{"nor on the number of batches that share a transaction", testGroupStatements},
}

// Statements is implemented by stores for which each statement is a message to the database, and counts them.
type Statements interface{ Statements() int64 }

func testStatements(t *testing.T, e *env) {
	s, ok := e.Store.(Statements)
	if !ok {
		return // statements are calls of a function
	}
	e.create(newTask(limit(1000, "v"), metadata(`{"v":0}`))) // makes the shape known
	e.claim()
	steps := []string{"create", "claim", "start", "end", "fold", "next claim"}
	lifeOf := func(n int) []int64 {
		e.tick(ample()) // which finds nothing: what one finds, the next may ask for
		// Half of them have a child, a rule and actions; n/2 gates of different values.
		var tasks, parents []*task.Task
		for i := range n / 2 {
			parent := newTask(limit(1000, "v"), metadata(`{"v":%d}`, i), endActions(1))
			parents = append(parents, parent)
			tasks = append(tasks, parent, newTask(after(parent), limit(1000, "v"), metadata(`{"v":%d}`, i)))
		}
		var counts []int64
		step := func(do func()) {
			before := s.Statements()
			do()
			counts = append(counts, s.Statements()-before)
		}
		step(func() { e.create(tasks...) })
		step(func() { e.started(e.tick(ample()).Claims[:1]...) })
		var starts, ends []task.Outcome
		for _, k := range parents {
			starts, ends = append(starts, started(k.ID)), append(ends, count(k.ID, 1, 1), end(k.ID, task.Success))
		}
		step(func() { e.settle(starts...) })
		step(func() { e.settle(ends...) })
		step(func() { e.tick(task.Room{}) })
		step(func() { e.tick(ample()) })
		return counts
	}
	small, large := lifeOf(10), lifeOf(600)
	for i, name := range steps {
		if small[i] != large[i] || small[i] == 0 {
			t.Errorf("%s: %d statements for 10 tasks, %d for 600", name, small[i], large[i])
		}
	}
	t.Logf("statements for %v: %v", steps, large)
}

func testGroupStatements(t *testing.T, e *env) {
	s, ok := e.Store.(Statements)
	if !ok {
		return
	}
	e.wantFresh(batchOf(newTask()), keyed("known", "body"))
	of := func(n int) int64 {
		var creates []store.Create
		for i := range n {
			root := newTask(kind(fmt.Sprint("kind ", i)), limit(i+1, "v"), metadata(`{"v":0}`))
			child := newTask(after(root), endActions(1))
			creates = append(creates,
				store.Create{Batch: telling([]*task.Task{root, child}), Key: keyed(fmt.Sprint(n, " ", i), "body")},
				store.Create{Batch: batchOf(newTask())},
				store.Create{Batch: batchOf(newTask()), Key: keyed("known", "body")})
		}
		before := s.Statements()
		e.createGroup(creates...)
		return s.Statements() - before
	}
	if one, many := of(1), of(100); one != many || one == 0 {
		t.Errorf("%d statements for 3 creates, %d for 300", one, many)
	}
}
