package store

import "taskrunner/internal/task"

// Live is a task that has not ended, as far as [StopOrder] needs to know it.
type Live struct {
	ID task.ID
	// Waits: for a parent to end, whether it is paused or not. Holds: it holds slots.
	Waits, Holds bool
}

// StopOrder puts the tasks of a batch into the order in which canceling them one after the other sets off none of the
// others: a task comes after all that wait for it, so that none of those is made ready, or fails, by its end; and those
// that hold slots come last, so that nothing of the batch takes the slots they leave. links are the dependencies of those
// that wait.
func StopOrder(live []Live, links []Link) []task.ID {
	order := make([]task.ID, 0, len(live))
	var pending, holding []task.ID
	children := make(map[task.ID]int, len(live)) // of those that wait: not in order yet
	for _, l := range live {
		switch {
		case l.Waits:
			children[l.ID] = 0
		case l.Holds:
			holding = append(holding, l.ID)
		default:
			pending = append(pending, l.ID)
		}
	}
	parents := make(map[task.ID][]task.ID, len(children))
	for _, l := range links {
		if _, waits := children[l.Parent]; !waits {
			continue
		}
		if _, waits := children[l.Child]; waits {
			children[l.Parent]++
			parents[l.Child] = append(parents[l.Child], l.Parent)
		}
	}
	for _, l := range live {
		if l.Waits && children[l.ID] == 0 {
			order = append(order, l.ID)
		}
	}
	for next := 0; next < len(order); next++ {
		for _, parent := range parents[order[next]] {
			if children[parent]--; children[parent] == 0 {
				order = append(order, parent)
			}
		}
	}
	return append(append(order, pending...), holding...)
}

// Stopped is what stopping a batch did.
type Stopped struct {
	// Canceled counts the tasks that it canceled by the status in which they were.
	Canceled map[task.Status]int
	// Ended counts the others: they had ended before, or while it was at work.
	Ended int
}
