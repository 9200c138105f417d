package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"taskrunner/internal/jsonread"
)

// Problems are what is wrong with a request, each with its path. As an error they are meant for the client.
type Problems = jsonread.Problems

// Problem is one of [Problems].
type Problem = jsonread.Problem

// ErrTooManyTasks is returned by [ParseBatch] when the request has more tasks than it may.
var ErrTooManyTasks = errors.New("too many tasks")

// Limits that the specification leaves open; generous, and there so that every request has bounds.
const (
	MaxLocalID = 255 // characters
	MaxRules   = 20  // of a task
	MaxFields  = 100 // of a matcher
	MaxActions = 20  // of a trigger
	MaxDedupe  = 20  // matchers of a dedupe_strategy
	MaxLookups = 100 // different ones of a batch: whoever asks for the same waits, and each is an index of a kind
	// MaxExpectedCount keeps the sum over a batch of a million tasks within 64 bits.
	MaxExpectedCount = 1_000_000_000_000
)

// ParseParams is what [ParseBatch] needs from around it.
type ParseParams struct {
	// MaxTasks is how many tasks one request may have; 0: no limit.
	MaxTasks int
	// NewID makes ids, each greater than those before. Required.
	NewID func() ID
	// CheckURL refuses addresses that must not be called; its error is shown to the client. Nil: none is refused
	// but what is no absolute http or https URL. An address that repeats may be asked for only once.
	CheckURL func(rawURL string) error
}

// ParseBatch reads the body of POST /task: an array of tasks, in any order of dependencies, or an object with them and
// what is said of the batch as a whole. The Batch has everything but Requester and the tasks' CreatedAt; an empty array is
// a Batch without tasks. The body is read to its end, task by task, so that it is never in memory as a whole.
//
// The error is [Problems] with every mistake, or wraps [ErrTooManyTasks], or is that of reading body. Then the Batch is not
// nil either, but has nothing except its ID, under which the answer can speak of it. Not for concurrent use of p.NewID.
func ParseBatch(body io.Reader, p ParseParams) (*Batch, error) {
	batch := &Batch{ID: p.NewID()}
	read := &Batch{ID: batch.ID, Metadata: json.RawMessage("{}")}
	in := jsonread.NewStream(body)
	b := batchParser{parser: *newParser("tasks"), in: in, maxTasks: p.MaxTasks, places: map[string]int{}}
	b.checkURL = p.CheckURL
	whole := newParser("")
	whole.checkURL = p.CheckURL
	switch kind := in.Kind(); kind {
	case jsonread.Array:
		in.Enter("tasks")
		b.readTasks()
	case jsonread.Object:
		b.object(whole, read)
	default:
		in.Value()
		whole.Addf("", `must be an array of tasks, or an object with "tasks", is %s`, kind)
	}
	if b.tooMany {
		return batch, fmt.Errorf("%w: at most %d are allowed in one request", ErrTooManyTasks, p.MaxTasks)
	}
	if in.End(); in.Err() != nil {
		return batch, in.Err()
	}
	b.finish()
	whole.AddAll(b.Reader)
	if err := whole.Err(); err != nil {
		return batch, err
	}
	read.Tasks = b.tasks
	for _, t := range read.Tasks {
		t.ID, t.BatchID = p.NewID(), read.ID
	}
	b.link(read.Tasks)
	return read, nil
}

// parser reads parts of tasks and collects what is wrong with them.
type parser struct {
	*jsonread.Reader
	checkURL func(rawURL string) error // nil: any

	// Much is the same in every task of a batch, and is read once.

	texts      recent
	urls       recent // those that were checked and are good
	ruleLists  memo[[]Rule]
	headerMaps memo[map[string]string]
}

func newParser(root string) *parser { return &parser{Reader: jsonread.NewReader(root)} }

// memo remembers what JSON was read to, without a problem.
type memo[T any] map[string]T

const maxMemo = 64

func (m *memo[T]) add(raw []byte, value T) {
	if *m == nil {
		*m = memo[T]{}
	}
	if len(*m) >= maxMemo {
		clear(*m)
	}
	(*m)[string(raw)] = value
}

// recent remembers texts that came lately, each in one slot.
type recent [32]string

func (r *recent) slot(text []byte) *string {
	if len(text) == 0 {
		return &r[0]
	}
	hash := len(text)*7 + int(text[len(text)/2])*3 + int(text[len(text)-1])
	return &r[hash%len(r)]
}

// copy is the text as a string, which is a new one only if it did not come lately.
func (r *recent) copy(text []byte) string {
	slot := r.slot(text)
	if *slot != string(text) {
		*slot = string(text)
	}
	return *slot
}

// text reads a string, as Reader.String does.
func (p *parser) text(name string, v jsonread.Value) (string, bool) {
	if !p.Is(name, v, jsonread.String) {
		return "", false
	}
	return p.texts.copy(v.TextBytes()), true
}

// Members of a task, as indexes of taskFields.
const (
	fieldID = iota
	fieldName
	fieldKind
	fieldTimeout
	fieldMetadata
	fieldOnStart
	fieldDependencies
	fieldOnSuccess
	fieldOnFailure
	fieldRules
	fieldPriority
	fieldExpectedCount
	fieldDeadEndBarrier
	fieldDedupeStrategy
	taskFieldCount
)

var taskFields = []string{
	"id", "name", "kind", "timeout", "metadata", "on_start", "dependencies", "on_success", "on_failure", "rules",
	"priority", "expected_count", "dead_end_barrier", "dedupe_strategy",
}

// task reads the task v, all but what needs to know the other tasks: its dependencies are returned as they stand there.
func (p *parser) task(v jsonread.Value, t *Task) (dependencies jsonread.Value) {
	var f [taskFieldCount]jsonread.Value
	if !p.Fields(v, taskFields, f[:]) {
		return jsonread.Value{}
	}
	t.LocalID = p.label("id", f[fieldID], MaxLocalID)
	t.Name = p.label("name", f[fieldName], MaxName)
	t.Kind = p.label("kind", f[fieldKind], MaxKind)
	t.Timeout = DefaultTimeout
	if v := f[fieldTimeout]; !v.IsNull() {
		seconds, _ := p.IntBetween("timeout", v, int64(MinTimeout/time.Second), int64(MaxTimeout/time.Second))
		t.Timeout = time.Duration(seconds) * time.Second
	}
	if v := f[fieldPriority]; !v.IsNull() {
		priority, _ := p.IntBetween("priority", v, MinPriority, MaxPriority)
		t.Priority = int(priority)
	}
	if v := f[fieldExpectedCount]; !v.IsNull() {
		count, _ := p.IntBetween("expected_count", v, 0, MaxExpectedCount)
		t.ExpectedCount = &count
	}
	if v := f[fieldDeadEndBarrier]; !v.IsNull() {
		t.DeadEndBarrier, _ = p.Bool("dead_end_barrier", v)
	}
	t.Dedupe = p.dedupe(f[fieldDedupeStrategy])
	var ok bool
	t.Metadata, ok = p.metadata(f[fieldMetadata])
	t.Rules = p.rules("rules", f[fieldRules])
	if ok && len(t.Rules) > 0 {
		p.ruleNeeds(t)
	}
	t.OnStart, _ = p.action("on_start", f[fieldOnStart], TriggerStart)
	t.OnSuccess = p.actions("on_success", f[fieldOnSuccess], TriggerSuccess)
	t.OnFailure = p.actions("on_failure", f[fieldOnFailure], TriggerFailure)
	return f[fieldDependencies]
}

// lookups counts the different shapes by which duplicates are looked for.
func lookups(tasks []*Task) int {
	shapes := map[ShapeID]bool{}
	for _, t := range tasks {
		for _, m := range t.Dedupe {
			shapes[m.Lookup().ID] = true
		}
	}
	return len(shapes)
}

// list reads an array of up to limit things, one by each in the place of its element; left out there are none.
func (p *parser) list(name string, v jsonread.Value, limit int, things string, each func(element jsonread.Value)) {
	if v.IsNull() || !p.Array(name, v) {
		return
	}
	p.Enter(name)
	defer p.Leave()
	for i, element := range v.Elements {
		if i == limit {
			p.Addf("", "must have at most %d %s", limit, things)
			break
		}
		p.EnterIndex(i)
		each(element)
		p.Leave()
	}
}

// label reads a text that is not blank and has at most limit characters.
func (p *parser) label(name string, v jsonread.Value, limit int) string {
	if v.IsNull() {
		p.Addf(name, "is required")
		return ""
	}
	text, ok := p.text(name, v)
	switch {
	case !ok:
	case strings.TrimSpace(text) == "":
		p.Addf(name, "must not be empty")
	case len(text) > limit && utf8.RuneCountInString(text) > limit:
		p.Addf(name, "must have at most %d characters, has %d", limit, utf8.RuneCountInString(text))
	}
	return text
}

// metadata reads an object, compacts it and checks its size. Left out it is {}.
func (p *parser) metadata(v jsonread.Value) (json.RawMessage, bool) {
	if v.IsNull() {
		return json.RawMessage("{}"), true
	}
	if !p.Object("metadata", v) {
		return nil, false
	}
	compact := v.AppendCompact(make([]byte, 0, len(v.Raw())))
	if len(compact) > MaxMetadata {
		return nil, p.Addf("metadata", "must have at most %d bytes, has %d", MaxMetadata, len(compact))
	}
	return compact, true
}

// batchParser reads the tasks of one request and how they depend on one another.
type batchParser struct {
	parser
	in       *jsonread.Stream
	maxTasks int
	tooMany  bool

	tasks  []*Task
	places map[string]int // of local ids, in request order
	// parents are the dependencies of tasks as they stand there, in request order.
	parents []parentList
	graph   Graph
	// requiresSuccess of each edge of the graph, in its order.
	requiresSuccess []bool
}

// parentList are the dependencies of a task.
type parentList struct {
	task int
	list jsonread.Value
}

// readTasks reads all of them. Their ids and dependencies are still missing.
func (b *batchParser) readTasks() {
	for i, element := range b.in.Elements {
		if b.maxTasks > 0 && i == b.maxTasks {
			b.tooMany = true
			return
		}
		t := new(Task)
		b.EnterIndex(i)
		if list := b.task(element, t); !list.IsNull() {
			b.parents = append(b.parents, parentList{i, list.Clone()})
		}
		if t.LocalID != "" {
			if first, ok := b.places[t.LocalID]; ok {
				b.Addf("id", "duplicate %s, already the id of tasks[%d]", jsonread.Quote(t.LocalID), first)
			} else {
				b.places[t.LocalID] = i
			}
		}
		b.Leave()
		b.tasks = append(b.tasks, t)
	}
}

// finish checks what takes all tasks.
func (b *batchParser) finish() {
	b.dependencies()
	if n := lookups(b.tasks); n > MaxLookups {
		b.Addf("", "must have at most %d different matchers in their dedupe_strategy, have %d", MaxLookups, n)
	}
}
