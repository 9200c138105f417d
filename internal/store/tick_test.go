package store_test

import (
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// A waiter whose row is locked just now has not left its lane, however few of those asked for were found: the gate must
// stay to be visited, or nobody would wake that waiter.
func TestTickKeepsLaneOfLockedWaiter(t *testing.T) {
	t.Parallel()
	for _, lane := range []task.Lane{1, 300, 1000, -1000} {
		gate := store.GateRow{Gate: task.Gate{ID: 1, Shape: 2, Values: "[]"}, Lanes: []task.Lane{lane}, Dirty: true}
		tick := store.NewTick(store.PumpParams{Room: task.Room{Total: 2000, PerHost: 2000}}, store.NewShapes())
		tick.FoldGates(nil, []store.GateRow{gate}, 0)
		tick.FoldEvents(nil)
		tick.Ready(nil)
		tick.Facts(nil)
		tick.Count(nil)
		tick.Woken([]store.WokenRow{{Gate: gate.ID, Lane: lane, Found: store.Found{Facts: store.Facts{ID: task.ID{1}}}}})
		tick.Wanted()
		if err := tick.Admit(nil); err != nil {
			t.Fatal(err)
		}
		if len(tick.DropGates) > 0 || len(tick.SetGates) > 0 || !tick.Result.More {
			t.Errorf("lane %d: drops %v, sets %v, more %t; want the gate as it was, and another tick",
				lane, tick.DropGates, tick.SetGates, tick.Result.More)
		}
	}
}
