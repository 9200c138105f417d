package bench

import (
	"context"
	"fmt"
	"time"

	"taskrunner/api"
)

// beside is how long a trickle beside another load may last.
const beside = 10 * time.Minute

// fan is a task that many wait for, for which again one waits. A trickle runs beside it.
func fan(ctx context.Context, r *run) error {
	n := r.count(100_000, 50)
	return graph(ctx, r, &load{kind: "fan", tasks: n + 2, spec: func(task int) spec {
		switch task {
		case 0:
			return spec{}
		case n + 1:
			return spec{after: numbers(1, n)}
		default:
			return spec{after: []int{0}}
		}
	}})
}

// diamond is layers of tasks; each task has three parents in the layer before.
func diamond(ctx context.Context, r *run) error {
	const width = 300
	layers := r.count(300, 3)
	return graph(ctx, r, &load{kind: "diamond", tasks: 1 + width*layers, spec: func(task int) spec {
		place := task - 1
		switch {
		case task == 0:
			return spec{}
		case place < width:
			return spec{after: []int{0}}
		default:
			above := 1 + place/width*width - width
			return spec{after: []int{above + place%width, above + (place+1)%width, above + (place+2)%width}}
		}
	}})
}

// graph runs l, one batch with a root. What is measured begins when the root ends; a trickle runs beside it.
func graph(ctx context.Context, r *run, l *load) error {
	root := make(chan string, 1)
	l.ordered = true
	l.work = func(l *load, task int, handle string) {
		if task > 0 {
			l.succeed(task, handle)
			return
		}
		root <- handle
	}
	r.receiver.newLoad(l)
	return r.fromRoot(ctx, l, root, success, func() error { return r.wait(ctx, "tasks reported on", l.reported, l.tasks) })
}

// cascade is a task that fails, and many that would have needed it. A trickle runs beside it.
func cascade(ctx context.Context, r *run) error {
	root := make(chan string, 1)
	n := r.count(100_000, 50)
	l := r.receiver.newLoad(&load{
		kind: "cascade", tasks: n + 1, tells: true, expect: &api.StatusCounts{Failure: n + 1},
		spec: func(task int) spec {
			if task == 0 {
				return spec{}
			}
			return spec{after: []int{0}}
		},
		work: func(_ *load, _ int, handle string) { root <- handle },
		may: func(task int) (int, int) {
			if task == 0 {
				return 1, 1
			}
			return 0, 0
		},
	})
	return r.fromRoot(ctx, l, root, failure, func() error { return r.wait(ctx, "batches complete", l.completions.Load, 1) })
}

// fromRoot posts l, ends its first task when it has come, and measures until it is over.
func (r *run) fromRoot(ctx context.Context, l *load, root <-chan string, report string, over func() error) error {
	if err := r.post(ctx, l); err != nil {
		return err
	}
	var handle string
	select {
	case handle = <-root:
	case <-time.After(r.patience()):
		return fmt.Errorf("the first task of %s was not started", l.kind)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t, err := r.trickle(ctx, beside)
	if err != nil {
		return err
	}
	err = r.measure(ctx, func() (int, error) {
		l.end(ctx, 0, handle, report)
		return l.tasks, over()
	})
	if err != nil {
		t.stop()
		<-t.done
		return err
	}
	if err := r.endTrickle(ctx, t, "a task beside it, due to started"); err != nil {
		return err
	}
	return r.check(ctx, l)
}

// numbers are those from first on.
func numbers(first, n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = first + i
	}
	return all
}
