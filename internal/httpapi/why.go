package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"taskrunner/api"
	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// why is all that is known of a task that does not run. What it makes of that is decided here, and depends on nothing
// else.
type why struct {
	*store.Situation
	room                 task.Room // of this process
	target               task.HostState
	failures, lastStatus int // of on_start, as far as this process sends it
	lastError            string
}

func (w *why) explanation() api.Explanation {
	e := api.Explanation{
		ID: w.Task.ID.String(), Status: statusName(w.State.Status), At: at(w.Now), Sentence: w.sentence(), ToStart: w.toStart(),
		Unmet: w.unmet(), Rules: make([]api.RuleState, len(w.Gates)),
		Host: api.HostState{
			Name: w.host(), InFlight: w.target.InFlight, Queued: w.target.Queued, Window: w.room.PerHost, Breaker: breaker(&w.target),
		},
	}
	sent := rules(w.Task.Rules)
	for i := range w.Gates {
		e.Rules[i] = w.rule(i)
		e.Rules[i].Rule = sent[i]
	}
	s := &w.State
	if s.Status == task.Pending && w.Parked == nil {
		e.Host.Place = w.place()
	}
	if s.HoldsSlots() && s.StartedAt.IsZero() {
		e.Start = &api.StartState{
			ClaimedAt: at(s.ClaimedAt), Attempt: s.Attempt, Failures: w.failures, LastStatus: orNil(w.lastStatus),
			LastError: orNil(w.lastError),
		}
	}
	if s.Status == task.Running {
		e.Deadline = at(s.Deadline())
	}
	return e
}

func (w *why) host() string { return store.Host(w.Task.OnStart) }

func (w *why) unmet() api.Unmet {
	u := api.Unmet{Count: w.unmetCount(), Tasks: []api.UnmetTask{}}
	if w.MayStart() {
		for _, p := range w.Unmet {
			u.Tasks = append(u.Tasks, api.UnmetTask{
				ID: p.ID.String(), Name: p.Name, Status: statusName(p.Status), RequiresSuccess: p.RequiresSuccess,
			})
		}
	}
	return u
}

// unmetCount counts the parents that have not ended. While there are more than are listed, those that ended just now
// count, too.
func (w *why) unmetCount() int {
	switch {
	case !w.MayStart():
		return 0
	case len(w.Unmet) < store.MaxUnmet:
		return len(w.Unmet)
	}
	return w.State.Unmet
}

func (w *why) rule(i int) api.RuleState {
	g := &w.Gates[i]
	r := api.RuleState{
		Gate: gate(&g.Shape, g.Gate.Values), Max: w.Task.Rules[i].Max, HoldsBack: w.HoldsBack(i), Holders: []string{},
	}
	if g.Counted {
		r.Used, r.Load = usage(&g.Shape, g.Used)
		for _, id := range g.Holders {
			r.Holders = append(r.Holders, id.String())
		}
	}
	if w.Parked != nil && *w.Parked == g.Gate.ID {
		r.Place = w.place()
	}
	return r
}

// held are the places of the rules that hold it back.
func (w *why) held() (held []int) {
	for i := range w.Gates {
		if w.HoldsBack(i) {
			held = append(held, i)
		}
	}
	return held
}

// uncounted: a rule of it is new.
func (w *why) uncounted() bool {
	for i := range w.Gates {
		if !w.Gates[i].Counted {
			return true
		}
	}
	return false
}

func (w *why) place() *api.Place {
	if w.Ahead > store.MaxAhead {
		return &api.Place{Number: store.MaxAhead, MoreThan: true}
	}
	return &api.Place{Number: w.Ahead + 1}
}

