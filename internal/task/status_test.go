package task_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"taskrunner/internal/task"
)

// diagram draws the table of transitions.
func diagram() string {
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n")
	name := func(s task.Status) string {
		if s == 0 {
			return "[*]"
		}
		return s.String()
	}
	for _, t := range task.Transitions() {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", name(t.From), name(t.To), t.Cause)
	}
	for _, s := range task.Statuses() {
		if s.Terminal() {
			fmt.Fprintf(&b, "    %s --> [*]\n", s)
		}
	}
	b.WriteString("```\n")
	return b.String()
}

func TestDocsDrawTheTransitions(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := diagram(); !strings.Contains(string(doc), want) {
		t.Errorf("docs/architecture.md lacks this diagram:\n%s", want)
	}
}

func TestTerminalStatesAreFinal(t *testing.T) {
	t.Parallel()
	for _, tr := range task.Transitions() {
		if tr.From.Terminal() {
			t.Errorf("a transition leads out of %s: %+v", tr.From, tr)
		}
	}
}

func TestEveryStatusIsReachedAndLeft(t *testing.T) {
	t.Parallel()
	in, out := map[task.Status]bool{}, map[task.Status]bool{}
	for _, tr := range task.Transitions() {
		in[tr.To], out[tr.From] = true, true
	}
	for _, s := range task.Statuses() {
		if !in[s] {
			t.Errorf("nothing leads to %s", s)
		}
		if out[s] == s.Terminal() {
			t.Errorf("%s: terminal %t, left %t", s, s.Terminal(), out[s])
		}
	}
}

func TestStatusNamesRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range task.Statuses() {
		if got, ok := task.ParseStatus(s.String()); !ok || got != s {
			t.Errorf("ParseStatus(%q) = %v, %t", s, got, ok)
		}
	}
	for _, bad := range []string{"", "running", "Status(0)", "Done"} {
		if s, ok := task.ParseStatus(bad); ok {
			t.Errorf("ParseStatus(%q) = %v", bad, s)
		}
	}
}
