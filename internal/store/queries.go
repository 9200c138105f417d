package store

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Queries are the named statements of a driver, read from its .sql files. A statement begins after a line
//
//	-- name: settle_states
//
// and ends at the next one; the comments between belong to it. Safe for concurrent use.
type Queries struct {
	text map[string]string
	mu   sync.Mutex
	used map[string]bool
}

var queryName = regexp.MustCompile(`(?m)^-- name: ([a-z_]+)\n`)

// LoadQueries reads every query/*.sql of files. It panics on a name that stands twice: the files are part of the
// program.
func LoadQueries(files fs.FS) *Queries {
	q := &Queries{text: map[string]string{}, used: map[string]bool{}}
	names, err := fs.Glob(files, "query/*.sql")
	if err != nil || len(names) == 0 {
		panic(fmt.Sprintf("store: no query files: %v", err))
	}
	for _, name := range names {
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			panic(fmt.Sprintf("store: %v", err))
		}
		text := string(raw)
		marks := queryName.FindAllStringSubmatchIndex(text, -1)
		for i, m := range marks {
			end := len(text)
			if i+1 < len(marks) {
				end = marks[i+1][0]
			}
			key := text[m[2]:m[3]]
			if _, ok := q.text[key]; ok {
				panic("store: statement " + key + " stands twice")
			}
			q.text[key] = withoutComments(text[m[1]:end])
		}
	}
	return q
}

func withoutComments(sql string) string {
	lines := slices.DeleteFunc(strings.Split(sql, "\n"), func(l string) bool {
		return strings.HasPrefix(strings.TrimSpace(l), "--")
	})
	return strings.TrimSuffix(strings.TrimSpace(strings.Join(lines, "\n")), ";")
}

// Get returns the statement name. It panics when there is none.
func (q *Queries) Get(name string) string {
	text, ok := q.text[name]
	if !ok {
		panic("store: no statement " + name)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used[name] = true
	return text
}

// Unused lists the statements that were never asked for; a test wants none.
func (q *Queries) Unused() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var names []string
	for name := range q.text {
		if !q.used[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