func (w *why) sentence() string {
	s := &w.State
	switch s.Status {
	case task.Waiting:
		return w.waiting()
	case task.Pending:
		return w.pending()
	case task.Claimed:
		return w.claimed()
	case task.Running:
		if deadline := s.Deadline(); w.Now.After(deadline) {
			return "It runs, but has not reported in time; it is about to fail with a time-out."
		}
		return fmt.Sprintf("It runs since %s; without another report it times out at %s.", moment(s.StartedAt), moment(s.Deadline()))
	case task.Paused:
		if s.HoldsSlots() {
			return "It is paused while its worker may be at work; it keeps its slots, and its time-out stands still."
		}
		return "It is paused, and does not start before it is resumed."
	case task.Success:
		return fmt.Sprintf("It ended in Success at %s.", moment(s.EndedAt))
	}
	reason := "."
	if s.FailureReason != "" {
		reason = ": " + s.FailureReason
	}
	return fmt.Sprintf("It ended in %s at %s%s", s.Status, moment(s.EndedAt), reason)
}

func (w *why) waiting() string {
	n := w.unmetCount()
	if n == 0 {
		return "Its parents have ended; the next tick of the pump lets it go on."
	}
	first := &w.Unmet[0]
	if n == 1 {
		return fmt.Sprintf("It waits for its parent %s, which is %s, to %s.", jsonread.Quote(first.Name), statusName(first.Status), goal(first))
	}
	return fmt.Sprintf("It waits for %d parents to end; the first is %s, which is %s.", n, jsonread.Quote(first.Name), statusName(first.Status))
}

func goal(p *store.UnmetParent) string {
	if p.RequiresSuccess {
		return "end in Success"
	}
	return "end"
}

func (w *why) pending() string {
	held := w.held()
	switch {
	case len(held) == 1:
		return "A rule holds it back: " + w.limited(held[0]) + w.inFront()
	case len(held) > 1:
		return fmt.Sprintf("%d rules hold it back; the first: %s%s", len(held), w.limited(held[0]), w.inFront())
	case w.uncounted():
		return "A rule of it is new; the pump still counts what there is already."
	case w.target.Breaker != task.BreakerClosed:
		return fmt.Sprintf("No rule holds it back, but its host %s is failing: %s.%s%s", w.host(), w.absent(), w.nextProbe(), w.inFront())
	case w.hostFull():
		return fmt.Sprintf("No rule holds it back, but its host %s has no room: %d of %d requests are on their way to it.%s",
			w.host(), w.room.Busy[w.host()], w.room.PerHost, w.inFront())
	case w.allFull():
		return "No rule holds it back, but as many requests are on their way as this process may send." + w.inFront()
	case w.shareTaken():
		return fmt.Sprintf("No rule holds it back, but its host %s has its share of the requests that this process may send: %d are on their way to it.%s",
			w.host(), w.room.Busy[w.host()], w.inFront())
	}
	return "Nothing holds it back; it starts with one of the next ticks of the pump." + w.inFront()
}

// limited says what a rule that holds it back has counted.
func (w *why) limited(i int) string {
	r, g := &w.Task.Rules[i], &w.Gates[i]
	same := ""
	if len(g.Shape.Fields) > 0 {
		same = " with the same " + strings.Join(g.Shape.Fields, ", ")
	}
	kind := jsonread.Quote(g.Shape.Kind) + same
	if r.Type == task.Capacity {
		return fmt.Sprintf("the tasks of kind %s at work have %d left to do, and it may start once that is less than %d.", kind, g.Used, r.Max)
	}
	what, allowed := "at work", fmt.Sprintf("it may start while no more than %d are", g.Limit-1)
	switch {
	case g.Shape.Status != task.Running:
		what = "in " + g.Shape.Status.String()
	case g.Shape.Kind == w.Task.Kind:
		allowed = fmt.Sprintf("no more than %d may be", r.Max)
	}
	return fmt.Sprintf("%s of kind %s%s %s, and %s.", counted(g.Used, "task"), kind, areOrIs(g.Used), what, allowed)
}

func areOrIs(n int) string {
	if n == 1 {
		return " is"
	}
	return " are"
}

func (w *why) inFront() string {
	switch {
	case w.Ahead > store.MaxAhead:
		return fmt.Sprintf(" More than %d tasks stand in front of it.", store.MaxAhead)
	case w.Ahead == 1:
		return " One task stands in front of it."
	case w.Ahead > 1:
		return fmt.Sprintf(" %d tasks stand in front of it.", w.Ahead)
	}
	return ""
}

