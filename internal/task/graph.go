package task

import "slices"

// Graph says who depends on whom in a batch, by places in request order. The zero value is empty.
type Graph struct {
	ends    []int // parents of node i: parents[ends[i-1]:ends[i]]
	parents []int
}

// Add appends the next node with the nodes it depends on. They may be added later, and need no order.
func (g *Graph) Add(parents ...int) {
	g.parents = append(g.parents, parents...)
	g.ends = append(g.ends, len(g.parents))
}

// Parents are the nodes that node depends on. They are only to be read.
func (g *Graph) Parents(node int) []int {
	start := 0
	if node > 0 {
		start = g.ends[node-1]
	}
	return g.parents[start:g.ends[node]]
}

// frame is a node between the root of a search and where it stands.
type frame struct {
	node int
	next int // how many of its parents were looked at
	told int // the highest place on the path, up to this one, whose node is part of a cycle that was found; or -1
}

// Cycles finds up to limit cycles that have no node in common, and at least one when there is any. Each begins with
// its first node in request order and goes along "depends on"; the way back to the beginning is not repeated. Time and
// space are linear in nodes and edges, and the stack does not grow with the depth of the graph.
func (g *Graph) Cycles(limit int) [][]int {
	const done = -1
	var (
		cycles [][]int
		path   []frame
		place  = make([]int, len(g.ends)) // on the path, from 1; 0: not seen yet; or done
	)
	push := func(node, told int) {
		path = append(path, frame{node: node, told: told})
		place[node] = len(path)
	}
	for root := range g.ends {
		if place[root] == 0 {
			push(root, -1)
		}
		for len(path) > 0 && len(cycles) < limit {
			top := &path[len(path)-1]
			parents := g.Parents(top.node)
			if top.next == len(parents) {
				place[top.node] = done
				path = path[:len(path)-1]
				continue
			}
			parent := parents[top.next]
			top.next++
			switch from := place[parent] - 1; {
			case from == -1:
				push(parent, top.told)
			case from > top.told: // on the path, and nothing from there on was told
				cycles = append(cycles, tell(path, from))
			}
		}
	}
	return cycles
}

// tell marks the cycle from the place from to the end of path, and turns it so that its first node in request order
// stands first.
func tell(path []frame, from int) []int {
	first := from
	for i := from; i < len(path); i++ {
		path[i].told = i
		if path[i].node < path[first].node {
			first = i
		}
	}
	cycle := make([]int, 0, len(path)-from)
	for i := range path[from:] {
		cycle = append(cycle, path[from+(first-from+i)%(len(path)-from)].node)
	}
	return cycle
}

// Waves groups the nodes by the number of edges on the longest way to them: those of the first wave depend on nothing,
// those of each other wave on at least one of the wave before it, and on none of their own or a later one. Each wave is
// in request order. Nodes on cycles, and behind them, are left out. Time and space are linear in nodes and edges, but for
// sorting.
func (g *Graph) Waves() [][]int {
	children := make([][]int, len(g.ends))
	unmet := make([]int, len(g.ends))
	var wave []int
	for node := range g.ends {
		parents := g.Parents(node)
		if unmet[node] = len(parents); len(parents) == 0 {
			wave = append(wave, node)
		}
		for _, parent := range parents {
			children[parent] = append(children[parent], node)
		}
	}
	var waves [][]int
	for len(wave) > 0 {
		waves = append(waves, wave)
		var next []int
		for _, node := range wave {
			for _, child := range children[node] {
				if unmet[child]--; unmet[child] == 0 {
					next = append(next, child)
				}
			}
		}
		slices.Sort(next)
		wave = next
	}
	return waves
}

// LongestPath goes along the edges through one node of each of the graph's waves. Of several such paths it is the one
// whose last node is the first in request order, then the one before that, and so on.
func (g *Graph) LongestPath(waves [][]int) []int {
	path := make([]int, len(waves))
	for i, wave := range slices.Backward(waves) {
		if i == len(waves)-1 {
			path[i] = wave[0]
			continue
		}
		first := len(g.ends)
		for _, parent := range g.Parents(path[i+1]) {
			if _, ok := slices.BinarySearch(wave, parent); ok {
				first = min(first, parent)
			}
		}
		path[i] = first
	}
	return path
}
