package task

import (
	"fmt"
	"strings"

	"taskrunner/internal/jsonread"
)

const (
	fieldParent = iota
	fieldRequiresSuccess
	dependencyFieldCount
)

var dependencyFields = []string{"id", "requires_success"}

// dependencies reads what each task depends on, once all their ids are known, and looks for cycles.
func (b *batchParser) dependencies() {
	// lastChild says which task named a parent last, from 1: that is how duplicates are told without a set.
	lastChild := make([]int, len(b.tasks))
	var parents []int
	for i := range b.tasks {
		parents = parents[:0]
		if len(b.parents) > 0 && b.parents[0].task == i {
			b.EnterIndex(i)
			parents = b.parentsOf(i, b.parents[0].list, lastChild, parents)
			b.Leave()
			b.parents = b.parents[1:]
		}
		b.graph.Add(parents...)
	}
	const limit = 10 // so many cycles are told at once
	for _, cycle := range b.graph.Cycles(limit) {
		b.EnterIndex(cycle[0])
		b.Addf("dependencies", "cycle %s", CycleText(b.tasks, cycle))
		b.Leave()
	}
}

// parentsOf reads the dependencies of the task i and appends the places of the tasks it depends on.
func (b *batchParser) parentsOf(i int, list jsonread.Value, lastChild, parents []int) []int {
	if !b.Array("dependencies", list) {
		return parents
	}
	b.Enter("dependencies")
	defer b.Leave()
	for n, v := range list.Elements {
		var f [dependencyFieldCount]jsonread.Value
		requiresSuccess := true
		b.EnterIndex(n)
		ok := b.Fields(v, dependencyFields, f[:]) && b.Is("id", f[fieldParent], jsonread.String)
		if v := f[fieldRequiresSuccess]; !v.IsNull() {
			requiresSuccess, _ = b.Bool("requires_success", v)
		}
		b.Leave()
		if !ok {
			continue
		}
		id := f[fieldParent].TextBytes()
		parent, known := b.places[string(id)]
		switch {
		case !known:
			b.Addf("", "unknown id %s", jsonread.Quote(string(id)))
		case parent == i:
			b.Addf("", "a task cannot depend on itself, %s", jsonread.Quote(string(id)))
		case lastChild[parent] == i+1:
			b.Addf("", "duplicate id %s", jsonread.Quote(string(id)))
		default:
			lastChild[parent] = i + 1
			parents = append(parents, parent)
			b.requiresSuccess = append(b.requiresSuccess, requiresSuccess)
		}
	}
	return parents
}

// CycleText is "a → b → a" for a cycle of [Graph.Cycles], by the local ids of tasks. Of a long one the middle is left out.
func CycleText(tasks []*Task, cycle []int) string {
	const shown = 20
	var text strings.Builder
	for i, node := range cycle {
		switch {
		case i < shown || i == len(cycle)-1:
			text.WriteString(shorten(tasks[node].LocalID) + " → ")
		case i == shown:
			fmt.Fprintf(&text, "(%d more) → ", len(cycle)-1-shown)
		}
	}
	return text.String() + shorten(tasks[cycle[0]].LocalID)
}

// shorten shows a name without quotes, unless it has characters that need them.
func shorten(name string) string {
	quoted := jsonread.Quote(name)
	if quoted == `"`+name+`"` {
		return name
	}
	return quoted
}

// link gives the tasks their dependencies, once they have ids.
func (b *batchParser) link(tasks []*Task) {
	if len(b.requiresSuccess) == 0 {
		return
	}
	all := make([]Dependency, 0, len(b.requiresSuccess))
	for i, t := range tasks {
		start := len(all)
		for _, parent := range b.graph.Parents(i) {
			all = append(all, Dependency{Parent: tasks[parent].ID, RequiresSuccess: b.requiresSuccess[len(all)]})
		}
		if len(all) > start {
			t.Dependencies = all[start:len(all):len(all)]
		}
	}
}
