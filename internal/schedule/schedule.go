// Package schedule runs the pump: it claims the tasks that may run under the rules and hands them to dispatch. It is
// stage 3 on the way of a task.
//
// It runs on a hint: something ended, came in, or room was freed, or somebody looked and found work of which the hint
// got lost. The decisions are all made in the store's transaction; this package only says when, and how much.
//
// Invariants:
//
//   - One tick at a time, be it one of the loop or one that follows outcomes in their transaction ([Pump.Follow]), and no hint is
//     lost: one that comes during a tick causes another.
//   - No more is claimed than dispatch has room for, and what was claimed is started, also when the loop is stopped
//     meanwhile.
//   - While another process pumps, a hint stands until this one has had its turn.
package schedule

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

const (
	// minBusy and maxBusy are the pauses while another process pumps.
	minBusy = 2 * time.Millisecond
	maxBusy = 50 * time.Millisecond
	// minFailed and maxFailed are the pauses while the database is away.
	minFailed = 10 * time.Millisecond
	maxFailed = time.Second
	// notifyEvery is how often other processes are told of work that this one cannot take.
	notifyEvery = 50 * time.Millisecond
	// minFetch and maxFetch bound PumpParams.Fetch while rules hold back all that was looked at.
	minFetch = 256
	maxFetch = 2000
	// minLinks and maxLinks bound PumpParams.Links. Whoever comes during a tick waits for its end and for the next one, so one
	// that folds as much as it may should take from shortTick to longTick, whatever a link costs just now: a cascade costs half
	// of a fan-out, and a busy machine twice as much as an idle one. Fewer than minLinks would save little, for a tick takes
	// 2 ms or more without any.
	minLinks  = 500
	maxLinks  = 2000
	shortTick = 10 * time.Millisecond
	longTick  = 2 * shortTick // so that half of what is too long is not too short
	// followingLinks is PumpParams.Links of a tick that follows outcomes: their callers wait for it. See docs/bench.
	followingLinks = 64
	// uncountedEvery is how often rules are looked at that cannot be counted yet.
	uncountedEvery = 50 * time.Millisecond
	// grace is how long a tick may go on after the loop was told to stop: what it claims must be known.
	grace = 5 * time.Second
)

// Store is what the pump needs of [store.Store].
type Store interface {
	Pump(ctx context.Context, p store.PumpParams) (store.Pumped, error)
	Notify(ctx context.Context) error
}

// Starter sends the on_start of claims.
type Starter interface {
	// Room is how much it can take now. The pump may change what it gets.
	Room() task.Room
	// Start does not block.
	Start(claims []store.Claim)
}

// Options of a [Pump]. Store, Owner and Starter are required.
type Options struct {
	Store Store
	// Owner is this process. It must have a lease by the time Run is called.
	Owner   task.ID
	Starter Starter
	// OnOutbox is called when a tick has written deliveries. It must not block. Nil: nobody asks.
	OnOutbox func()
	// Log is nil for none.
	Log *slog.Logger
}

// Pump is the loop. Safe for concurrent use.
type Pump struct {
	store    Store
	owner    task.ID
	starter  Starter
	onOutbox func()
	log      *slog.Logger
	hint     chan struct{}

	turn  chan struct{} // full during a tick
	idle  bool          // belongs to whoever fills turn: nothing was left to do after the last tick
	ended atomic.Bool   // the loop has

	// What follows belongs to Run.

	fetch      int
	links      int
	busy       time.Duration // the next pause while another process pumps
	failed     time.Duration // the next pause after an error; 0: the last tick worked
	notified   time.Time
	notifyOwed bool
	uncounted  bool // rules wait to be counted
}

// New returns a pump that waits for Run.
func New(o Options) *Pump {
	if o.OnOutbox == nil {
		o.OnOutbox = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Pump{
		store: o.Store, owner: o.Owner, starter: o.Starter, onOutbox: o.OnOutbox, log: o.Log,
		hint: make(chan struct{}, 1), turn: make(chan struct{}, 1), busy: minBusy, links: store.DefaultLinks,
	}
}

// Wake hints that there may be something to do. It does not block.
func (p *Pump) Wake() {
	select {
	case p.hint <- struct{}{}:
	default:
	}
}

// Run pumps until ctx ends, and returns nil then. A tick that is under way is finished and what it claimed is started.
func (p *Pump) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	defer func() { // nobody claims any more, once a tick is over that follows outcomes just now
		p.ended.Store(true)
		select {
		case p.turn <- struct{}{}:
			<-p.turn
		case <-work.Done():
		}
	}()
	for ctx.Err() == nil { // the first time without a hint: there may be work from before
		switch next := p.tick(work); {
		case next.sleep > 0: // the hint stands
			wait(ctx, nil, next.sleep)
		case !next.again:
			p.await(ctx, work)
		}
	}
	return nil
}

// PassOn tells other processes of hints, once Run has returned: while this process stops, reports still come in, and what follows
// from them is for others to do. It returns nil when ctx has ended and the last hint is passed on.
func (p *Pump) PassOn(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	p.uncounted = false
	for ctx.Err() == nil {
		p.await(ctx, work)
		p.notifyOwed = true
		p.notify(work)
	}
	p.notified = time.Time{}
	p.notify(work)
	return nil
}