// known: this process sends on_starts, so its windows say something.
func (w *why) known() bool { return w.room.PerHost > 0 }

// absent says how the host has failed.
func (w *why) absent() string {
	return fmt.Sprintf("%s in a row failed, the last with: %s", counted(w.target.Failures, "request"), w.target.LastError)
}

func (w *why) nextProbe() string {
	if w.target.NextProbe.IsZero() {
		return " A request to try it is next, or on its way."
	}
	return fmt.Sprintf(" It is tried again at %s.", moment(w.target.NextProbe))
}

func (w *why) hostFull() bool { return w.known() && w.room.Busy[w.host()] >= w.room.PerHost }

// shareTaken: the other hosts leave no more than it has.
func (w *why) shareTaken() bool {
	busy := w.room.Busy[w.host()]
	return w.known() && busy >= w.room.Share(busy)
}

func (w *why) allFull() bool { return w.known() && w.room.Total <= 0 }

func (w *why) claimed() string {
	switch {
	case w.Orphaned:
		return "It was claimed by a process that has died; another one takes it over and sends on_start again."
	case w.target.Breaker != task.BreakerClosed:
		return fmt.Sprintf("It was claimed, but its host %s is failing: %s.%s", w.host(), w.absent(), w.nextProbe())
	case w.failures > 0:
		last := w.lastError
		if w.lastStatus != 0 {
			last = "answer " + strconv.Itoa(w.lastStatus)
		}
		return fmt.Sprintf("It was claimed, but on_start has failed %s, last with: %s; it is sent again.", counted(w.failures, "time"), last)
	}
	return "It was claimed, and on_start is on its way; it runs as soon as that is accepted."
}

// shownParents is how many parents stand in ToStart one by one.
const shownParents = 5

// toStart is what has to happen, nearest first.
func (w *why) toStart() []string {
	list := []string{}
	s := &w.State
	if s.Status == task.Paused {
		list = append(list, "It is resumed: PATCH /task/resume/"+w.Task.ID.String())
	}
	if s.HoldsSlots() && s.StartedAt.IsZero() {
		return append(list, "on_start is answered with 2xx")
	}
	if !w.MayStart() {
		return list
	}
	for i := range w.Unmet[:min(len(w.Unmet), shownParents)] {
		p := &w.Unmet[i]
		list = append(list, fmt.Sprintf("Its parent %s (%s) has to %s", jsonread.Quote(p.Name), p.ID, goal(p)))
	}
	if more := w.unmetCount() - shownParents; more > 0 {
		list = append(list, counted(more, "more parent")+" must end")
	}
	for _, i := range w.held() {
		list = append(list, w.free(i))
	}
	switch {
	case s.Status != task.Pending:
	case len(list) > 0:
		if w.Ahead > 0 {
			list = append(list, "Those in front of it start first, unless it gets a higher priority")
		}
	case w.target.Breaker != task.BreakerClosed:
		list = append(list, "Its host answers a request again")
	case w.hostFull() || w.allFull() || w.shareTaken():
		list = append(list, "A request that is on its way is answered, so that there is room to send another")
	}
	return list
}

// free says what must happen for a rule to let it start.
func (w *why) free(i int) string {
	g := &w.Gates[i]
	n := g.Used - g.Limit + 1
	switch {
	case g.Shape.Type == task.Capacity:
		return fmt.Sprintf("%d of the work of %d at rules[%d] is done", n, g.Used, i)
	case g.Shape.Status.Terminal():
		return fmt.Sprintf("rules[%d] is edited: the %d tasks in %s that it counts stay so", i, g.Used, g.Shape.Status)
	case g.Shape.Status != task.Running:
		return fmt.Sprintf("%d of the %d tasks in %s that rules[%d] counts leave it", n, g.Used, g.Shape.Status, i)
	case n == g.Used && n == 1:
		return fmt.Sprintf("The task that holds the slot of rules[%d] ends", i)
	}
	return fmt.Sprintf("%d of the %d tasks that hold a slot of rules[%d] end", n, g.Used, i)
}

// counted is "1 task", "2 tasks".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// moment is a time for people.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }
