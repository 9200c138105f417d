package storetest

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

var modelTests = []conformance{
	{"agrees with a simple model", testModel},
}

// model says what a store should do, in plain loops. What depends on the end of a parent happens to it at once, while a
// store takes a few ticks; so the two are compared when the store has no more to do.
type model struct {
	tasks []*modelTask
	byID  map[task.ID]*modelTask
	now   time.Duration // by the clock of the test
}

type modelTask struct {
	*task.Task
	status   task.Status
	unmet    int
	told     bool // its children know of its end
	holds    bool // a slot at every gate
	accepted bool // on_start
	attempt  int
	owner    task.ID
	count    int64
	active   time.Duration // its last activity
	a, b     int           // its metadata
}

func (m *model) add(tasks []*task.Task) {
	for _, t := range tasks {
		k := &modelTask{Task: t, status: task.Pending, unmet: len(t.Dependencies), active: m.now}
		if k.unmet > 0 {
			k.status = task.Waiting
		}
		k.read()
		m.tasks = append(m.tasks, k)
		m.byID[t.ID] = k
	}
}

func (k *modelTask) read() {
	var md struct{ A, B int }
	if err := json.Unmarshal(k.Metadata, &md); err != nil {
		panic(err)
	}
	k.a, k.b = md.A, md.B
}

// mayStart: all its rules allow it.
func (m *model) mayStart(k *modelTask) bool {
	return !slices.ContainsFunc(k.Rules, func(r task.Rule) bool { return m.forbids(k, r) })
}

// forbids: the rule keeps k from starting, by what there is.
func (m *model) forbids(k *modelTask, r task.Rule) bool {
	n := m.used(k, r)
	switch {
	case r.Type == task.Capacity:
		return n >= r.Max
	case k.Kind != r.Matcher.Kind:
		return n > r.Max
	case r.Matcher.Status == task.Pending && k.status == task.Pending:
		return n-1 >= r.Max // it does not hold back itself
	}
	return n >= r.Max
}

// used is how many tasks the rule counts for k, or how much work they have left.
func (m *model) used(k *modelTask, r task.Rule) int {
	n := 0
	for _, other := range m.tasks {
		if other.Kind != r.Matcher.Kind ||
			slices.Contains(r.Matcher.Fields, "a") && other.a != k.a || slices.Contains(r.Matcher.Fields, "b") && other.b != k.b {
			continue
		}
		switch {
		case r.Type == task.Capacity && other.holds:
			n += int(max(0, *other.ExpectedCount-other.count))
		case r.Type == task.Capacity:
		case r.Matcher.Status == task.Running && other.holds, r.Matcher.Status != task.Running && other.status == r.Matcher.Status:
			n++
		}
	}
	return n
}

// due: it has been Running for too long without activity.
func (m *model) due(k *modelTask) bool {
	return k.status == task.Running && k.active+k.Timeout <= m.now
}

func (k *modelTask) end(status task.Status) { k.status, k.holds = status, false }

// apply reports whether o is taken.
func (m *model) apply(o *task.Outcome) bool {
	k := m.byID[o.ID]
	before := k.status
	taken := k.apply(o, m.due(k))
	says := o.Kind == task.Count || o.Kind == task.Update && !before.Terminal()
	if taken && (says || k.status != before) {
		k.active = m.now
	}
	return taken
}

func (k *modelTask) apply(o *task.Outcome, due bool) bool {
	ended := k.status.Terminal()
	switch o.Kind {
	case task.Count:
		k.count += o.NewSuccess
	case task.Expire:
		if due {
			k.end(task.Failure)
		}
	case task.Cancel:
		if ended {
			return false
		}
		k.end(task.Canceled)
	case task.Pause:
		if ended || k.status == task.Paused {
			return false
		}
		k.status = task.Paused
	case task.Resume:
		if k.status != task.Paused {
			return false
		}
		switch {
		case k.holds && k.accepted:
			k.status = task.Running
		case k.holds:
			k.status = task.Claimed
		case k.unmet > 0:
			k.status = task.Waiting
		default:
			k.status = task.Pending
		}
	case task.EditRules:
		if !ended {
			k.Rules = o.Rules
		}
	case task.Started:
		k.accepted = k.accepted || k.holds
		if k.status == task.Claimed {
			k.status = task.Running
		}
	case task.StartFailed:
		if k.holds && !k.accepted && o.Attempt == k.attempt {
			k.end(task.Failure)
		}
	case task.Update:
		return k.update(o)
	}
	return true
}

func (k *modelTask) update(o *task.Outcome) bool {
	if k.status.Terminal() {
		return o.Status == k.status
	}
	if o.Status != 0 {
		if !k.holds {
			return false
		}
		k.end(o.Status)
	}
	if o.Metadata != nil {
		k.Metadata = o.Metadata
		k.read()
	}
	if o.ExpectedCount != nil {
		k.ExpectedCount = o.ExpectedCount
	}
	return true
}

// propagate tells children of the ends of their parents until nothing changes any more.
func (m *model) propagate() {
	for again := true; again; {
		again = false
		for _, p := range m.tasks {
			if !p.status.Terminal() || p.told {
				continue
			}
			p.told, again = true, true
			for _, child := range m.tasks {
				for _, d := range child.Dependencies {
					if d.Parent == p.ID && !child.status.Terminal() {
						child.settle(p.status == task.Success || !d.RequiresSuccess)
					}
				}
			}
		}
	}
}

func (k *modelTask) settle(fine bool) {
	k.unmet--
	switch {
	case !fine:
		k.end(task.Failure)
	case k.unmet == 0 && k.status == task.Waiting:
		k.status = task.Pending
	}
}

// simulation is a store and the model of it, taken along the same random way.
type simulation struct {
	*env
	rt     *rapid.T
	m      *model
	prefix string // of the kinds: the store is shared by many simulations, one after the other
	owner  task.ID
	// caughtUp: nothing has happened since the store had no more to do. Only then the statuses of its tasks are those of
	// the model, and so are the counts of rules about statuses.
	caughtUp bool
	// untold are the batches that have not told their end and want to.
	untold map[task.ID]*task.Batch
}

var simulations atomic.Int64

func testModel(t *testing.T, e *env) {
	checks := max(40, size(100))
	if long() {
		checks = 5000
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		inner := *e
		inner.failer = rt
		s := &simulation{
			env: &inner, rt: rt, m: &model{byID: map[task.ID]*modelTask{}}, owner: inner.process(),
			prefix: fmt.Sprintf("simulation-%d/", simulations.Add(1)), untold: map[task.ID]*task.Batch{},
		}
		defer s.clear()
		s.createSome()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s.step()
		}
		s.runOut()
	})
}

func (s *simulation) draw(what string, low, high int) int {
	return rapid.IntRange(low, high).Draw(s.rt, what)
}

func (s *simulation) step() {
	switch s.draw("step", 0, 10) {
	case 0:
		s.createSome()
	case 1:
		s.succeed()
	case 10:
		s.timePasses()
	case 2, 3, 4:
		s.pumpSome()
	default:
		s.settleSome()
	}
	s.compare()
	s.compareReasons(s.m.tasks[s.draw("explain", 0, len(s.m.tasks)-1)])
}

// timePasses lets tasks time out that have not reported for their time-out. The times are such that none is near.
func (s *simulation) timePasses() {
	passed := time.Duration(s.draw("minutes", 0, 2)) * 7 * time.Minute
	s.m.now += passed
	s.clock.Advance(passed)
	s.heartbeat(s.owner, time.Hour)
	var want []*task.Task
	for _, k := range s.m.tasks {
		if s.m.due(k) {
			want = append(want, k.Task)
		}
	}
	var got []task.ID
	for ids := s.due(); len(ids) > 0; ids = s.due() {
		var outcomes []task.Outcome
		for _, id := range ids {
			outcomes = append(outcomes, task.Outcome{ID: id, Kind: task.Expire})
		}
		s.settleModel(outcomes...)
		got = append(got, ids...)
	}
	s.sameTasks("timed out", got, want)
	s.m.propagate()
	s.pumpAll()
}

// createSome creates up to three batches in one transaction.
func (s *simulation) createSome() {
	var creates []store.Create
	for range s.draw("batches", 1, 3) {
		creates = append(creates, store.Create{Batch: s.batch()})
	}
	s.wantCreated(creates, s.createGroup(creates...))
	for _, c := range creates {
		s.m.add(c.Batch.Tasks)
	}
	s.caughtUp = false
}

func (s *simulation) batch() *task.Batch {
	var tasks []*task.Task
	for range s.draw("tasks", 1, 6) {
		t := newTask(kind(s.kind()), priority(s.draw("priority", -1, 1)), host([]string{hostA, hostB}[s.draw("host", 0, 1)]),
			timeout(time.Duration(s.draw("timeout", 1, 2))*10*time.Minute), expects(int64(s.draw("expected", 0, 3))))
		t.Metadata = s.metadata()
		s.rules(t)
		for _, parent := range tasks {
			if s.draw("dependency", 0, 4) == 0 {
				depends(s.draw("requires success", 0, 1) == 1, []*task.Task{parent})(t)
			}
		}
		tasks = append(tasks, t)
	}
	b := batchOf(tasks...)
	if s.draw("tells", 0, 1) == 1 {
		b = telling(tasks)
		s.untold[b.ID] = b
	}
	return b
}

// rules gives t some more.
func (s *simulation) rules(t *task.Task) {
	for range s.draw("rules", 0, 2) {
		fields := [][]string{nil, {"a"}, {"b"}, {"b", "a"}}[s.draw("fields", 0, 3)]
		most := s.draw("max", 1, 3)
		switch rule := s.draw("rule", 0, 11); {
		case rule < 6:
			limitKind(s.kind(), most, fields...)(t)
		case rule < 8:
			capacity(s.kind(), most+1, fields...)(t)
		default:
			status := []task.Status{task.Failure, task.Pending, task.Waiting, task.Paused, task.Success, task.Canceled}[s.draw("status", 0, 5)]
			inStatus(status, s.kind(), most, fields...)(t)
		}
	}
}

func (s *simulation) kind() string { return s.prefix + []string{"x", "y"}[s.draw("kind", 0, 1)] }

func (s *simulation) metadata() json.RawMessage {
	return fmt.Appendf(nil, `{"a":%d,"b":%d}`, s.draw("a", 0, 1), s.draw("b", 0, 1))
}

// succeed lets the owner die and another take its claims over.
func (s *simulation) succeed() {
	if err := s.Leave(s.ctx, s.owner); err != nil {
		s.Fatalf("Leave: %v", err)
	}
	var want []*task.Task
	taker := s.process()
	for _, k := range s.m.tasks {
		if k.holds && !k.accepted && k.owner == s.owner {
			want = append(want, k.Task)
			k.attempt, k.owner = k.attempt+1, taker
		}
	}
	s.sameTasks("taken over", claimIDs(s.takeOver(taker)), want)
	s.env.owner, s.owner = taker, taker
}

func (s *simulation) settleSome() {
	var outcomes []task.Outcome
	for range s.draw("outcomes", 1, 4) {
		outcomes = append(outcomes, s.outcome(s.m.tasks[s.draw("task", 0, len(s.m.tasks)-1)]))
	}
	if s.draw("a tick follows", 0, 1) == 1 {
		s.followModel(outcomes...)
	} else {
		s.settleModel(outcomes...)
		s.compareReasons(s.m.tasks[s.draw("explain", 0, len(s.m.tasks)-1)])
	}
	s.m.propagate()
	s.pumpAll()
}

// settleModel settles outcomes, of which the store takes those that the model takes.
func (s *simulation) settleModel(outcomes ...task.Outcome) {
	s.settledModel(outcomes, s.settleAll(outcomes...))
}

// followModel is settleModel and perhaps a tick.
func (s *simulation) followModel(outcomes ...task.Outcome) {
	p := s.bounds()
	settled, pumped := s.follow(p, outcomes...)
	s.settledModel(outcomes, settled)
	if pumped != nil {
		s.m.propagate()
		s.pumpedModel(p, pumped)
	}
}

