package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// limited is the member "rules" with one rule.
func limited(kind string, limit int, fields ...string) string {
	names := `[]`
	if len(fields) > 0 {
		names = `["` + strings.Join(fields, `","`) + `"]`
	}
	return fmt.Sprintf(`"rules":[{"Concurency":{"matcher":{"kind":%q,"status":"Running","fields":%s},"max_concurency":%d}}]`, kind, names, limit)
}

// loaded is limited with a rule of Capacity, and the work that the task brings itself.
func loaded(kind string, limit, expected int) string {
	return fmt.Sprintf(`"expected_count":%d,"rules":[{"Capacity":{"matcher":{"kind":%q,"status":"Running"},"max_capacity":%d}}]`, expected, kind, limit)
}

// failing is limited for the tasks in Failure.
func failing(kind string, limit int) string {
	return strings.Replace(limited(kind, limit), "Running", "Failure", 1)
}

func parents(ids ...string) string {
	for i, id := range ids {
		ids[i] = `{"id":"` + id + `"}`
	}
	return `"dependencies":[` + strings.Join(ids, ",") + `]`
}

func TestOutlineOfTheGraph(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		tasks []string
		links int
		waves [][]int
		path  []int
	}{
		{"nothing", nil, 0, nil, []int{}},
		{"one", []string{taskWith("a")}, 0, [][]int{{0}}, []int{0}},
		{"no links", []string{taskWith("a"), taskWith("b")}, 0, [][]int{{0, 1}}, []int{0}},
		{"a chain, backwards", []string{taskWith("a", parents("b")), taskWith("b", parents("c")), taskWith("c")}, 2,
			[][]int{{2}, {1}, {0}}, []int{2, 1, 0}},
		{"a diamond", []string{taskWith("a"), taskWith("b", parents("a")), taskWith("c", parents("a")), taskWith("d", parents("c", "b"))}, 4,
			[][]int{{0}, {1, 2}, {3}}, []int{0, 1, 3}},
		{"a diamond, its sides named in the other order", []string{taskWith("a"), taskWith("b", parents("a")), taskWith("c", parents("a")), taskWith("d", parents("b", "c"))}, 4,
			[][]int{{0}, {1, 2}, {3}}, []int{0, 1, 3}},
		{"a short way beside a long one", []string{taskWith("a"), taskWith("d", parents("a", "c")), taskWith("c", parents("b")), taskWith("b", parents("a")), taskWith("e")}, 4,
			[][]int{{0, 4}, {3}, {2}, {1}}, []int{0, 3, 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := outlineOf(t, c.tasks...)
			if o.Links != c.links {
				t.Errorf("%d links, want %d", o.Links, c.links)
			}
			if diff := cmp.Diff(c.waves, o.Waves); diff != "" {
				t.Errorf("waves -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(c.path, o.LongestPath); diff != "" {
				t.Errorf("path -want +got:\n%s", diff)
			}
		})
	}
}

// otherTask is a task of the kind "other".
func otherTask(id string, members ...string) string {
	return strings.Replace(taskWith(id, members...), `"kind":"k"`, `"kind":"other"`, 1)
}

func outlineOf(t *testing.T, tasks ...string) Outline {
	t.Helper()
	return batchWith(t, tasks).Outline()
}

func batchWith(tb testing.TB, tasks []string) *Batch {
	tb.Helper()
	batch, err := ParseBatch(strings.NewReader("["+strings.Join(tasks, ",")+"]"), ParseParams{NewID: counterIDs()})
	if err != nil {
		tb.Fatal(err)
	}
	return batch
}

