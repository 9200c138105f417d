package store

import (
	"fmt"
	"slices"

	"taskrunner/internal/task"
)

// Wanted makes candidates of all that may start, and names the gates that are to be loaded for them.
func (t *Tick) Wanted() []task.GateID {
	for _, w := range t.waiting {
		c, ok := t.candidate(w)
		if !ok {
			t.keep(c)
			t.more = true
			continue
		}
		t.candidates = append(t.candidates, c)
	}
	var ids []task.GateID
	for _, id := range t.order {
		if !t.gates[id].stored {
			ids = append(ids, id)
		}
	}
	return ids
}

// candidate is false when the shape of a rule was committed after this tick read them.
func (t *Tick) candidate(w *waiting) (*task.Candidate, bool) {
	f := w.facts
	c := &task.Candidate{ID: f.ID, Priority: f.Priority, Host: f.Host}
	rules := t.shapes.rules(f.Rules)
	shapes := t.shapes.ofKind(f.Kind, t.NewShapes)
	if len(rules) == 0 && len(shapes) == 0 {
		return c, true
	}
	md := task.ParseMetadata(f.Metadata)
	for _, s := range shapes {
		if s.Tallied() {
			continue
		}
		if g, ok := s.Gate(md); ok {
			t.want(g)
			c.Counts = append(c.Counts, g.ID)
		}
	}
	c.Loads = t.loads(f, w.state, md)
	for _, r := range rules {
		check, ok := r.Check(f.Kind, md)
		if !ok {
			continue // validated when it came in
		}
		known := t.shapes.known(check.Gate.Shape, t.NewShapes)
		walked := !known && slices.ContainsFunc(t.NewTallies, func(n NewTally) bool { return n.ID == check.Gate.Shape })
		if !known && !walked {
			return c, false
		}
		t.want(check.Gate)
		c.Checks = append(c.Checks, check)
		if walked || t.late && r.Shape().Tallied() {
			c.Unjudged = &check
		}
	}
	return c, true
}

// Admit takes the gates that Wanted named, as far as they are stored, and finishes the plan.
func (t *Tick) Admit(gates []GateRow) error {
	for _, row := range gates {
		g := t.gates[row.ID]
		g.other = g.Shape != row.Shape || g.Values != row.Values
		g.GateRow, g.before, g.stored = row, row, true
		t.used[row.ID] += row.Used
	}
	// Two keys with one hash: it takes somebody who looks for them. Only their own tasks do not start.
	t.candidates = slices.DeleteFunc(t.candidates, func(c *task.Candidate) bool {
		return slices.ContainsFunc(c.Counts, func(id task.GateID) bool { return t.gates[id].other }) ||
			slices.ContainsFunc(c.Loads, func(l task.Load) bool { return t.gates[l.Gate].other }) ||
			slices.ContainsFunc(c.Checks, func(k task.Check) bool { return t.gates[k.Gate.ID].other })
	})
	a := task.Admit(t.candidates, t.used, t.Params.Room)
	for _, c := range a.Start {
		if err := t.start(c); err != nil {
			return err
		}
	}
	for _, p := range a.Park {
		t.park(p)
	}
	for _, c := range a.Keep {
		t.keep(c)
		// Others have just taken the room of its host; the next tick passes it over and looks who stands behind it.
		t.more = t.more || t.waiting[c.ID].from == parked && len(a.Start) < t.Params.Room.Total
	}
	t.finishGates()
	t.Changes.States = make([]task.State, len(t.changed))
	for i, s := range t.changed {
		t.Changes.States[i] = *s
	}
	t.finishResult(a)
	return nil
}

func (t *Tick) start(c *task.Candidate) error {
	w := t.waiting[c.ID]
	actions, err := task.ParseActions(w.facts.OnStart)
	if err != nil {
		return fmt.Errorf("on_start of task %s: %w", c.ID, err)
	}
	if len(actions) != 1 {
		return fmt.Errorf("on_start of task %s: %d actions", c.ID, len(actions))
	}
	w.state.Claim(t.Now)
	t.moved(task.Pending, w.state)
	t.leave(w)
	if w.from != freed {
		t.changed = append(t.changed, w.state)
	}
	t.Claim = append(t.Claim, ClaimRow{ID: c.ID, Gates: c.Counts, Check: t.Now.Add(w.state.Timeout)})
	if t.tallied(w.state.Kind) { // it is no longer what it was when its tallies were found
		t.Changes.Tally = append(t.Changes.Tally, c.ID)
	}
	for _, l := range c.Loads {
		if l.N > 0 {
			t.SetTallies = append(t.SetTallies, TallyRow{c.ID, l.Gate, l.N})
		}
	}
	t.Result.Claims = append(t.Result.Claims, Claim{ID: c.ID, Attempt: w.state.Attempt, Host: c.Host, Action: actions[0]})
	return nil
}

// leave takes a task out of where it was found.
func (t *Tick) leave(w *waiting) {
	switch w.from {
	case lined:
		t.Unready = append(t.Unready, ReadyKey{w.facts.ID, w.facts.Host, w.facts.Priority})
	case parked:
		t.Unpark = append(t.Unpark, w.facts.ID)
		t.gates[w.gate].moved = true
	}
}

func (t *Tick) park(p task.Parking) {
	g, w := t.gates[p.Gate.ID], t.waiting[p.ID]
	delete(g.drain, p.Lane) // somebody is in it
	if !slices.Contains(g.Lanes, p.Lane) {
		g.Lanes = append(slices.Clone(g.Lanes), p.Lane)
		slices.Sort(g.Lanes)
	}
	switch {
	case w.from == parked && w.gate == p.Gate.ID && w.lane == p.Lane:
		return
	case w.from == parked:
		t.gates[w.gate].moved = true
	default:
		t.leave(w)
	}
	t.Park = append(t.Park, ParkRow{p.ID, p.Gate.ID, p.Lane, w.facts.Host, w.facts.Priority})
	t.Result.Parked++
}

// keep leaves a task where it is: in ready, where it is found as soon as its host has room; or parked, at a gate that
// stays dirty.
func (t *Tick) keep(c *task.Candidate) {
	switch w := t.waiting[c.ID]; w.from {
	case freed:
		t.Lined = append(t.Lined, ReadyKey{w.facts.ID, w.facts.Host, w.facts.Priority})
	case parked:
		delete(t.gates[w.gate].drain, w.lane)
	}
}
