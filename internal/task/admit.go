package task

import (
	"cmp"
	"maps"
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

// Room is how many more requests may go out. The zero value is none.
type Room struct {
	// Total counts over all hosts, PerHost is the window of each host.
	Total   int
	PerHost int
	// Window is what Total is while nothing is out. A host may have as large a part of what the others leave of it as
	// PerHost is of Window: so there is room for another host however many hang, and those that want more than there is
	// share alike. 0: there is nothing to share, whoever comes first has what is left of Total.
	Window int
	// Busy is how much of its window a host uses; a host that is not there uses none.
	Busy map[string]int
	// Shut hosts have no more than that, whatever their window says: they fail, or their breakers are not closed.
	Shut map[string]int
}

// Host is how many more may go to host.
func (r Room) Host(host string) int {
	n := min(r.Total, r.Share(r.Busy[host])-r.Busy[host])
	if most, shut := r.Shut[host]; shut {
		n = min(n, most)
	}
	return max(0, n)
}

// Share is how many a host may have that has busy. It is at least 1 while there is any room.
func (r Room) Share(busy int) int {
	if r.Window <= 0 {
		return r.PerHost
	}
	return min(r.PerHost, (r.PerHost*(r.Total+busy)+r.Window-1)/r.Window)
}

// Apart are the hosts for which there may be less room than for others.
func (r Room) Apart() []string {
	hosts := slices.AppendSeq(make([]string, 0, len(r.Busy)+len(r.Shut)), maps.Keys(r.Busy))
	for host := range r.Shut {
		if _, busy := r.Busy[host]; !busy {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// ByHost is what [Room.Host] says of those Apart.
func (r Room) ByHost() map[string]int {
	room := map[string]int{}
	for _, host := range r.Apart() {
		room[host] = r.Host(host)
	}
	return room
}

// Own is a copy that may be changed.
func (r Room) Own() Room {
	r.Busy, r.Shut = maps.Clone(r.Busy), maps.Clone(r.Shut)
	if r.Busy == nil {
		r.Busy = map[string]int{}
	}
	return r
}

// Take gives a place to host. r must be the caller's own.
func (r *Room) Take(host string) {
	r.Total--
	r.Busy[host]++
	if _, shut := r.Shut[host]; shut {
		r.Shut[host]--
	}
}

// Short reports whether there is no room left, over all or at some host, but for those that are shut.
func (r Room) Short() bool { return r.Eased(Room{Total: 1, PerHost: 1}) }

// Eased reports whether somebody for whom r has no room finds some in now. Whoever is shut in either does not count.
func (r Room) Eased(now Room) bool {
	if now.Total <= 0 {
		return false
	}
	if r.Total <= 0 {
		return true
	}
	for host := range r.Busy {
		_, shut := r.Shut[host]
		if !shut && r.Host(host) == 0 && now.Host(host) > 0 {
			return true
		}
	}
	return false
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
	room = room.Own()
	for _, c := range candidates {
		if check := c.heldAt(used); check != nil {
			a.Park = append(a.Park, Parking{c.ID, check.Gate, check.lane()})
			continue
		}
		if room.Host(c.Host) == 0 {
			a.Keep = append(a.Keep, c)
			continue
		}
		room.Take(c.Host)
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
