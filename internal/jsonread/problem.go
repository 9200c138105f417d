package jsonread

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxProblems is how many problems are listed at most; the rest is only counted.
const MaxProblems = 100

// Problem is one mistake in a request.
type Problem struct {
	// Path is the place, such as "tasks[3].timeout"; empty for the request as a whole.
	Path    string
	Message string
}

// String is "path: message", or the message alone when there is no path.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// Problems are the mistakes in a request, in the order in which they were found. As an error they say what the
// client did wrong, and are meant for its eyes. When there were more than [MaxProblems], the last one says how many.
type Problems []Problem

// Error has one problem a line.
func (p Problems) Error() string { return strings.Join(p.Strings(), "\n") }

// Strings renders each problem, for the "details" of an answer.
func (p Problems) Strings() []string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return lines
}

// Quote shows s in a message, in double quotes: what does not print is escaped, and what is long is cut.
func Quote(s string) string {
	const limit = 80 // characters; enough to recognize any sensible name
	if utf8.RuneCountInString(s) <= limit {
		return strconv.Quote(s)
	}
	return strconv.Quote(string([]rune(s[:min(len(s), limit*utf8.UTFMax)])[:limit]) + "…")
}

// Suggest is `, did you mean "timeout"?` with the member of known that is closest to name, and empty when none is
// close.
func Suggest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, distance := "", 1+max(1, len(name)/3)
	for _, candidate := range known {
		d := 0
		if !strings.EqualFold(name, candidate) {
			d = editDistance(strings.ToLower(name), strings.ToLower(candidate))
		}
		if d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// editDistance counts the insertions, deletions, replacements and swaps of adjacent letters that lead from a to b.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// step is one part of a path: a member's name, or the place of an element when the name is empty.
type step struct {
	name  string
	index int
}

// renderPath joins steps as "tasks[3].timeout". Names that are not plain words are quoted, in brackets.
func renderPath(steps []step) string {
	var path strings.Builder
	for i, s := range steps {
		switch {
		case s.name == "" && s.index >= 0:
			fmt.Fprintf(&path, "[%d]", s.index)
		case !plainName(s.name):
			fmt.Fprintf(&path, "[%s]", Quote(s.name))
		case i > 0:
			path.WriteString("." + s.name)
		default:
			path.WriteString(s.name)
		}
	}
	return path.String()
}

func plainName(name string) bool {
	for _, r := range name {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}
