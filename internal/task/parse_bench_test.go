package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"taskrunner/internal/jsonread"
)

// typicalTask has about 630 bytes.
const typicalTask = `{"id":"task-%d","name":"Cluster documents of tenant 7","kind":"clustering","timeout":600,` +
	`"metadata":{"tenant_id":7,"region":"eu-west-1","documents":["a1","b2"],"nested":{"x":1.5}},` +
	`"on_start":{"kind":"Webhook","trigger":"Start","params":{"url":"https://workers.example.com/run/clustering",` +
	`"verb":"Post","headers":{"Content-Type":"application/json"},"body":{"job":17,"options":{"fast":true}}}},` +
	`"on_success":[{"kind":"Webhook","params":{"url":"https://workers.example.com/done","verb":"Post"}}],` +
	`"rules":[{"Concurency":{"matcher":{"kind":"clustering","status":"Running","fields":["tenant_id"]},` +
	`"max_concurency":3}}]}`

func typicalBatch(n int) []byte {
	tasks := make([]string, n)
	for i := range tasks {
		tasks[i] = fmt.Sprintf(typicalTask, i)
	}
	return []byte("[" + strings.Join(tasks, ",\n ") + "]")
}

func counterIDs() func() ID {
	var id uuid.UUID
	return func() ID {
		for i := len(id) - 1; ; i-- {
			if id[i]++; id[i] != 0 {
				break
			}
		}
		return id
	}
}

func BenchmarkParseBatch(b *testing.B) {
	for _, n := range []int{1, 1000} {
		body := typicalBatch(n)
		b.Run(fmt.Sprintf("tasks=%d", n), func(b *testing.B) {
			newID := counterIDs()
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := ParseBatch(bytes.NewReader(body), ParseParams{NewID: newID}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/task")
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	body := typicalBatch(1000)
	b.Run("by=jsonread", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if err := jsonread.Check(body, "tasks"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by=json.Valid", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if !json.Valid(body) {
				b.Fatal("not valid")
			}
		}
	})
}

func BenchmarkRuleCheck(b *testing.B) {
	rule := Rule{Matcher: Matcher{Kind: "clustering", Status: Running, Fields: []string{"tenant_id"}}, Max: 3}
	md := ParseMetadata(json.RawMessage(`{"tenant_id":7,"region":"eu-west-1","documents":["a1","b2"],"nested":{"x":1.5}}`))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := rule.Check("clustering", md); !ok {
			b.Fatal("no gate")
		}
	}
}

func BenchmarkCycles(b *testing.B) {
	for _, shape := range []string{"chain", "join"} {
		b.Run("shape="+shape+"/tasks=100k", func(b *testing.B) {
			g := bigGraph(shape, 100_000)
			b.ReportAllocs()
			for b.Loop() {
				if cycles := g.Cycles(1); cycles != nil {
					b.Fatal("a cycle")
				}
			}
		})
	}
}

// bigGraph is a chain told from its end, so that the search goes all the way down at once, or one join of all.
func bigGraph(shape string, n int) *Graph {
	g := new(Graph)
	if shape == "chain" {
		for i := range n - 1 {
			g.Add(i + 1)
		}
		g.Add()
		return g
	}
	all := make([]int, n-1)
	for i := range all {
		all[i] = i + 1
	}
	g.Add(all...)
	for range n - 1 {
		g.Add()
	}
	return g
}

func TestHugeGraphs(t *testing.T) {
	t.Parallel()
	for _, shape := range []string{"chain", "join"} {
		start := time.Now()
		if cycles := bigGraph(shape, 100_000).Cycles(1); cycles != nil {
			t.Errorf("%s: found a cycle of %d", shape, len(cycles[0]))
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: took %v", shape, took)
		}
	}
}
