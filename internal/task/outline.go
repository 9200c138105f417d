package task

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
	// Tasks counts those of the batch that take a slot at the gate while they run, with or without a rule of their own.
	Tasks int
	// AtOnce is how many of Tasks may want to run at the same time, at most. A task never does together with one that it
	// depends on, so the tasks are laid into chains along direct dependencies, and each chain counts once. It may be more
	// than there can be, since dependencies by way of tasks that do not count here are not followed; never less.
	AtOnce int
}

// Binds reports whether the limit may hold a task of the batch back. If not, the batch alone never will; tasks of other
// batches count at the gate as well. It is the same for a rule that counts another kind than that of its own task: such a
// task starts while no more than Max are running, so only more than Max hold it back.
func (l *Limit) Binds() bool { return l.AtOnce > l.Max }

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
		l.Tasks, l.AtOnce = len(gate.tasks), gate.chains
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
	tasks  []int
	chains int
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
			shape := rule.Matcher.Shape()
			gate, ok := shape.Gate(md)
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
			o.gates[gate] = &crowd{}
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
	ends := make([]*crowd, len(o.tasks)) // where a task is the last one of a chain so far
	for _, at := range o.gates {
		for _, i := range at.tasks {
			at.chains++
			for _, parent := range g.Parents(i) {
				if ends[parent] == at {
					ends[parent] = nil
					at.chains-- // it goes on with the chain of its parent
					break
				}
			}
			ends[i] = at
		}
	}
}
