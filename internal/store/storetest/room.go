package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var roomTests = []conformance{
	{"total and per host", testRoom},
	{"busy hosts have less", testBusyHost},
	{"the most urgent of all hosts come first", testUrgentHost},
	{"they do so of however many hosts", testManyHosts},
	{"without room nothing is claimed and the rest goes on", testNoRoom},
	{"a host without room is in nobody's way", testFullHost},
	{"nor is one with a little", testLittleRoom},
	{"a host that is shut is in nobody's way", testShutHost},
	{"hosts share what there is", testShares},
	{"hosts share what there is for deliveries", testDeliveryShares},
	{"a woken waiter without room waits for it", testWokenWithoutRoom},
	{"a kept task that is canceled passes its chance on", func(t *testing.T, e *env) {
		testKept(t, e, func(k *task.Task) task.Outcome { return cancel(k) })
	}},
	{"a kept task that is paused passes its chance on", func(t *testing.T, e *env) {
		testKept(t, e, func(k *task.Task) task.Outcome { return pause(k) })
	}},
	{"a kept task that changes its gate passes its chance on", func(t *testing.T, e *env) {
		testKept(t, e, func(k *task.Task) task.Outcome { return setMetadata(k, `{"v":99}`) })
	}},
	{"a kept task that loses its order passes its chance on", func(t *testing.T, e *env) {
		testKept(t, e, func(k *task.Task) task.Outcome { return setPriority(k, -9) })
	}},
	{"a waiter without room at its host lets others pass", testKeptRefused},
	{"waiters for a host without room are passed over", testWaitersPassedOver},
	{"waiters for a host with little room are in nobody's way", testWaitersShare},
	{"a waiter whose room another one takes lets others pass", testRoomTaken},
	{"no more waiters are looked at than may start", testWakesAsMany},
	{"gates whose waiters have no room are in no gate's way", testGatesPassedOver},
}

func testRoom(t *testing.T, e *env) {
	tasks := append(newTasks(10), newTasks(10, host(hostB))...)
	e.create(tasks...)
	// Looking at more than there is room for does not claim more.
	pumped := e.pump(store.PumpParams{Owner: e.owner, Room: task.Room{Total: 5, PerHost: 3}, Fetch: 50})
	e.sameTasks("claimed", claimIDs(pumped.Claims), slices.Concat(tasks[:3], tasks[10:12]))
	e.create(slices.Concat(newTasks(3), newTasks(2, host(hostB)))...)
	pumped = e.tick(task.Room{Total: 100, PerHost: 3})
	byHost := map[string]int{}
	for _, c := range pumped.Claims {
		byHost[c.Host]++
	}
	if byHost[hostA] != 3 || byHost[hostB] != 3 || len(pumped.Claims) != 6 || !pumped.Starved {
		t.Errorf("3 a host: %v, starved %t", byHost, pumped.Starved)
	}
	pumped = e.tick(task.Room{Total: 5, PerHost: 4})
	if len(pumped.Claims) != 5 || !pumped.Starved {
		t.Errorf("5 over all: %d, starved %t", len(pumped.Claims), pumped.Starved)
	}
	if pumped = e.tick(task.Room{Total: 9, PerHost: 9}); len(pumped.Claims) != 9 {
		t.Errorf("the last 9: %d", len(pumped.Claims))
	}
	if pumped = e.tick(task.Room{Total: 9, PerHost: 9}); len(pumped.Claims) != 0 || pumped.Starved {
		t.Errorf("nothing left: %+v", pumped)
	}
}

func testBusyHost(t *testing.T, e *env) {
	tasks := append(newTasks(5), newTasks(5, host(hostB))...)
	e.create(tasks...)
	room := task.Room{Total: 100, PerHost: 4, Busy: map[string]int{hostA: 3, "unknown.test": 4}}
	pumped := e.tick(room)
	e.sameTasks("claimed", claimIDs(pumped.Claims), []*task.Task{tasks[0], tasks[5], tasks[6], tasks[7], tasks[8]})
	room.Busy[hostA] = 9
	pumped = e.tick(room)
	e.sameTasks("claimed", claimIDs(pumped.Claims), tasks[9:])
	if room.Busy = nil; len(e.tick(room).Claims) != 4 {
		t.Error("a host that is not busy has its whole window")
	}
}

