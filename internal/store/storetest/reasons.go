package storetest

import (
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// compareReasons wants what Explain says of k to be what keeps it from starting in the model, no more and no less. Before
// the store has caught up that is so of those at work.
func (s *simulation) compareReasons(k *modelTask) {
	why := s.explain(k.Task)
	if !s.caughtUp {
		for i, r := range k.Rules {
			g, used := &why.Gates[i], s.m.used(k, r)
			if r.Matcher.Status == task.Running && g.Counted && g.Used != used {
				s.Fatalf("%s: %d of %+v are used; in the model %d", k.LocalID, g.Used, r, used)
			}
		}
		return
	}
	if got, want := why.MayStart(), !k.holds && !k.status.Terminal(); got != want {
		s.Fatalf("%s may start: %t; in the model: %t", k.LocalID, got, want)
	}
	if !why.MayStart() {
		return
	}
	var unmet []task.ID
	for _, d := range k.Dependencies {
		if !s.m.byID[d.Parent].status.Terminal() {
			unmet = append(unmet, d.Parent)
		}
	}
	var named []task.ID
	for _, p := range why.Unmet {
		named = append(named, p.ID)
	}
	if slices.SortFunc(unmet, compareIDs); !slices.Equal(unmet, named) {
		s.Fatalf("%s waits for %v; in the model for %v", k.LocalID, named, unmet)
	}
	for i, r := range k.Rules {
		g := &why.Gates[i]
		if used := s.m.used(k, r); g.Counted && g.Used != used {
			s.Fatalf("%s: %d of %+v are used; in the model %d", k.LocalID, g.Used, r, used)
		}
		// What is not Pending yet will be when it starts: a rule about those is left out.
		if r.Matcher.Status == task.Pending && k.status != task.Pending {
			continue
		}
		if g.Counted && why.HoldsBack(i) != s.m.forbids(k, r) {
			s.Fatalf("%s is held back by %+v: %t; in the model: %t", k.LocalID, r, why.HoldsBack(i), s.m.forbids(k, r))
		}
	}
}

// freeOne takes what Explain names out of the way of a task that has not started, until it does; false: there is none.
func (s *simulation) freeOne() bool {
	i := slices.IndexFunc(s.m.tasks, func(k *modelTask) bool { return !k.holds && !k.status.Terminal() })
	if i < 0 {
		return false
	}
	s.free(s.m.tasks[i])
	return true
}

func (s *simulation) free(k *modelTask) {
	rounds := 3 + 2*len(s.m.tasks) // what is done for one reason may be another
	for range rounds {
		why := s.explain(k.Task)
		if !why.MayStart() {
			return
		}
		s.settleModel(setPriority(k.Task, 1000)) // others must not take what becomes free
		reasons := s.remove(k, why)
		s.m.propagate()
		for s.pumpModel(store.PumpParams{Owner: s.owner, Room: ample()}) {
		}
		if !reasons && !k.holds && !k.status.Terminal() {
			s.Fatalf("%s does not start, and no reason is named: %+v", k.LocalID, why)
		}
	}
	s.Fatalf("%s does not start though all that was named was taken out of its way, again and again", k.LocalID)
}

// remove takes out of the way of k what is named; false: nothing is.
func (s *simulation) remove(k *modelTask, why *store.Situation) (named bool) {
	if why.State.Status == task.Paused {
		s.settleModel(resume(k.Task))
		named = true
	}
	for _, p := range why.Unmet {
		parent := s.m.byID[p.ID]
		s.free(parent)
		if parent.holds {
			s.settleModel(end(p.ID, task.Success))
		}
		named = true
	}
	if k.status.Terminal() { // a parent has failed on the way
		return true
	}
	for i := range why.Gates {
		if why.HoldsBack(i) {
			s.makeRoom(k, why, i)
			named = true
		}
	}
	return named
}

// makeRoom does what lets the rule of k allow its start.
func (s *simulation) makeRoom(k *modelTask, why *store.Situation, rule int) {
	g := &why.Gates[rule]
	n := g.Used - g.Limit + 1
	if g.Shape.Status.Terminal() {
		s.settleModel(task.Outcome{ID: k.ID, Kind: task.EditRules}) // an end is final
		return
	}
	if n > len(g.Holders) && g.Shape.Type == task.Concurrency {
		s.Fatalf("%d must go, and only %v are named", n, g.Holders)
	}
	for _, id := range g.Holders {
		holder := s.m.byID[id]
		switch {
		case n <= 0 || id == k.ID || holder.status.Terminal():
			continue
		case g.Shape.Type == task.Capacity:
			left := *holder.ExpectedCount - holder.count
			s.settleModel(count(id, left, 0))
			n -= int(left)
			continue
		case g.Shape.Status == task.Running:
			s.settleModel(end(id, task.Success))
		default:
			s.settleModel(cancel(holder.Task))
		}
		n--
	}
}