func (s *simulation) settledModel(outcomes []task.Outcome, settled store.Settled) {
	for i, r := range settled.Results {
		if taken := s.m.apply(&outcomes[i]); (r.Err == nil) != taken {
			s.Fatalf("outcome of kind %d of a task in %s: %v; the model takes it: %t", outcomes[i].Kind, r.From, r.Err, taken)
		}
	}
	s.caughtUp = false
}

func (s *simulation) outcome(k *modelTask) task.Outcome {
	switch s.draw("outcome", 0, 14) {
	case 0, 1:
		return end(k.ID, task.Success)
	case 2:
		return end(k.ID, task.Failure)
	case 3:
		return cancel(k.Task)
	case 4:
		return pause(k.Task)
	case 5:
		return resume(k.Task)
	case 6:
		return startFailed(k.ID, 1)
	case 7:
		return count(k.ID, 1, 0)
	case 8:
		return setPriority(k.Task, s.draw("new priority", -2, 2))
	case 9:
		var edited task.Task
		s.rules(&edited)
		return task.Outcome{ID: k.ID, Kind: task.EditRules, Rules: edited.Rules}
	case 10:
		if !k.holds {
			return setMetadata(k.Task, "%s", s.metadata())
		}
	case 11:
		return setExpected(k.Task, int64(s.draw("new expected", 0, 4)))
	case 12:
		return expire(k.Task)
	case 13:
		return count(k.ID, 2, 0)
	}
	return started(k.ID)
}

// pumpAll pumps with random bounds until there is no more to do. Then the store has caught up with the model.
func (s *simulation) pumpAll() {
	for s.pumpSome() {
	}
}

func (s *simulation) pumpSome() bool { return s.pumpModel(s.bounds()) }

func (s *simulation) bounds() store.PumpParams {
	room := task.Room{Total: s.draw("room", 0, 5), PerHost: s.draw("per host", 1, 3)}
	if s.draw("busy", 0, 1) == 1 {
		room.Busy = map[string]int{hostA: s.draw("busy at a", 0, 3)}
	}
	if s.draw("shut", 0, 3) == 0 {
		room.Shut = map[string]int{hostA: s.draw("room at a", 0, 1)}
	}
	return store.PumpParams{
		Owner: s.owner, Room: room, Fetch: s.draw("fetch", 0, 4), Links: s.draw("links", 1, 4), BatchDeltas: s.draw("batch deltas", 1, 4),
	}
}

// pumpModel is a tick whose claims the model must allow.
func (s *simulation) pumpModel(p store.PumpParams) bool {
	pumped := s.pump(p)
	return s.pumpedModel(p, &pumped)
}

// pumpedModel reports whether there is more to do.
func (s *simulation) pumpedModel(p store.PumpParams, pumped *store.Pumped) bool {
	hosts := map[string]int{}
	exact := s.caughtUp
	for _, c := range pumped.Claims {
		k := s.m.byID[c.ID]
		if k == nil {
			s.Fatalf("a task of another simulation was claimed")
		}
		forbidden := slices.ContainsFunc(k.Rules, func(r task.Rule) bool {
			bySlots := r.Matcher.Status == task.Running // these are exact at all times
			return (exact || bySlots) && s.m.forbids(k, r)
		})
		if k.status != task.Pending || forbidden {
			s.Fatalf("%s was claimed; it is %s, forbidden by its rules: %t", k.LocalID, k.status, forbidden)
		}
		k.status, k.holds, k.attempt, k.owner = task.Claimed, true, 1, p.Owner
		hosts[c.Host]++
		if hosts[c.Host] > p.Room.Host(c.Host) {
			s.Fatalf("more claims for %s than it has room", c.Host)
		}
	}
	if len(pumped.Claims) > p.Room.Total {
		s.Fatalf("%d claims, room for %d", len(pumped.Claims), p.Room.Total)
	}
	s.caughtUp = !pumped.More && !pumped.Uncounted
	return !s.caughtUp
}