func TestOutlineOfLimits(t *testing.T) {
	t.Parallel()
	tenant := func(n int) string { return fmt.Sprintf(`"metadata":{"tenant":%d}`, n) }
	type limit struct {
		Kind, Values       string
		Max, Tasks, AtOnce int
		Binds              bool
	}
	const k = "k" // of every task that says no other
	for _, c := range []struct {
		name  string
		tasks []string
		want  []limit
	}{
		{"no rules", []string{taskWith("a"), taskWith("b")}, nil},
		{"just enough room", []string{taskWith("a", limited(k, 2)), taskWith("b", limited(k, 2))}, []limit{{k, "[]", 2, 2, 2, false}}},
		{"too little room", []string{taskWith("a", limited(k, 1)), taskWith("b", limited(k, 1))}, []limit{{k, "[]", 1, 2, 2, true}}},
		{"one carries the rule, all count", []string{taskWith("a", limited(k, 2)), taskWith("b"), taskWith("c")}, []limit{{k, "[]", 2, 3, 3, true}}},
		{"two maxima at one gate", []string{taskWith("a", limited(k, 2)), taskWith("b", limited(k, 1))},
			[]limit{{k, "[]", 2, 2, 2, false}, {k, "[]", 1, 2, 2, true}}},
		{"a gate for each value", []string{
			taskWith("a", limited(k, 1, "tenant"), tenant(7)), taskWith("b", limited(k, 1, "tenant"), tenant(8)),
			taskWith("c", tenant(7)), taskWith("d", `"metadata":{"other":7}`),
		}, []limit{{k, "[7]", 1, 2, 2, true}, {k, "[8]", 1, 1, 1, false}}},
		{"another kind", []string{taskWith("a", limited("other", 1)), otherTask("b"), taskWith("c")},
			[]limit{{"other", "[]", 1, 1, 1, false}}},
		{"too many of another kind", []string{taskWith("a", limited("other", 1)), otherTask("b"), otherTask("c")},
			[]limit{{"other", "[]", 1, 2, 2, true}}},
		{"a kind that is not here", []string{taskWith("a", limited("other", 1))}, []limit{{"other", "[]", 1, 0, 0, false}}},
		{"a chain never runs at once", []string{taskWith("a", limited(k, 1), parents("b")), taskWith("b", limited(k, 1), parents("c")), taskWith("c")},
			[]limit{{k, "[]", 1, 3, 1, false}}},
		{"a diamond is two wide", []string{taskWith("a", limited(k, 2)), taskWith("b", parents("a")), taskWith("c", parents("a")), taskWith("d", parents("b", "c"))},
			[]limit{{k, "[]", 2, 4, 2, false}}},
		{"work that fits but for the last one", []string{taskWith("a", loaded(k, 5, 3)), taskWith("b", loaded(k, 5, 3)), taskWith("c", loaded(k, 5, 1))},
			[]limit{{k, "[]", 5, 3, 7, true}}},
		{"one may bring more than there is room for", []string{taskWith("a", loaded(k, 5, 100)), taskWith("b", loaded(k, 5, 4))},
			[]limit{{k, "[]", 5, 2, 104, true}}},
		{"work that always fits", []string{taskWith("a", loaded(k, 5, 4)), taskWith("b", loaded(k, 5, 4))}, []limit{{k, "[]", 5, 2, 8, false}}},
		{"work of another kind", []string{otherTask("a", `"expected_count":10`), taskWith("b", loaded("other", 10, 0))}, []limit{{"other", "[]", 10, 1, 10, true}}},
		{"work in a chain", []string{taskWith("a", loaded(k, 5, 4)), taskWith("b", loaded(k, 5, 9), parents("a")), taskWith("c", loaded(k, 5, 6), parents("b"))},
			[]limit{{k, "[]", 5, 3, 9, false}}},
		{"failures add up along a chain", []string{taskWith("a", failing(k, 1)), taskWith("b", failing(k, 1), parents("a"))}, []limit{{k, "[]", 1, 2, 2, true}}},
		{"chains of two tenants", []string{
			taskWith("a", limited(k, 1, "tenant"), tenant(1)), taskWith("b", tenant(2), limited(k, 1, "tenant"), parents("a")),
			taskWith("c", tenant(1), parents("b")), taskWith("d", tenant(2), parents("b")),
		}, []limit{{k, "[1]", 1, 2, 2, true}, {k, "[2]", 1, 2, 1, false}}}, // the way from a to c is by b, which does not count
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []limit
			for _, l := range outlineOf(t, c.tasks...).Limits {
				got = append(got, limit{l.Shape.Kind, l.Gate.Values, l.Max, l.Tasks, l.AtOnce, l.Binds()})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOutlineOmitsShapes(t *testing.T) {
	t.Parallel()
	var tasks []string
	for i := range MaxOutlineShapes + 2 {
		tasks = append(tasks, taskWith(fmt.Sprint("t", i), limited(fmt.Sprint("kind", i), 1)))
	}
	tasks = append(tasks, taskWith("known", limited("kind0", 2)), taskWith("unknown", limited(fmt.Sprint("kind", MaxOutlineShapes), 1)))
	o := outlineOf(t, tasks...)
	if len(o.Limits) != MaxOutlineShapes+1 || o.LimitsOmitted != 3 {
		t.Errorf("%d limits and %d omitted, want %d and 3", len(o.Limits), o.LimitsOmitted, MaxOutlineShapes+1)
	}
}

func TestOutlineProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parents, _ := drawGraph(t)
		batch, err := parse(batchOf(parents))
		if err != nil {
			t.Fatal(err)
		}
		counts := rapid.SliceOfN(rapid.Bool(), len(parents), len(parents)).Draw(t, "counts")
		for i, task := range batch.Tasks {
			if task.Kind = "other"; counts[i] {
				task.Kind = "counted"
			}
			task.Rules = []Rule{{Matcher: Matcher{Kind: "counted", Status: Running}, Max: 1}}
		}
		o := batch.Outline()
		wave := checkWaves(t, parents, o)
		if len(parents) > 0 {
			checkLimit(t, parents, counts, wave, o.Limits)
		}
	})
}

