package task

// Matcher names the tasks that a rule counts: those of Kind in Status whose metadata has, for every one of Fields,
// the same value as the task that carries the rule.
type Matcher struct {
	Kind   string
	Status Status
	// Fields are names of top-level metadata members, as sent.
	Fields []string
}

// Rule limits the matching tasks that there may be at once: their number, or the work that they have left.
type Rule struct {
	Matcher Matcher
	Type    RuleType
	// Max is at least 1. Of Concurrency: a task whose own kind is counted may start while fewer than Max are; any other
	// task while no more than Max are, since its start adds nothing to the count. Of Capacity: a task may start while
	// the load is below Max, however much it brings itself.
	Max int
	// Form is how the rule was spelled; it goes back to clients in the same form.
	Form RuleForm
}

// Lacks names what a task needs for the rule and has not: fields of its metadata, in the order of the matcher, and last
// expected_count, as "".
func (t Rule) Lacks(md Metadata, expected *int64) []string {
	var lacks []string
	if !md.hasAll(t.Matcher.Fields...) {
		for _, field := range t.Matcher.Fields {
			if !md.Has(field) {
				lacks = append(lacks, field)
			}
		}
	}
	if t.Type == Capacity && expected == nil {
		lacks = append(lacks, "")
	}
	return lacks
}

// RuleType is what a rule limits. The numbers are stored in the databases and never change their meaning.
type RuleType int16

const (
	// Concurrency limits the number of tasks.
	Concurrency RuleType = iota
	// Capacity limits their load: the sum of [State.Left]. Its matcher's status is Running.
	Capacity
	// Lookup is no rule. Its shapes limit nothing; they let tasks be found by kind, status and fields. Their gates are
	// stored nowhere, so whoever finds a task by one compares its key.
	Lookup
)

// String is the original's spelling on the wire; Lookup is never there.
func (t RuleType) String() string { return [...]string{"Concurency", "Capacity", "Lookup"}[t] }

// RuleForm is the spelling of a rule on the wire. The zero value is the original's.
type RuleForm struct {
	// Tagged: {"type": "Concurency", …}, the later dialect, instead of {"Concurency": {…}}.
	Tagged bool
	// TypeRR and MaxRR: "Concurrency" and "max_concurrency" with two r. Of Concurrency only.
	TypeRR bool
	MaxRR  bool
}

// GateID is the 64-bit hash of a gate's key: a matcher with concrete field values. A store keeps the key beside
// it, so that two keys with one hash are told apart from one key.
type GateID int64

// ShapeID is the 64-bit hash of a matcher without its values.
type ShapeID int64
