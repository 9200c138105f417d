package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// atWork is how long each task under a rule is at work: long enough that one too many would be seen.
const atWork = 2 * time.Millisecond

// limits is tasks under rules: each has a key, and of each key so many may run at once.
type limits struct {
	name      string
	tasks     int
	keys, max int
	zipf      bool // the first keys are in much demand
	overall   int  // a second rule, over all keys; 0: none
	across    bool // every second task is of another kind, and has a rule about the first kind
}

func limitsVariants() []limits {
	return []limits{
		{name: "1-key-max-5", tasks: 20_000, keys: 1, max: 5},
		{name: "100-keys-max-1", tasks: 100_000, keys: 100, max: 1},
		{name: "100-keys-max-5", tasks: 500_000, keys: 100, max: 5},
		{name: "10000-keys-max-5-zipf", tasks: 500_000, keys: 10_000, max: 5, zipf: true},
		{name: "200000-keys-max-1", tasks: 500_000, keys: 200_000, max: 1},
		{name: "200000-keys-max-5-zipf", tasks: 500_000, keys: 200_000, max: 5, zipf: true},
		{name: "10000-keys-max-1-and-100-overall", tasks: 500_000, keys: 10_000, max: 1, overall: 100},
		{name: "10000-keys-max-5-across-kinds", tasks: 500_000, keys: 10_000, max: 5, across: true},
	}
}

// concurrency is a rule in the original's dialect.
func concurrency(kind, field string, most int) string {
	if field != "" {
		field = `"` + field + `"`
	}
	return fmt.Sprintf(`{"Concurency":{"matcher":{"kind":"%s","status":"Running","fields":[%s]},"max_concurency":%d}}`, kind, field, most)
}

func (v limits) run(ctx context.Context, r *run) error {
	l, ideal := v.load(r)
	err := r.measure(ctx, func() (int, error) { return r.whole(ctx, l) })
	if err != nil {
		return err
	}
	// Whichever is less: what the machine can do, or what the limits let through if each slot were taken again as soon as
	// an exchange and a commit allow.
	r.figures[0].floor = func(f floor) float64 { return min(f.rate(), ideal/(atWork.Seconds()+f.p50()/1e3)) }
	return r.check(ctx, l)
}

// load also returns how many tasks are done, at best, in the time of one.
func (v limits) load(r *run) (l *load, ideal float64) {
	tasks, keys := r.count(v.tasks, 200), r.count(v.keys, 1000) // with fewer keys, fewer tasks may run
	random := rand.New(rand.NewPCG(1, 2))                       // the same in each run
	draw := func() int { return random.IntN(keys) }
	if v.zipf {
		z := rand.NewZipf(random, 1.01, 1, uint64(keys-1))
		draw = func() int { return int(z.Uint64()) }
	}
	kinds := 1
	if v.across {
		kinds = 2
	}
	// A gate for each key of each kind, and one over all.
	gateOf, limits, demand := make([]int, tasks), make([]int, kinds*keys+1), make([]int, kinds*keys)
	longest := 0
	for i := range gateOf {
		gateOf[i] = i%kinds*keys + draw()
		demand[gateOf[i]]++
		longest = max(longest, demand[gateOf[i]])
	}
	for i := range limits {
		limits[i] = v.max
	}
	limits[kinds*keys] = v.overall
	l = &load{kind: "limits", tasks: tasks, perPost: 1000, clients: 2, limits: limits, work: after(atWork)}
	l.spec = func(task int) spec {
		kind := string(rune('a' + task%kinds))
		s := spec{kind: kind, metadata: fmt.Sprintf(`"key":%d`, gateOf[task]%keys), rules: concurrency("limits"+kind, "key", v.max)}
		if v.overall > 0 {
			s.rules += "," + concurrency("limits"+kind, "", v.overall)
		}
		if kind == "b" {
			s.rules += "," + concurrency("limitsa", "key", v.max-1)
		}
		return s
	}
	l.keys = func(task int) []int {
		if v.overall > 0 {
			return []int{gateOf[task], kinds * keys}
		}
		return gateOf[task : task+1]
	}
	ideal = float64(tasks) * float64(v.max) / float64(longest)
	if v.overall > 0 {
		ideal = min(ideal, float64(v.overall))
	}
	return r.receiver.newLoad(l), ideal
}

// handoff is tasks that run one after the other because of a rule, with a pause in each: how long a slot stays empty, from the
// moment when the report on a task is sent to the arrival of the next one's on_start.
func handoff(ctx context.Context, r *run) error {
	l := r.receiver.newLoad(&load{
		kind: "handoff", tasks: r.count(2000, 20), limits: []int{1}, keys: func(int) []int { return []int{0} },
		spec:  func(int) spec { return spec{rules: concurrency("handoff", "", 1)} },
		work:  after(5 * time.Millisecond),
		since: func(task int) (int, bool) { return task - 1, task > 0 }, // oldest first
	})
	if _, err := r.whole(ctx, l); err != nil {
		return err
	}
	r.latency("freed slot to next start", l.arrived, floor.p50, floor.p99)
	return r.check(ctx, l)
}