func testUrgentHost(t *testing.T, e *env) {
	a1, b1, c1 := newTask(host("a.test")), newTask(host("b.test"), priority(1)), newTask(host("c.test"), priority(2))
	a2, b2 := newTask(host("a.test"), priority(-1)), newTask(host("b.test"), priority(-1))
	e.create(a1, b1, c1, a2, b2)
	for i, want := range [][]*task.Task{{c1, b1}, {a1, a2}, {b2}} {
		got := claimIDs(e.tick(task.Room{Total: 2, PerHost: 2}).Claims)
		if !slices.Equal(got, idsOf(want...)) {
			t.Errorf("tick %d claimed %v, want %v", i, names(want, got), names(want, idsOf(want...)))
		}
	}
}

// testManyHosts: ticks with room for far fewer tasks than there are hosts start the first of all of them, also when those that
// came first are gone.
func testManyHosts(t *testing.T, e *env) {
	const hosts = 300
	var waiting []*task.Task
	for i := range 18 { // behind one of each of some hosts many of another one
		waiting = append(waiting, newTask(host(fmt.Sprintf("h%d.test", min(i, 8))), priority(9)))
	}
	for i := range 3 * hosts {
		waiting = append(waiting, newTask(host(fmt.Sprintf("h%d.test", i*7%hosts)), priority(i*5%17/8))) // of each host in turn
	}
	for i := range hosts {
		waiting = append(waiting, newTask(host(fmt.Sprintf("h%d.test", i/20)), priority(i*3%11/4))) // one host after the other
	}
	e.create(waiting...)
	slices.SortFunc(waiting, func(a, b *task.Task) int { return cmp.Or(b.Priority-a.Priority, compareIDs(a.ID, b.ID)) })
	room := task.Room{Total: 16, PerHost: 8}
	first := func() (first []task.ID) {
		of := map[string]int{}
		for _, k := range waiting {
			if host := store.Host(k.OnStart); of[host] < room.PerHost && len(first) < room.Total {
				of[host]++
				first = append(first, k.ID)
			}
		}
		return first
	}
	ticks, least := 0, len(waiting)/room.Total
	for want := first(); len(want) > 0; want = first() {
		pumped := e.tick(room)
		got := claimIDs(pumped.Claims)
		if !slices.Equal(got, want[:min(len(want), len(got))]) || len(got) < len(want) && !pumped.More {
			t.Fatalf("tick %d claimed %v, want %v; more %t", ticks, names(waiting, got), names(waiting, want), pumped.More)
		}
		if ticks++; ticks > 2*least {
			t.Fatalf("%d still wait after %d ticks", len(waiting), ticks)
		}
		waiting = slices.DeleteFunc(waiting, func(k *task.Task) bool { return slices.Contains(got, k.ID) })
		if ticks == 5 {
			for _, k := range waiting[:5*room.Total] {
				e.settle(cancel(k))
			}
			waiting = waiting[5*room.Total:]
		}
	}
	if pumped := e.tick(room); len(pumped.Claims) > 0 || pumped.More || pumped.Starved {
		t.Errorf("nobody waits: %+v", pumped)
	}
}

func testNoRoom(t *testing.T, e *env) {
	parent := newTask()
	child, failing := newTask(after(parent)), newTask()
	orphan := newTask(after(failing))
	e.create(parent, child, failing, orphan)
	if pumped := e.tick(task.Room{}); len(pumped.Claims) > 0 || !pumped.Starved || pumped.More {
		t.Errorf("without room: %+v", pumped)
	}
	e.run()
	e.settle(end(parent.ID, task.Success), end(failing.ID, task.Failure))
	if pumped := e.tick(task.Room{}); len(pumped.Claims) > 0 {
		t.Errorf("claimed %d without room", len(pumped.Claims))
	}
	e.wantStatus(task.Pending, child)
	e.wantStatus(task.Failure, orphan)
	e.wantClaims(child)
}

