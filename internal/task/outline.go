package task

import "slices"

// Outline says what a batch comes to before anything of it runs. Tasks are told by their places in request order.
type Outline struct {
	// Links counts the dependencies.
	Links int
	// Waves are those of [Graph.Waves], and LongestPath is that of [Graph.LongestPath]: as long as there are waves.
	Waves       [][]int
	LongestPath []int
	// Limits are what the rules say, each gate with each maximum once, in the order in which they are first named.
	Limits []Limit
	// LimitsOmitted counts the rules that are not in Limits, because they are of other than the first [MaxOutlineShapes]
	// shapes.
	LimitsOmitted int
}

// MaxOutlineShapes bounds the work of an outline: every task of a kind is looked at for every shape of that kind.
const MaxOutlineShapes = 100

// Limit is a rule with the values of the tasks that carry it.
type Limit struct {
	Shape Shape
	Gate  Gate
	Max   int
	// Tasks counts those of the batch that are counted at the gate once they are in its status, with or without a rule of
	// their own.
	Tasks int
	// AtOnce is how much of the gate they may use at the same time, at most: how many of Tasks, or how much work they
	// bring. A task never runs together with one that it depends on, so where the status is Running the tasks are laid into
	// chains along direct dependencies, and of each chain only one counts, the one that brings most. It may be more than
	// there can be, since dependencies by way of tasks that do not count here are not followed; never less.
	AtOnce int
	// least is what the chain brings that brings least; 0 if a task of another kind carries the rule, which is in no chain.
	least int
}

// Binds reports whether the limit may hold a task of the batch back. If not, the batch alone never will; tasks of other
// batches count at the gate as well. It is the same for a rule that counts another kind than that of its own task: such a
// task starts while no more than Max are running, so only more than Max hold it back. A rule of Capacity holds a task back
// when those that may run beside it bring Max.
func (l *Limit) Binds() bool {
	if l.Shape.Type == Capacity {
		return l.AtOnce-l.least >= l.Max
	}
	return l.AtOnce > l.Max
}

// Outline outlines b, which [ParseBatch] has checked.
func (b *Batch) Outline() Outline {
	places := make(map[ID]int, len(b.Tasks))
	for i, t := range b.Tasks {
		places[t.ID] = i
	}
	var o Outline
	var g Graph
	for _, t := range b.Tasks {
		var parents []int
		for _, d := range t.Dependencies {
			if parent, ok := places[d.Parent]; ok {
				parents = append(parents, parent)
			}
		}
		o.Links += len(t.Dependencies)
		g.Add(parents...)
	}
	o.Waves = g.Waves()
	o.LongestPath = g.LongestPath(o.Waves)
	limits := outliner{tasks: b.Tasks, shapes: map[ShapeID]bool{}, kinds: map[string][]Shape{}, gates: map[Gate]*crowd{}}
	o.LimitsOmitted = limits.find()
	limits.count(&g, o.Waves)
	o.Limits = limits.list
	for i := range o.Limits {
		l, gate := &o.Limits[i], limits.gates[o.Limits[i].Gate]
		l.Tasks, l.AtOnce = len(gate.tasks), sum(gate.chains)
		if len(gate.chains) > 0 && !gate.foreign {
			l.least = slices.Min(gate.chains)
		}
	}
	return o
}

// outliner collects the limits of a batch and who counts there.
type outliner struct {
	tasks  []*Task
	list   []Limit
	shapes map[ShapeID]bool
	kinds  map[string][]Shape // the shapes that count a kind
	gates  map[Gate]*crowd
}

// crowd are the tasks that count at a gate, parents before children.
type crowd struct {
	shape  Shape
	tasks  []int
	chains []int // the most that a task of each brings
	// foreign: a task of another kind carries a rule about it.
	foreign bool
}

// weight is what a task brings.
func (c *crowd) weight(t *Task) int {
	if c.shape.Type == Capacity {
		return new(State).Left(t.ExpectedCount)
	}
	return 1
}

// find lists the limits, and returns how many rules it left out.
func (o *outliner) find() (omitted int) {
	type limit struct {
		gate Gate
		max  int
	}
	known := map[limit]bool{}
	for _, t := range o.tasks {
		if len(t.Rules) == 0 {
			continue
		}
		md := ParseMetadata(t.Metadata)
		for _, rule := range t.Rules {
			shape := rule.Shape()
			gate, ok := shape.Gate(md)
			if at := o.gates[gate]; at != nil && t.Kind != shape.Kind {
				at.foreign = true
			}
			switch {
			case !ok || known[limit{gate, rule.Max}]:
				continue
			case !o.shapes[shape.ID] && len(o.shapes) == MaxOutlineShapes:
				omitted++
				continue
			case !o.shapes[shape.ID]:
				o.shapes[shape.ID] = true
				o.kinds[shape.Kind] = append(o.kinds[shape.Kind], shape)
			}
			known[limit{gate, rule.Max}] = true
			if o.gates[gate] == nil {
				o.gates[gate] = &crowd{shape: shape, foreign: t.Kind != shape.Kind}
			}
			o.list = append(o.list, Limit{Shape: shape, Gate: gate, Max: rule.Max})
		}
	}
	return omitted
}

// count finds who counts at the gates of the limits.
func (o *outliner) count(g *Graph, waves [][]int) {
	for _, wave := range waves {
		for _, i := range wave {
			t := o.tasks[i]
			for _, shape := range o.kinds[t.Kind] {
				gate, ok := shape.Gate(ParseMetadata(t.Metadata))
				if at := o.gates[gate]; ok && at != nil {
					at.tasks = append(at.tasks, i)
				}
			}
		}
	}
	ends := make([]chain, len(o.tasks)) // which chain a task is the last one of, so far
	for _, at := range o.gates {
		for _, i := range at.tasks {
			ends[i] = at.add(at.weight(o.tasks[i]), g.Parents(i), ends)
		}
	}
}

// chain is one of a crowd's. The zero value is none.
type chain struct {
	at *crowd
	i  int
}

// add makes the next task of the crowd go on with the chain of one of its parents, or begin one.
func (c *crowd) add(weight int, parents []int, ends []chain) chain {
	for _, parent := range parents {
		if end := ends[parent]; end.at == c && c.shape.Status == Running {
			ends[parent] = chain{}
			c.chains[end.i] = max(c.chains[end.i], weight)
			return end
		}
	}
	c.chains = append(c.chains, weight)
	return chain{c, len(c.chains) - 1}
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}
