package task

// Matcher names the tasks that a rule counts: those of Kind in Status whose metadata has, for every one of Fields,
// the same value as the task that carries the rule.
type Matcher struct {
	Kind   string
	Status Status
	// Fields are names of top-level metadata members, as sent.
	Fields []string
}

// Rule limits how many matching tasks there may be at once.
type Rule struct {
	Matcher Matcher
	// Max is at least 1. A task whose own kind is counted may start while fewer than Max are; any other task
	// while no more than Max are, since its start adds nothing to the count.
	Max int
	// Form is how the rule was spelled; it goes back to clients in the same form.
	Form RuleForm
}

// RuleForm is the spelling of a rule on the wire. The zero value is the original's.
type RuleForm struct {
	// Tagged: {"type": "Concurency", …}, the later dialect, instead of {"Concurency": {…}}.
	Tagged bool
	// TypeRR and MaxRR: "Concurrency" and "max_concurrency" with two r.
	TypeRR bool
	MaxRR  bool
}

// GateID is the 64-bit hash of a gate's key: a matcher with concrete field values. A store keeps the key beside
// it, so that two keys with one hash are told apart from one key.
type GateID int64

// ShapeID is the 64-bit hash of a matcher without its values.
type ShapeID int64