// checkWaves wants every task once, one wave after the last one it depends on, and the longest path to be a path.
func checkWaves(t *rapid.T, parents [][]int, o Outline) (wave []int) {
	wave = make([]int, len(parents))
	seen := 0
	for w, nodes := range o.Waves {
		if !slices.IsSorted(nodes) {
			t.Fatalf("wave %d is not in request order: %v", w, nodes)
		}
		seen += len(nodes)
		for _, node := range nodes {
			wave[node] = w
		}
	}
	links := 0
	for node, of := range parents {
		want := 0
		for _, parent := range of {
			want = max(want, wave[parent]+1)
		}
		if wave[node] != want {
			t.Fatalf("t%d is in wave %d, want %d", node, wave[node], want)
		}
		links += len(of)
	}
	if seen != len(parents) || links != o.Links || len(o.LongestPath) != len(o.Waves) {
		t.Fatalf("%d tasks in waves, want %d; %d links, want %d; a path of %d through %d waves",
			seen, len(parents), o.Links, links, len(o.LongestPath), len(o.Waves))
	}
	for i := range len(o.LongestPath) - 1 {
		if !slices.Contains(parents[o.LongestPath[i+1]], o.LongestPath[i]) {
			t.Fatalf("%v is not a path", o.LongestPath)
		}
	}
	return wave
}

// checkLimit wants the one limit to count who counts, and no fewer at once than can be.
func checkLimit(t *rapid.T, parents [][]int, counts []bool, wave []int, limits []Limit) {
	if len(limits) != 1 {
		t.Fatalf("limits: %+v", limits)
	}
	below := make([]map[int]bool, len(parents)) // all that a task depends on, also by way of others
	order := make([]int, len(parents))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return wave[a] - wave[b] })
	var together []int // none of which depends on another; greedily, so perhaps not the most there are
	tasks := 0
	for _, i := range order {
		below[i] = map[int]bool{}
		for _, parent := range parents[i] {
			below[i][parent] = true
			for ancestor := range below[parent] {
				below[i][ancestor] = true
			}
		}
		if !counts[i] {
			continue
		}
		tasks++
		if !slices.ContainsFunc(together, func(other int) bool { return below[i][other] }) {
			together = append(together, i)
		}
	}
	if l := limits[0]; l.Tasks != tasks || l.AtOnce < len(together) || l.AtOnce > tasks {
		t.Fatalf("%d tasks, %d at once; want %d tasks, and at least %v at once", l.Tasks, l.AtOnce, tasks, together)
	}
}

func BenchmarkOutline(b *testing.B) {
	tasks := make([]string, 10_000)
	for i := range tasks {
		tasks[i] = taskWith(fmt.Sprint("t", i), limited("k", 5, "tenant"), fmt.Sprintf(`"metadata":{"tenant":%d}`, i%100))
		if i > 0 {
			tasks[i] = taskWith(fmt.Sprint("t", i), limited("k", 5, "tenant"), fmt.Sprintf(`"metadata":{"tenant":%d}`, i%100), parents(fmt.Sprint("t", i/2)))
		}
	}
	batch := batchWith(b, tasks)
	for b.Loop() {
		batch.Outline()
	}
}
