package task

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCycles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parents [][]int
		want    [][]int
	}{
		{nil, nil},
		{[][]int{{}, {0}, {0, 1}}, nil},
		{[][]int{{1}, {2}, {}}, nil},
		{[][]int{{1}, {0}}, [][]int{{0, 1}}},
		{[][]int{{2}, {0}, {1}}, [][]int{{0, 2, 1}}},
		{[][]int{{3}, {2}, {1}, {1}}, [][]int{{1, 2}}},
		{[][]int{{1}, {0}, {3}, {4}, {2}}, [][]int{{0, 1}, {2, 3, 4}}},
		{[][]int{{1, 2}, {0}, {0}}, [][]int{{0, 1}}}, // the second one shares a node
	} {
		g := new(Graph)
		for _, parents := range c.parents {
			g.Add(parents...)
		}
		if diff := cmp.Diff(c.want, g.Cycles(10)); diff != "" {
			t.Errorf("%v: -want +got:\n%s", c.parents, diff)
		}
	}
}

// TestDenseCycles: every node of a long cycle has an edge back to the beginning of its path, which must not be searched
// again each time.
func TestDenseCycles(t *testing.T) {
	t.Parallel()
	g := new(Graph)
	const n = 100_000
	for i := range n {
		switch i {
		case 0:
			g.Add(1)
		case n - 1:
			all := make([]int, n-1)
			for j := range all {
				all[j] = j
			}
			g.Add(all...)
		default:
			g.Add(i+1, i-1)
		}
	}
	if cycles := g.Cycles(n); len(cycles) == 0 {
		t.Error("no cycle")
	}
}

// drawGraph is an acyclic graph in any order: order[i] is where the i-th node, whose parents all have smaller numbers,
// stands in the request.
func drawGraph(t *rapid.T) (parents [][]int, order []int) {
	n := rapid.IntRange(1, 12).Draw(t, "nodes")
	order = rapid.Permutation(slices.Collect(count(n))).Draw(t, "order")
	parents = make([][]int, n)
	for i := range n {
		for j := range i {
			if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
				parents[order[i]] = append(parents[order[i]], order[j])
			}
		}
	}
	return parents, order
}

func count(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func batchOf(parents [][]int) string {
	tasks := make([]string, len(parents))
	for i, list := range parents {
		ids := make([]string, len(list))
		for j, parent := range list {
			ids[j] = fmt.Sprintf(`{"id":"t%d"}`, parent)
		}
		tasks[i] = taskWith(fmt.Sprintf("t%d", i), `"dependencies":[`+strings.Join(ids, ",")+`]`)
	}
	return "[" + strings.Join(tasks, ",") + "]"
}

func TestAcyclicBatchesAreAccepted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parents, _ := drawGraph(t)
		batch, err := parse(batchOf(parents))
		if err != nil {
			t.Fatal(err)
		}
		for i, task := range batch.Tasks {
			if i > 0 && slices.Compare(task.ID[:], batch.Tasks[i-1].ID[:]) <= 0 {
				t.Fatal("ids are not in request order")
			}
			var got []int
			for _, d := range task.Dependencies {
				got = append(got, slices.IndexFunc(batch.Tasks, func(p *Task) bool { return p.ID == d.Parent }))
			}
			if diff := cmp.Diff(parents[i], got); diff != "" {
				t.Fatalf("parents of t%d -want +got:\n%s", i, diff)
			}
		}
	})
}

// TestBackEdgesAreNamed adds an edge from an ancestor to a descendant: the cycle that is told must be one.
func TestBackEdgesAreNamed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parents, order := drawGraph(t)
		if len(order) < 2 {
			return // no two nodes to make a cycle of
		}
		low := rapid.IntRange(0, len(order)-2).Draw(t, "low")
		high := rapid.IntRange(low+1, len(order)-1).Draw(t, "high")
		if !slices.Contains(parents[order[high]], order[low]) {
			parents[order[high]] = append(parents[order[high]], order[low])
		}
		parents[order[low]] = append(parents[order[low]], order[high])
		_, err := parse(batchOf(parents))
		if err == nil {
			t.Fatal("accepted")
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok {
			t.Fatal(err)
		}
		for _, p := range problems {
			checkCycle(t, parents, p)
		}
	})
}

func checkCycle(t *rapid.T, parents [][]int, p Problem) {
	text, ok := strings.CutPrefix(p.Message, "cycle ")
	if !ok {
		t.Fatal(p)
	}
	var nodes []int
	for name := range strings.SplitSeq(text, " → ") {
		var node int
		if _, err := fmt.Sscanf(name, "t%d", &node); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	last := len(nodes) - 1
	if last < 2 || nodes[0] != nodes[last] || slices.Min(nodes) != nodes[0] {
		t.Fatalf("%s does not go from its first task back to it", text)
	}
	if want := fmt.Sprintf("tasks[%d].dependencies", nodes[0]); p.Path != want {
		t.Fatalf("path %s, want %s", p.Path, want)
	}
	for i := range last {
		if !slices.Contains(parents[nodes[i]], nodes[i+1]) {
			t.Fatalf("%s: t%d does not depend on t%d", text, nodes[i], nodes[i+1])
		}
	}
}

func TestLongCyclesAreCut(t *testing.T) {
	t.Parallel()
	parents := make([][]int, 90)
	for i := range parents {
		parents[i] = []int{(i + 1) % len(parents)}
	}
	_, err := parse(batchOf(parents))
	want := "t18 → t19 → (69 more) → t89 → t0"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want … %s", err, want)
	}
}
