package postgres

import (
	"slices"

	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// lane is what a tick reads of the queue of a host.
type lane struct {
	host string
	head spot
	most int // how many of its tasks the tick may look at
	n    int // how many of them it reads
}

// choose says which lanes a tick reads that looks at the first total tasks, with up to most(host) of each host. What that costs
// depends on total, not on the number of hosts: the first total tasks are of those total lanes with the first heads. The later ones
// of these rarely have many among them, so less is read of them: enough for 2·√(2·total) tasks, whoever has them, and for nearly all
// where they are spread evenly. The next tick finds what [pass.first] has to leave out therefore.
func (p *pass) choose(most func(host string) int, total int) {
	for q, s := range p.heads {
		if n := most(q.host); n > 0 && q == readyOf(q.host) {
			p.lanes = append(p.lanes, lane{host: q.host, head: s, most: n})
		}
	}
	slices.SortFunc(p.lanes, func(a, b lane) int { return a.head.compare(b.head) })
	if len(p.lanes) > total {
		p.left, p.more = &p.lanes[total].head, 1
		p.lanes = p.lanes[:total]
	}
	for k := range p.lanes {
		l := &p.lanes[k]
		l.n = min(l.most, total, 2*total/(k+1)+4)
	}
	p.total = total
}

// asked is how many are asked for, of all lanes.
func (p *pass) asked() int { return p.total + p.more*len(p.lanes) }

// first are those to look at: as long as nobody who was not read may come before them. cut: somebody may stand behind them.
func (p *pass) first() (found []store.Found, cut bool) {
	lanes := make(map[string]lane, len(p.lanes)) // less what is found
	for _, l := range p.lanes {
		lanes[l.host] = l
	}
	for i := range p.found {
		f := &p.found[i]
		l := lanes[f.Facts.Host]
		if len(found) == p.total || p.left != nil && p.left.before(spotOf(f.Facts.ID, f.Facts.Priority)) {
			return found, true
		}
		if l.n > 0 {
			found = append(found, *f)
			l.n, l.most = l.n-1, l.most-1
			lanes[l.host] = l
			if l.n == 0 && l.most > 0 {
				return found, true
			}
		}
	}
	return found, p.left != nil
}

// advance moves the heads of the lanes that were read to the first task there that stays. If as many were found as were asked for,
// there may be others behind the last of them.
func (p *pass) advance(takes []store.ReadyKey) {
	if len(p.lanes) == 0 {
		return
	}
	gone := make(map[task.ID]bool, len(takes))
	for _, k := range takes {
		gone[k.ID] = true
	}
	seen, last, end := map[string]int{}, map[string]spot{}, spot{}
	for i := range p.found {
		f := &p.found[i].Facts
		end = spotOf(f.ID, f.Priority)
		seen[f.Host], last[f.Host] = seen[f.Host]+1, end
	}
	for _, l := range p.lanes {
		switch q := readyOf(l.host); {
		case seen[l.host] == l.n+p.more:
			p.heads[q] = last[l.host]
		case len(p.found) < p.asked():
			delete(p.heads, q)
		case l.head.before(end):
			p.heads[q] = end
		}
	}
	for i := range p.found {
		if f := &p.found[i].Facts; !gone[f.ID] {
			p.heads.lower(readyOf(f.Host), spotOf(f.ID, f.Priority))
		}
	}
}
