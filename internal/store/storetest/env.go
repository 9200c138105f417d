package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// env is a store under test with helpers that fail the test when the store answers an error.
type env struct {
	failer
	store.Store
	ctx   context.Context
	clock *Clock
	owner task.ID // the process that claims; it has a lease
}

// ample is more room than any test needs.
func ample() task.Room { return task.Room{Total: 100_000, PerHost: 100_000} }

func (e *env) create(tasks ...*task.Task) *task.Batch {
	e.Helper()
	b := batchOf(tasks...)
	e.createBatch(b)
	return b
}

func (e *env) createBatch(b *task.Batch) []task.State {
	e.Helper()
	created, err := e.Create(e.ctx, b, nil)
	if err != nil {
		e.Fatalf("Create: %v", err)
	}
	if created.Batch != b.ID || created.Replayed {
		e.Errorf("Create without a key: batch %s, replayed %t", created.Batch, created.Replayed)
	}
	return states(created)
}

func states(created store.Created) []task.State {
	all := make([]task.State, len(created.Kept))
	for i := range all {
		all[i] = created.State(i)
	}
	return all
}

// Create is that of the store for a create that comes alone.
func (e *env) Create(ctx context.Context, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	return create(ctx, e.Store, b, key)
}

func create(ctx context.Context, s store.Store, b *task.Batch, key *store.Idempotency) (store.Created, error) {
	created, err := s.Create(ctx, []store.Create{{Batch: b, Key: key}})
	if err != nil {
		return store.Created{}, err
	}
	return created[0], created[0].Err
}

func (e *env) details(batch task.ID) []store.Detail {
	e.Helper()
	tasks, err := e.Details(e.ctx, batch)
	if err != nil {
		e.Fatalf("Details: %v", err)
	}
	return tasks
}

// settleAll is Settle whose refusals the caller looks at.
func (e *env) settleAll(outcomes ...task.Outcome) store.Settled {
	e.Helper()
	settled, err := e.Settle(e.ctx, outcomes)
	if err != nil {
		e.Fatalf("Settle: %v", err)
	}
	if len(settled.Results) != len(outcomes) {
		e.Fatalf("Settle: %d results for %d outcomes", len(settled.Results), len(outcomes))
	}
	return settled
}

// settle is Settle with none refused.
func (e *env) settle(outcomes ...task.Outcome) store.Settled {
	e.Helper()
	settled := e.settleAll(outcomes...)
	for i, r := range settled.Results {
		if r.Err != nil {
			e.Fatalf("Settle: outcome %d (kind %d) of task in %s: %v", i, outcomes[i].Kind, r.From, r.Err)
		}
	}
	return settled
}

// refuse settles one outcome and wants it refused for that reason, with nothing changed.
func (e *env) refuse(code task.RefusalCode, o task.Outcome) {
	e.Helper()
	before := e.detail(o.ID)
	r := e.settleAll(o).Results[0]
	refusal, ok := errors.AsType[*task.Refusal](r.Err)
	if !ok || refusal.Code != code {
		e.Fatalf("outcome of kind %d on a %s task: got %v, want a refusal with code %d", o.Kind, before.State.Status, r.Err, code)
	}
	if diff := cmp.Diff(before, e.detail(o.ID)); diff != "" {
		e.Errorf("a refused outcome changed the task:\n%s", diff)
	}
}

// tick is one Pump.
func (e *env) tick(room task.Room) store.Pumped {
	e.Helper()
	return e.pump(store.PumpParams{Owner: e.owner, Room: room})
}

func (e *env) pump(p store.PumpParams) store.Pumped {
	e.Helper()
	work := e.work()
	pumped, err := e.Pump(e.ctx, p)
	if err != nil {
		e.Fatalf("Pump: %v", err)
	}
	if !work.Pump && (len(pumped.Claims)+len(pumped.Transitions)+len(pumped.Propagated)+pumped.Parked > 0 || pumped.More || pumped.Outbox) {
		e.Errorf("a tick did what no look had found: %+v", pumped)
	}
	return pumped
}

// work looks. What the duties of a test find, the look before them must have found.
func (e *env) work() store.Work {
	e.Helper()
	work, err := e.Work(e.ctx, e.owner)
	if err != nil {
		e.Fatalf("Work: %v", err)
	}
	return work
}

// claim pumps with ample room until there is no more to do, and returns what was claimed.
func (e *env) claim() []store.Claim {
	e.Helper()
	return e.claimWith(store.PumpParams{Owner: e.owner, Room: ample()})
}

func (e *env) claimWith(p store.PumpParams) []store.Claim {
	e.Helper()
	const enough = 5000
	var claims []store.Claim
	for range enough {
		pumped := e.pump(p)
		for pumped.Uncounted { // until the transactions of other tests are over
			claims = append(claims, pumped.Claims...)
			pumped = e.pump(p)
		}
		claims = append(claims, pumped.Claims...)
		if pumped.Busy {
			e.Fatalf("Pump: busy, though nobody else pumps")
		}
		if !pumped.More {
			return claims
		}
	}
	e.Fatalf("Pump: there is still more to do after %d ticks", enough)
	return nil
}

