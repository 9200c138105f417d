package task

import (
	"cmp"
	"slices"
)

// Lane is a place to park at a gate. Its absolute value is the limit: tasks there may start while less than that much of
// the gate is used. It is negative for checks that are Inclusive: these tasks add nothing to the gate when they start, so
// that once there is room all of them may go.
type Lane int

// Limit is how much of the gate is used when the lane is held back.
func (l Lane) Limit() int { return max(int(l), -int(l)) }

// Candidate is a Pending task that may start now.
type Candidate struct {
	ID       ID
	Priority int
	// Host is where its on_start goes.
	Host string
	// Checks are its own rules. All of them must have room.
	Checks []Check
	// Counts are the gates at which it takes a slot when it starts, with or without rules of its own; Loads is what it
	// adds to gates of Capacity then.
	Counts []GateID
	Loads  []Load
	// Unjudged is one of Checks of which nobody knows yet how much is used; nil: there is none. The task waits there.
	Unjudged *Check
}

// Load is what a task adds to a gate of Capacity.
type Load struct {
	Gate GateID
	N    int // may be 0
}

func (c *Candidate) before(d *Candidate) int {
	return cmp.Or(cmp.Compare(d.Priority, c.Priority), slices.Compare(c.ID[:], d.ID[:]))
}

func (c *Check) lane() Lane {
	if c.Inclusive {
		return Lane(-c.Limit)
	}
	return Lane(c.Limit)
}

// heldAt is the check at which c has to wait; nil: none.
func (c *Candidate) heldAt(used map[GateID]int) *Check {
	if c.Unjudged != nil {
		return c.Unjudged
	}
	for i := range c.Checks {
		if k := &c.Checks[i]; used[k.Gate.ID] >= k.Limit {
			return k
		}
	}
	return nil
}

// Room is how many more on_start requests may go out. The zero value is none.
type Room struct {
	// Total counts over all hosts, PerHost is the window of each host.
	Total   int
	PerHost int
	// Busy is how much of its window a host uses; a host that is not there uses none.
	Busy map[string]int
}

// Host is how many more may go to host.
func (r Room) Host(host string) int {
	return max(0, min(r.Total, r.PerHost-r.Busy[host]))
}

// Parking is the gate that holds a task back, and the lane to wait in.
type Parking struct {
	ID   ID
	Gate Gate
	Lane Lane
}

// Admission is what becomes of candidates: each is in exactly one of the three.
type Admission struct {
	Start []*Candidate
	Park  []Parking
	// Keep could start as far as rules go but finds no room; they stay ready.
	Keep []*Candidate
}

// Admit decides which candidates start, by priority and then age. used is how much of each gate is taken; it is raised by
// those that start, so that it holds afterwards. Nobody is held up by one that is held back.
func Admit(candidates []*Candidate, used map[GateID]int, room Room) Admission {
	slices.SortFunc(candidates, (*Candidate).before)
	var a Admission
	total, hosts := room.Total, map[string]int{}
	for _, c := range candidates {
		if check := c.heldAt(used); check != nil {
			a.Park = append(a.Park, Parking{c.ID, check.Gate, check.lane()})
			continue
		}
		if total <= 0 || hosts[c.Host] >= room.Host(c.Host) {
			a.Keep = append(a.Keep, c)
			continue
		}
		total--
		hosts[c.Host]++
		for _, g := range c.Counts {
			used[g]++
		}
		for _, l := range c.Loads {
			used[l.Gate] += l.N
		}
		a.Start = append(a.Start, c)
	}
	return a
}
