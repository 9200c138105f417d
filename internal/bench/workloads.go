package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// variant is a workload with its numbers.
type variant struct {
	name     string // workload/variant
	unit     string
	floor    floorShape
	own      bool // only on a service of ours
	postgres bool // only on PostgreSQL
	replicas int  // that the service has; 0: 1
	// settings are those of the service that the workload needs, as NAME=value; nil: none.
	settings func(b *bench) []string
	run      func(ctx context.Context, r *run) error
}

// crowd is the floor of many tasks at once, alone that of one after the other.
var (
	crowd = floorShape{clients: 256, perCommit: 1000}
	alone = floorShape{what: existing, clients: 1}
)

// variants are all workloads, in the order in which they run.
func variants() []variant {
	var all []variant
	add := func(name string, floor floorShape, fn func(ctx context.Context, r *run) error) {
		all = append(all, variant{name: name, unit: "task", floor: floor, run: fn})
	}
	for _, perPost := range []int{1, 10, 100, 1000, 10_000} {
		add(fmt.Sprintf("flat/%d", perPost), crowd, func(ctx context.Context, r *run) error { return flat(ctx, r, 200_000, perPost) })
	}
	for _, perPost := range []int{1, 1000} {
		shape := floorShape{what: creation, clients: clientsFor(perPost), perRequest: perPost, bytes: 320 * perPost, perCommit: max(perPost, 64)}
		add(fmt.Sprintf("ingest/%d", perPost), shape, func(ctx context.Context, r *run) error { return ingest(ctx, r, perPost) })
	}
	add("chain/20x50", floorShape{what: existing, clients: 20, perCommit: 20}, func(ctx context.Context, r *run) error { return chains(ctx, r, 20, 50, 10) })
	add("chain/1x10000", alone, func(ctx context.Context, r *run) error { return chains(ctx, r, 1, 10_000, 1) })
	graph := floorShape{what: existing, clients: 256, perCommit: 1000, serial: true}
	add("fan", graph, fan)
	add("diamond", graph, diamond)
	add("cascade", floorShape{what: end, perCommit: 1000, serial: true}, cascade)
	for _, l := range limitsVariants() {
		add("limits/"+l.name, floorShape{clients: 256, perCommit: 1000, serial: true}, l.run)
	}
	add("limits/handoff", alone, handoff)
	for _, c := range []counters{{hot: 1}, {hot: 1000}, {hot: 1, array: true}, {hot: 1000, array: true}} {
		all = append(all, variant{name: c.name(), unit: "count", floor: c.shape(), run: c.run})
	}
	for _, parked := range []int{0, 10_000, 100_000, 1_000_000} {
		add(fmt.Sprintf("backlog/%d", parked), crowd, func(ctx context.Context, r *run) error { return backlog(ctx, r, parked) })
	}
	for _, s := range []string{"nothing", "waiting", "parked", "finished"} {
		add("trickle/"+s, alone, func(ctx context.Context, r *run) error { return besideStored(ctx, r, s) })
	}
	add("hosts", alone, hosts)
	add("list", floorShape{what: page, clients: 1}, lists)
	for _, held := range []bool{false, true} { // each for about a minute
		name := "snapshot/none/"
		if held {
			name = "snapshot/held/"
		}
		add(name+"flat", crowd, func(ctx context.Context, r *run) error {
			return withSnapshot(ctx, r, held, func() error { return flat(ctx, r, 600_000, 1000) })
		})
		add(name+"chain", alone, func(ctx context.Context, r *run) error {
			return withSnapshot(ctx, r, held, func() error { return chains(ctx, r, 1, 10_000, 5) })
		})
	}
	add("soak", crowd, soak)
	all[len(all)-1].settings = soakSettings
	single := all
	for _, n := range []int{1, 2, 4} {
		for _, v := range single {
			if slices.Contains([]string{"flat/1000", "chain/20x50", "limits/100-keys-max-1", "limits/handoff"}, v.name) {
				v.name, v.replicas = fmt.Sprintf("replicas/%d/%s", n, v.name), n
				all = append(all, v)
			}
		}
	}
	for i := range all {
		v := &all[i]
		v.postgres = v.replicas > 0 || strings.HasPrefix(v.name, "snapshot/")
		v.own = v.postgres || v.settings != nil
	}
	return all
}

// flat is tasks that have nothing to do with each other.
func flat(ctx context.Context, r *run, tasks, perPost int) error {
	l := r.receiver.newLoad(&load{kind: "flat", tasks: r.count(tasks, 100), perPost: perPost, clients: clientsFor(perPost)})
	if err := r.measure(ctx, func() (int, error) { return r.whole(ctx, l) }); err != nil {
		return err
	}
	return r.check(ctx, l)
}

// ingest is the posting alone: the host of all tasks answers only when it is over.
func ingest(ctx context.Context, r *run, perPost int) error {
	release := make(chan struct{})
	l := r.receiver.newLoad(&load{kind: "ingest", tasks: r.count(50*min(perPost, 4)*1000, 100), perPost: perPost, clients: clientsFor(perPost), work: hung(release)})
	err := r.measure(ctx, func() (int, error) { return l.tasks, r.post(ctx, l) })
	close(release)
	if err != nil {
		return err
	}
	if err := r.wait(ctx, "tasks reported on", l.reported, l.tasks); err != nil {
		return err
	}
	return r.check(ctx, l)
}

// clientsFor is how many clients post at once, fewer where each brings more.
func clientsFor(perPost int) int { return min(max(2000/perPost, 2), 64) }

// chains is chains of tasks beside each other, some times over. A hop is from the moment when the report on a task is sent
// to the arrival of the next task's on_start.
func chains(ctx context.Context, r *run, beside, length, rounds int) error {
	if beside > 1 { // how many there are beside each other is what is measured
		rounds = r.count(rounds, 1)
	} else {
		length = r.count(length, 5)
	}
	l := r.receiver.newLoad(&load{
		kind: "chain", tasks: beside * length * rounds, perPost: length, ordered: true,
		spec: func(task int) spec {
			if task%length == 0 {
				return spec{}
			}
			return spec{after: []int{task - 1}}
		},
		since: func(task int) (int, bool) { return task - 1, task%length != 0 },
	})
	err := r.measure(ctx, func() (int, error) {
		for round := range rounds {
			first := round * beside * length
			err := each(ctx, beside, beside, func(ctx context.Context, i int) error { return r.postSome(ctx, l, first+i*length, length) })
			if err == nil {
				err = r.wait(ctx, "tasks ended", l.reported, first+beside*length)
			}
			if err != nil {
				return 0, err
			}
		}
		return l.tasks, nil
	})
	if err != nil {
		return err
	}
	r.latency("hop", l.arrived, floor.p50, floor.p99)
	return r.check(ctx, l)
}