func testFullHost(_ *testing.T, e *env) {
	e.create(newTasks(300, priority(10))...)
	free := newTasks(3, host(hostB))
	e.create(free...)
	pumped := e.tick(task.Room{Total: 20, PerHost: 10, Busy: map[string]int{hostA: 10}})
	e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), free)
}

func testLittleRoom(_ *testing.T, e *env) {
	many, few := newTasks(6), newTasks(3, host(hostB))
	e.create(append(many, few...)...)
	pumped := e.tick(task.Room{Total: 5, PerHost: 3})
	e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), slices.Concat(many[:3], few[:2]))
}

func testShutHost(t *testing.T, e *env) {
	away := newTasks(300, priority(10))
	free := newTasks(3, host(hostB))
	e.create(append(away, free...)...)
	room := task.Room{Total: 20, PerHost: 10, Shut: map[string]int{hostA: 0}}
	pumped := e.tick(room)
	e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), free)
	if pumped.Starved || pumped.Blocked {
		t.Errorf("others are asked for what no one can send: %+v", pumped)
	}
	e.wantStatus(task.Pending, away...)
	room.Shut[hostA] = 1
	e.sameTasks("the probe", claimIDs(e.tick(room).Claims), away[:1])
	room.Shut = nil
	if got := len(e.tick(room).Claims); got != 10 {
		t.Errorf("%d claimed of a host that is there again", got)
	}
	ended := e.running(4, func(k *task.Task) { k.OnFailure = []task.Action{webhook(hostA, "/f"), webhook(hostB, "/f")} })
	e.finish(task.Failure, ended...)
	for i, c := range []struct{ most, a, b int }{{0, 0, 4}, {1, 1, 0}, {2, 2, 0}} {
		hosts := map[string]int{}
		for _, d := range e.claimDeliveries(task.Room{Total: 10, PerHost: 10, Shut: map[string]int{hostA: c.most}}).Deliveries {
			hosts[d.Host]++
		}
		if hosts[hostA] != c.a || hosts[hostB] != c.b {
			t.Errorf("step %d: claimed %v", i, hosts)
		}
	}
}

func testShares(t *testing.T, e *env) {
	e.create(append(newTasks(50, priority(10)), newTasks(50, host(hostB))...)...)
	pumped := e.tick(task.Room{Total: 10, Window: 20, PerHost: 10, Busy: map[string]int{hostA: 4, "c.test": 6}})
	hosts := map[string]int{}
	for _, c := range pumped.Claims {
		hosts[c.Host]++
	}
	// Half of what the others leave: of 14 for the first, then of 7 for the second; another one finds room for 2.
	if hosts[hostA] != 3 || hosts[hostB] != 4 || !pumped.Starved {
		t.Errorf("claimed %v, starved %t", hosts, pumped.Starved)
	}
}

// Of the oldest deliveries many are of hosts that hang: however often it is claimed, other hosts find room.
func testDeliveryShares(t *testing.T, e *env) {
	const hung, each = 8, 30
	ended := e.running(each, func(k *task.Task) {
		for i := range hung {
			k.OnSuccess = append(k.OnSuccess, webhook(fmt.Sprintf("hung%d.test", i), "/s"))
		}
	})
	e.finish(task.Success, ended...)
	late := e.running(5, func(k *task.Task) { k.OnSuccess = []task.Action{webhook(hostB, "/s")} })
	e.finish(task.Success, late...)
	room := task.Room{Total: 80, Window: 80, PerHost: 20, Busy: map[string]int{}}
	for range 20 {
		for _, d := range e.claimDeliveries(room.Own()).Deliveries {
			room.Take(d.Host)
		}
	}
	if room.Busy[hostB] < 2 || room.Total < 1 {
		t.Errorf("room afterwards %+v", room)
	}
}