// next says how to go on after a tick.
type next struct {
	sleep time.Duration // before the next one, whatever happens
	again bool          // at once
}

// Follow lets a tick follow outcomes in the transaction that do carries out, so that what they let start waits for no other one.
// While the loop has nothing to do, turn gives the parameters of such a tick; pumped is what became of it, nil if there was none.
// Then a hint is needed, as without Follow.
func (p *Pump) Follow(do func(turn store.Turn) (pumped *store.Pumped, err error)) error {
	taken := false
	pumped, err := do(func() (store.PumpParams, bool) {
		select {
		case p.turn <- struct{}{}:
			taken = true
		default:
		}
		if !taken || !p.idle || p.ended.Load() {
			return store.PumpParams{}, false
		}
		p.idle = false
		return store.PumpParams{Owner: p.owner, Room: p.starter.Room(), Links: followingLinks}, true
	})
	if !taken {
		return err
	}
	defer func() { <-p.turn }()
	if pumped != nil {
		p.start(pumped)
		p.idle = rests(pumped)
	}
	if !p.idle {
		p.Wake() // the loop goes on
	}
	return err
}

// rests: nothing is left to do after a tick, until there is a hint.
func rests(pumped *store.Pumped) bool { return !pumped.More && !pumped.Starved && !pumped.Uncounted }

// start hands on what a tick has found.
func (p *Pump) start(pumped *store.Pumped) {
	if len(pumped.Claims) > 0 {
		p.starter.Start(pumped.Claims)
	}
	if pumped.Outbox {
		p.onOutbox()
	}
}

func (p *Pump) tick(ctx context.Context) next {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return next{}
	}
	defer func() { <-p.turn }()
	p.idle = false
	select {
	case <-p.hint: // this tick is what it asks for
	default:
	}
	room := p.starter.Room()
	begun := time.Now()
	pumped, err := p.store.Pump(ctx, store.PumpParams{Owner: p.owner, Room: room, Fetch: p.fetch, Links: p.links})
	if err != nil {
		return next{sleep: p.fail(ctx, err)}
	}
	if p.failed > 0 {
		p.failed = 0
		p.log.Info("pump: works again")
	}
	if pumped.Busy {
		pause := p.busy
		p.busy = min(2*p.busy, maxBusy)
		return next{sleep: pause}
	}
	p.busy = minBusy
	p.idle = rests(&pumped)
	p.start(&pumped)
	p.setFetch(pumped.Blocked)
	p.setLinks(pumped.Propagated, time.Since(begun))
	p.uncounted = pumped.Uncounted
	p.notifyOwed = pumped.Starved
	p.notify(ctx)
	// What was freed while the pump was at it may have been freed before it became short, so that nobody was told.
	again := pumped.More || pumped.Starved && eased(room, pumped.Claims, p.starter.Room())
	return next{again: again}
}

// fail logs the first of a row of errors and returns how long to wait.
func (p *Pump) fail(ctx context.Context, err error) time.Duration {
	if p.failed == 0 {
		p.failed = minFailed
		if ctx.Err() == nil {
			p.log.Error("pump: failing, will go on trying", "error", err)
		}
	}
	pause := p.failed
	p.failed = min(2*p.failed, maxFailed)
	return pause
}

// setFetch looks at more while everything that was looked at is held back by rules: what may start stands behind it.
func (p *Pump) setFetch(blocked bool) {
	switch {
	case !blocked:
		p.fetch = 0
	case p.fetch == 0:
		p.fetch = minFetch
	default:
		p.fetch = min(2*p.fetch, maxFetch)
	}
}

// setLinks folds less at a time while that takes long, and more while it does not.
func (p *Pump) setLinks(folded map[task.Status]int, took time.Duration) {
	n := 0
	for _, of := range folded {
		n += of
	}
	switch {
	case n < p.links: // that took so long for another reason
	case took > longTick:
		p.links = max(p.links/2, minLinks)
	case took < shortTick:
		p.links = min(2*p.links, maxLinks)
	}
}

// notify tells other processes of work that this one cannot take, if that is owed and was not done just now.
func (p *Pump) notify(ctx context.Context) {
	if !p.notifyOwed || time.Since(p.notified) < notifyEvery {
		return
	}
	p.notifyOwed, p.notified = false, time.Now()
	if err := p.store.Notify(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("pump: cannot notify other processes", "error", err)
	}
}

// eased reports whether room that was used up once claims had been taken from it is there again.
func eased(before task.Room, claims []store.Claim, now task.Room) bool {
	before = before.Own()
	for i := range claims {
		before.Take(claims[i].Host)
	}
	return before.Eased(now)
}

// await waits for a hint, or until rules that could not be counted are to be looked at again. It sends a notification that
// comes due meanwhile.
func (p *Pump) await(ctx, work context.Context) {
	var uncounted <-chan time.Time
	if p.uncounted {
		uncounted = time.After(uncountedEvery)
	}
	if p.notifyOwed {
		if !wait(ctx, p.hint, time.Until(p.notified.Add(notifyEvery))) {
			return
		}
		p.notify(work)
	}
	select {
	case <-uncounted:
	case <-p.hint:
	case <-ctx.Done():
	}
}

// wait is false when ctx ended or a hint came before the time was up.
func wait(ctx context.Context, hint <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-hint:
	case <-ctx.Done():
	}
	return false
}