// compare wants the store where the model is, as soon as it has caught up.
func (s *simulation) compare() {
	s.wantNoDrift()
	s.compareOutbox()
	s.compareRare()
	items := s.list(store.Filter{KindPrefix: s.prefix, Limit: 10_000})
	if len(items) != len(s.m.tasks) {
		s.Fatalf("%d tasks, the model has %d", len(items), len(s.m.tasks))
	}
	for _, item := range items {
		k := s.m.byID[item.Task.ID]
		if got := item.State; got.Status != k.status || got.Success != k.count || got.Attempt != k.attempt ||
			got.HoldsSlots() != k.holds || !got.Status.Terminal() && got.Unmet != k.unmet {
			s.Fatalf("%s: %+v; the model has %s, count %d, attempt %d, unmet %d", k.LocalID, got, k.status, k.count, k.attempt, k.unmet)
		}
	}
}

// compareRare wants each of the tasks in rare statuses in a list of them, once.
func (s *simulation) compareRare() {
	var want []*task.Task
	for _, k := range s.m.tasks {
		if slices.Contains(store.RareStatuses, k.status) {
			want = append(want, k.Task)
		}
	}
	var got []task.ID
	for _, item := range s.list(store.Filter{Statuses: store.RareStatuses, KindPrefix: s.prefix, Limit: 10_000}) {
		got = append(got, item.Task.ID)
	}
	s.sameTasks("in rare statuses", got, want)
}

// compareOutbox wants the batches to tell their end of which the last task has ended since it was asked last.
func (s *simulation) compareOutbox() {
	for _, d := range s.claimDeliveries(ample()).Deliveries {
		s.finishDeliveries(attempt(d, store.DeliveryDone, 204, "", 0))
		b := s.untold[d.Source]
		if b == nil && slices.ContainsFunc(s.m.tasks, func(k *modelTask) bool { return k.BatchID == d.Source }) {
			s.Fatalf("batch %s tells its end twice", d.Source)
		}
		if b == nil {
			continue // what another simulation has left
		}
		delete(s.untold, d.Source)
		c := task.Completion{Batch: b.ID, At: s.completion(b).At}
		for _, k := range b.Tasks {
			switch s.m.byID[k.ID].status {
			case task.Success:
				c.Success++
			case task.Failure:
				c.Failure++
			case task.Canceled:
				c.Canceled++
			}
		}
		if got, want := string(d.Action.Body), string(c.Body(nil)); got != want {
			s.Fatalf("batch %s tells %s; the model has %s", b.ID, got, want)
		}
	}
	for _, b := range s.untold {
		if !slices.ContainsFunc(b.Tasks, func(k *task.Task) bool { return !s.m.byID[k.ID].status.Terminal() }) {
			s.Fatalf("batch %s has ended and does not tell it", b.ID)
		}
	}
}

// runOut gives ample room: nobody may be left who could start. Then it lets everything end.
func (s *simulation) runOut() {
	for {
		for s.pumpModel(store.PumpParams{Owner: s.owner, Room: ample()}) {
		}
		s.compare()
		var outcomes []task.Outcome
		for _, k := range s.m.tasks {
			switch {
			case k.status == task.Pending && s.m.mayStart(k):
				s.Fatalf("%s is left Pending though its rules have room", k.LocalID)
			case k.holds:
				outcomes = append(outcomes, end(k.ID, task.Success))
			case k.status == task.Paused:
				outcomes = append(outcomes, resume(k.Task))
			}
		}
		for _, k := range s.m.tasks {
			s.compareReasons(k)
		}
		if len(outcomes) == 0 && !s.freeOne() {
			break
		}
		s.settleModel(outcomes...)
		s.m.propagate()
	}
	for _, k := range s.m.tasks {
		if !k.status.Terminal() {
			s.Fatalf("%s is %s and nothing can happen any more", k.LocalID, k.status)
		}
	}
}

// clear leaves nothing behind for the next simulation, whatever became of this one.
func (s *simulation) clear() {
	var outcomes []task.Outcome
	for _, k := range s.m.tasks {
		outcomes = append(outcomes, cancel(k.Task))
	}
	if _, err := s.Settle(s.background(), outcomes); err != nil {
		s.Errorf("Settle: %v", err)
	}
	for {
		pumped, err := s.Pump(s.background(), store.PumpParams{Owner: s.owner, Room: ample()})
		if err != nil || !pumped.More {
			return
		}
	}
}
