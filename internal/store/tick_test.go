package store_test

import (
	"slices"
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
		tick.Ready(nil, false)
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

// A gate with much room, whose waiters find none at their host, takes up all that a tick looks at: those behind it have
// their turn in the next one, and then the ticks end.
func TestTickWakesGatesInTurn(t *testing.T) {
	t.Parallel()
	shapes := store.NewShapes()
	gates := make([]store.GateRow, 3)
	for i := range gates {
		gates[i] = store.GateRow{Gate: task.Gate{ID: task.GateID(i + 1), Shape: 2, Values: "[]"}, Lanes: []task.Lane{1000}, Dirty: true}
	}
	var woken []task.GateID
	for more := true; more; {
		if len(woken) > len(gates) {
			t.Fatalf("woken in turn: %v, and no end", woken)
		}
		tick := store.NewTick(store.PumpParams{Room: task.Room{Total: 2000, PerHost: 2000, Shut: map[string]int{"h": 0}}}, shapes)
		var dirty []store.GateRow
		for _, g := range gates {
			if g.ID > shapes.Dirty {
				dirty = append(dirty, g)
			}
		}
		tick.FoldGates(nil, dirty, 0)
		tick.FoldEvents(nil)
		var rows []store.WokenRow
		for _, w := range tick.Wakes() {
			woken = append(woken, w.Gate)
			rows = append(rows, store.WokenRow{Gate: w.Gate, Lane: w.Lane, Found: store.Found{
				Facts: store.Facts{ID: task.ID{byte(w.Gate)}, Host: "h"}, State: &task.State{ID: task.ID{byte(w.Gate)}, Status: task.Pending},
			}})
		}
		tick.Woken(rows)
		tick.Wanted()
		if err := tick.Admit(nil); err != nil {
			t.Fatal(err)
		}
		if len(tick.SetGates)+len(tick.DropGates)+len(tick.Park)+len(tick.Unpark) > 0 {
			t.Errorf("writes %v, %v, %v, %v", tick.SetGates, tick.DropGates, tick.Park, tick.Unpark)
		}
		more = tick.Result.More
	}
	if !slices.Equal(woken, []task.GateID{1, 2, 3}) {
		t.Errorf("woken in turn: %v", woken)
	}
}

// More changes than a tick wakes for, while the dirty gates are gone through: a gate that became dirty where they were
// gone through already has its turn, too.
func TestTickComesBack(t *testing.T) {
	t.Parallel()
	shapes := store.NewShapes()
	shapes.Dirty = 10
	lanes := []task.Lane{1000}
	gate := func(id task.GateID, used int) store.GateRow {
		return store.GateRow{Gate: task.Gate{ID: id, Shape: 2, Values: "[]"}, Used: used, Lanes: lanes, Dirty: used < 1000}
	}
	plan := func(deltas []store.GateDelta, dirty ...store.GateRow) *store.Tick {
		tick := store.NewTick(store.PumpParams{Room: task.Room{Total: 2000, PerHost: 2000, Shut: map[string]int{"h": 0}}}, shapes)
		tick.FoldGates(deltas, dirty, len(deltas))
		tick.FoldEvents(nil)
		var rows []store.WokenRow
		for _, w := range tick.Wakes() {
			rows = append(rows, store.WokenRow{Gate: w.Gate, Lane: w.Lane, Found: store.Found{Facts: store.Facts{Host: "h"}}})
		}
		tick.Woken(rows)
		tick.Wanted()
		if err := tick.Admit(nil); err != nil {
			t.Fatal(err)
		}
		return tick
	}
	first := plan([]store.GateDelta{{GateRow: gate(1, 1000), Delta: -1000}, {GateRow: gate(2, 1000), Delta: -1}}, gate(20, 0))
	if !first.Result.More || shapes.Dirty != 19 {
		t.Fatalf("more %t, goes on behind %d", first.Result.More, shapes.Dirty)
	}
	if second := plan(nil, gate(20, 0)); !second.Result.More {
		t.Error("nobody looks at gate 2")
	}
	if third := plan(nil, gate(1, 0), gate(2, 999)); !third.Result.More || len(third.Wakes()) != 1 {
		t.Errorf("gate 1: %v, more %t", third.Wakes(), third.Result.More)
	}
	if last := plan(nil, gate(2, 999), gate(20, 0)); last.Result.More {
		t.Error("no end")
	}
}

// A tick that was not shown all that may come first wants another one, if there is room, whatever it found. Only if something is
// held back that one looks at more.
func TestTickCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		total, found           int
		locked                 bool
		more, blocked, starved bool
	}{
		{total: 4, found: 0, more: true},
		{total: 4, found: 2, more: true},
		{total: 4, found: 2, locked: true, more: true, blocked: true},
		{total: 2, found: 2, starved: true},
	} {
		tick := store.NewTick(store.PumpParams{Room: task.Room{Total: c.total, PerHost: 9}}, store.NewShapes())
		found := make([]store.Found, c.found)
		for i := range found {
			facts := store.Facts{ID: task.ID{byte(i)}, OnStart: []byte(`[{"kind":"Webhook","params":{"url":"http://h.test/","verb":"Post"}}]`)}
			found[i] = store.Found{Facts: facts, State: &task.State{ID: facts.ID, Status: task.Pending}}
			if c.locked {
				found[i].State = nil
			}
		}
		tick.Ready(found, true)
		tick.Wanted()
		if err := tick.Admit(nil); err != nil {
			t.Fatal(err)
		}
		if r := tick.Result; r.More != c.more || r.Blocked != c.blocked || r.Starved != c.starved {
			t.Errorf("%+v: more %t, blocked %t, starved %t", c, r.More, r.Blocked, r.Starved)
		}
	}
}