// wantClaims pumps until there is no more to do and wants exactly these tasks claimed, in any order.
func (e *env) wantClaims(want ...*task.Task) {
	e.Helper()
	e.sameTasks("claimed", claimIDs(e.claim()), want)
}

func (e *env) sameTasks(what string, got []task.ID, want []*task.Task) {
	e.Helper()
	got = slices.SortedFunc(slices.Values(got), compareIDs)
	ids := slices.SortedFunc(slices.Values(idsOf(want...)), compareIDs)
	if !slices.Equal(got, ids) {
		e.Fatalf("%s:\n got %d: %v\nwant %d: %v", what, len(got), names(want, got), len(ids), names(want, ids))
	}
}

func names(known []*task.Task, ids []task.ID) []string {
	var out []string
	for _, id := range ids[:min(len(ids), 20)] {
		name := id.String()
		for _, t := range known {
			if t.ID == id {
				name = t.LocalID
			}
		}
		out = append(out, name)
	}
	return out
}

// run claims everything that may start and has its on_start accepted.
func (e *env) run() []store.Claim {
	e.Helper()
	claims := e.claim()
	e.started(claims...)
	return claims
}

func (e *env) started(claims ...store.Claim) {
	e.Helper()
	var outcomes []task.Outcome
	for _, c := range claims {
		outcomes = append(outcomes, started(c.ID))
	}
	if len(outcomes) > 0 {
		e.settle(outcomes...)
	}
}

func (e *env) finish(status task.Status, tasks ...*task.Task) {
	e.Helper()
	var outcomes []task.Outcome
	for _, t := range tasks {
		outcomes = append(outcomes, end(t.ID, status))
	}
	e.settle(outcomes...)
}

func (e *env) detail(id task.ID) *store.Detail {
	e.Helper()
	d, err := e.Task(e.ctx, id)
	if err != nil {
		e.Fatalf("Task: %v", err)
	}
	return d
}

func (e *env) wantStatus(want task.Status, tasks ...*task.Task) {
	e.Helper()
	for _, t := range tasks {
		if got := e.detail(t.ID).State; got.Status != want {
			e.Fatalf("task %s is %s (%q), want %s", t.LocalID, got.Status, got.FailureReason, want)
		}
	}
}

func (e *env) wantCounts(b *task.Batch, want map[task.Status]int) {
	e.Helper()
	summary, err := e.Batch(e.ctx, b.ID)
	if err != nil {
		e.Fatalf("Batch: %v", err)
	}
	if !maps.Equal(summary.Counts, want) {
		e.Fatalf("batch has %v, want %v", summary.Counts, want)
	}
}

func (e *env) wantNoDrift() {
	e.Helper()
	if n, err := e.Drift(e.background()); err != nil || n != 0 {
		e.Errorf("Drift: %d gates (%v), want 0", n, err)
	}
}

func (e *env) heartbeat(owner task.ID, lease time.Duration) {
	e.Helper()
	if err := e.Heartbeat(e.ctx, owner, lease); err != nil {
		e.Fatalf("Heartbeat: %v", err)
	}
}

// process is a new one with a lease.
func (e *env) process() task.ID {
	e.Helper()
	id := newID()
	e.heartbeat(id, time.Hour)
	return id
}

func (e *env) takeOver(owner task.ID) []store.Claim {
	e.Helper()
	claims, err := e.TakeOver(e.ctx, owner)
	if err != nil {
		e.Fatalf("TakeOver: %v", err)
	}
	return claims
}

func (e *env) due() []task.ID {
	e.Helper()
	work := e.work()
	ids, more, err := e.Due(e.ctx, 1000)
	if err != nil || more {
		e.Fatalf("Due: more %t, %v", more, err)
	}
	if !work.Due && len(ids) > 0 {
		e.Errorf("due are %v, which no look had found", ids)
	}
	return ids
}

func (e *env) claimDeliveries(room task.Room) store.ClaimedDeliveries {
	e.Helper()
	work := e.work()
	claimed, err := e.ClaimDeliveries(e.ctx, store.ClaimDeliveriesParams{Room: room, Lease: time.Minute})
	if err != nil {
		e.Fatalf("ClaimDeliveries: %v", err)
	}
	if !work.Outbox && len(claimed.Deliveries) > 0 {
		e.Errorf("deliveries are due that no look had found: %+v", claimed.Deliveries)
	}
	return claimed
}

func (e *env) list(f store.Filter) []store.Item {
	e.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	page, err := e.Tasks(e.ctx, f)
	if err != nil {
		e.Fatalf("Tasks: %v", err)
	}
	return page.Items
}

func (e *env) batches(f store.Filter) []store.BatchItem {
	e.Helper()
	if f.Limit == 0 {
		f.Limit = 1000
	}
	page, err := e.Batches(e.ctx, f)
	if err != nil {
		e.Fatalf("Batches: %v", err)
	}
	return page.Items
}