// testWokenWithoutRoom wakes a waiter whose host is full; it must start as soon as there is room.
func testWokenWithoutRoom(t *testing.T, e *env) {
	holder, w := e.oneGate(3)
	e.finish(task.Success, holder)
	full := task.Room{Total: 10, PerHost: 5, Busy: map[string]int{hostA: 5}}
	for range 3 {
		pumped := e.tick(full)
		if len(pumped.Claims) > 0 || pumped.More || !pumped.Starved {
			t.Fatalf("host is full: %+v", pumped)
		}
	}
	e.wantNoDrift()
	e.wantClaims(w[0])
	e.finish(task.Success, w[0])
	e.tick(full)
	e.wantClaims(w[1])
	e.finish(task.Success, w[1])
	e.wantClaims(w[2])
}

// testKept: the first waiter was woken and stays ready for want of room. When it is out of the way the next one must
// start.
func testKept(_ *testing.T, e *env, leave func(*task.Task) task.Outcome) {
	holder, w := e.oneGate(2)
	e.finish(task.Success, holder)
	e.tick(task.Room{Total: 10, PerHost: 5, Busy: map[string]int{hostA: 5}})
	o := leave(w[0])
	e.settle(o)
	claims := e.claim()
	if o.Metadata != nil {
		e.sameTasks("claimed", claimIDs(claims), w) // it starts at its new gate
		return
	}
	e.sameTasks("claimed", claimIDs(claims), w[1:])
}

func testKeptRefused(_ *testing.T, e *env) {
	// k waits for a with host A, which has no room, and next behind it with host B. b fills up, which k needs as well.
	two := func(options ...func(*task.Task)) *task.Task {
		return newTask(append(options, limit(1, "a"), limit(1, "b"))...)
	}
	holder := two(metadata(`{"a":1,"b":1}`))
	k, next := two(metadata(`{"a":1,"b":2}`)), two(metadata(`{"a":1,"b":3}`), host(hostB))
	e.create(holder, k, next)
	e.wantClaims(holder)
	e.finish(task.Success, holder)
	full := task.Room{Total: 10, PerHost: 5, Busy: map[string]int{hostA: 5}}
	e.sameTasks("claimed", claimIDs(e.tick(full).Claims), []*task.Task{next}) // k holds nobody up
	other := two(metadata(`{"a":2,"b":2}`), host(hostB), priority(5))
	e.create(other)
	e.sameTasks("claimed", claimIDs(e.tick(full).Claims), []*task.Task{other})
	e.finish(task.Success, next, other)
	e.wantClaims(k)
}

// testWaitersPassedOver: many wait at a gate for a host that is shut, or full, in front of a few for another one.
func testWaitersPassedOver(t *testing.T, e *env) {
	for _, room := range []task.Room{
		{Total: 20, PerHost: 10, Shut: map[string]int{hostA: 0}},
		{Total: 20, PerHost: 10, Busy: map[string]int{hostA: 10}},
	} {
		md := metadata(`{"v":%q}`, store.NewID())
		away := newTasks(300, priority(1), limit(2, "v"), md)
		free := newTasks(6, host(hostB), limit(2, "v"), md)
		holders := newTasks(2, priority(2), limit(2, "v"), md)
		e.create(slices.Concat(holders, away, free)...)
		e.wantClaims(holders...)
		if got := e.explain(free[1]); got.Ahead != len(away)+1 {
			t.Errorf("%d stand in front of the second for the other host", got.Ahead)
		}
		if got := e.explain(away[1]); got.Ahead != 1 {
			t.Errorf("%d stand in front of the second", got.Ahead)
		}
		e.finish(task.Success, holders...)
		for i := 0; i < len(free); i += 2 {
			pumped := e.tick(room)
			e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), free[i:i+2])
			e.finish(task.Success, free[i:i+2]...)
		}
		e.sameTasks("claimed without room", claimIDs(e.claimWith(store.PumpParams{Owner: e.owner, Room: room})), nil)
		if pumped := e.tick(room); pumped.Parked > 0 || pumped.More {
			t.Errorf("nobody can start: %+v", pumped)
		}
		e.wantNoDrift()
		for i := 0; i < len(away); i += 2 { // none is lost, in their order
			e.wantClaims(away[i : i+2]...)
			e.finish(task.Success, away[i:i+2]...)
		}
		e.wantClaims()
	}
}

