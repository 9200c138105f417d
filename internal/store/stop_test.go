package store_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Everything stands in the order once; who waits comes before whom it waits for, and who holds slots last.
func TestStopOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "tasks")
		ranks := rapid.Permutation(func() []int {
			ranks := make([]int, n)
			for i := range ranks {
				ranks[i] = i
			}
			return ranks
		}()).Draw(t, "order") // a parent has a lower rank than its child
		live := make([]store.Live, n)
		var links []store.Link
		for i := range live {
			live[i].ID = task.ID{1: byte(i + 1)}
		}
		for i := range live {
			for parent := range n {
				if ranks[parent] < ranks[i] && rapid.IntRange(0, 4).Draw(t, "link") == 0 {
					links = append(links, store.Link{Parent: live[parent].ID, Child: live[i].ID})
					live[i].Waits = true
				}
			}
			if !live[i].Waits {
				live[i].Holds = rapid.Bool().Draw(t, "holds")
			}
		}
		links = append(links, store.Link{Parent: task.ID{9}, Child: task.ID{10}}) // of tasks that have ended
		order := store.StopOrder(live, links)
		at := func(id task.ID) int { return slices.Index(order, id) }
		if len(order) != n {
			t.Fatalf("%d tasks in order, want %d", len(order), n)
		}
		for i, l := range live {
			if at(l.ID) < 0 {
				t.Fatalf("task %d is missing", i)
			}
			for k, other := range live {
				if l.Holds && !other.Holds && at(l.ID) < at(other.ID) {
					t.Fatalf("%d holds slots and comes before %d", i, k)
				}
			}
		}
		for _, l := range links[:len(links)-1] {
			if at(l.Parent) < at(l.Child) {
				t.Fatalf("parent %v comes before its child %v", l.Parent, l.Child)
			}
		}
	})
}