// testWaitersShare: a host that has a little room in every tick takes no more of what a gate has than that.
func testWaitersShare(_ *testing.T, e *env) {
	holders := newTasks(40, priority(2), limit(40))
	many := newTasks(100, priority(1), limit(40))
	few := newTasks(3, host(hostB), limit(40))
	e.create(slices.Concat(holders, many, few)...)
	e.wantClaims(holders...)
	e.finish(task.Success, holders...)
	pumped := e.tick(task.Room{Total: 100, PerHost: 10, Busy: map[string]int{hostA: 8}})
	e.sameTasks("claimed in one tick", claimIDs(pumped.Claims), slices.Concat(many[:2], few))
}

// testGatesPassedOver: there are more gates with room than a tick visits, and at most of them all wait for a host that is shut.
func testGatesPassedOver(t *testing.T, e *env) {
	const n = store.MaxDirty + 100
	var holders, waiters, free []*task.Task
	for v := range n {
		rule := func(k *task.Task) {
			limit(1, "v")(k)
			metadata(`{"v":%d}`, v)(k)
		}
		holders = append(holders, newTask(rule))
		waiters = append(waiters, newTask(rule))
		if v%100 == 0 {
			free = append(free, newTask(host(hostB), rule))
		}
	}
	e.create(slices.Concat(holders, waiters, free)...)
	e.wantClaims(holders...)
	e.finish(task.Success, holders...)
	for range 3 {
		e.tick(task.Room{})
	}
	shut := store.PumpParams{Owner: e.owner, Room: task.Room{Total: 1000, PerHost: 1000, Shut: map[string]int{hostA: 0}}}
	e.sameTasks("claimed of the other host", claimIDs(e.claimWith(shut)), free)
	e.sameTasks("claimed again", claimIDs(e.claimWith(shut)), nil)
	e.finish(task.Success, free...)
	e.wantClaims(waiters...)
}

// testRoomTaken: a task without rules takes the last room of the waiter that is looked at.
func testRoomTaken(t *testing.T, e *env) {
	holder, w := e.oneGate(1)
	other := newTask(host(hostB), limit(1, "v"), metadata(`{"v":1}`))
	urgent := newTask(priority(9), metadata(`{"v":2}`))
	e.create(other, urgent)
	e.wantClaims(urgent)
	again := newTask(priority(9), metadata(`{"v":2}`))
	e.create(again)
	e.finish(task.Success, holder)
	pumped := e.tick(task.Room{Total: 10, PerHost: 5, Busy: map[string]int{hostA: 4}})
	e.sameTasks("claimed", claimIDs(pumped.Claims), []*task.Task{again})
	if !pumped.More {
		t.Error("the next tick would find another one")
	}
	pumped = e.tick(task.Room{Total: 10, PerHost: 5, Busy: map[string]int{hostA: 5}})
	e.sameTasks("claimed then", claimIDs(pumped.Claims), []*task.Task{other})
	e.finish(task.Success, other)
	e.wantClaims(w...)
}

// testWakesAsMany: those woken of a lane are as many as its gate has room for, of all hosts together.
func testWakesAsMany(t *testing.T, e *env) {
	two := func(x, y int, to string) *task.Task {
		return newTask(limit(1, "x"), limit(1, "y"), metadata(`{"x":%d,"y":%d}`, x, y), host(to))
	}
	holdsX, holdsY := two(1, 2, hostA), two(2, 1, hostA)
	e.create(holdsX, holdsY)
	e.wantClaims(holdsX, holdsY)
	e.create(two(1, 1, hostA), two(1, 1, hostB), two(1, 1, "c.test"))
	e.wantClaims()
	e.finish(task.Success, holdsX)
	if pumped := e.tick(ample()); pumped.Parked != 1 || !pumped.More {
		t.Errorf("%d went on to the other gate, more %t", pumped.Parked, pumped.More)
	}
}
