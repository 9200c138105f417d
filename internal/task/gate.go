package task

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"

	"taskrunner/internal/jsonread"
)

// Shape is a rule without its limit and without the values that one task gives it. Rules of many tasks share few shapes.
// Two shapes with one ID are the same, or a collision of hashes: a store compares the rest.
type Shape struct {
	ID     ShapeID
	Type   RuleType
	Kind   string
	Status Status
	Fields []string // sorted
}

// Gate is a shape with concrete values: what is counted, and what tasks wait at. Two gates with one ID are the same, or
// a collision of hashes: a store compares Shape and Values.
type Gate struct {
	ID    GateID
	Shape ShapeID
	// Values is the canonical JSON array of the values of Shape's fields, in their order.
	Values string
}

// Check is a condition for the start of a task: less than Limit of the gate is used.
type Check struct {
	Gate  Gate
	Limit int
	// Inclusive: Limit is one more than the rule's Max, so that the task may start while no more than Max are there.
	Inclusive bool
}

// Shape is what the matcher counts by. The order of its fields does not matter.
func (m Matcher) Shape() Shape { return m.shape(Concurrency) }

// Shape is what the rule limits.
func (t Rule) Shape() Shape { return t.Matcher.shape(t.Type) }

func (m Matcher) shape(what RuleType) Shape {
	fields := sorted(m.Fields)
	var room [256]byte
	key := append(room[:0], "shape"...)
	key = binary.AppendVarint(key, int64(what))
	key = appendKey(key, m.Kind)
	key = binary.AppendVarint(key, int64(m.Status))
	for _, field := range fields {
		key = appendKey(key, field)
	}
	return Shape{ID: ShapeID(hash64(key)), Type: what, Kind: m.Kind, Status: m.Status, Fields: fields}
}

// Tallied reports whether the shape counts tasks otherwise than by the slots they hold, which are taken and given back
// with their place: what a task adds to it has to be found anew whenever the task changes.
func (s Shape) Tallied() bool { return s.Type != Concurrency || s.Status != Running }

// Tally is what the task in state adds to its gate of a tallied shape; expected is its ExpectedCount. It is false when the
// task is nothing that the shape counts. Of Lookup what is added is 0.
func (s Shape) Tally(state *State, expected *int64) (n int, counted bool) {
	if state.Kind != s.Kind {
		return 0, false
	}
	switch s.Type {
	case Capacity:
		n = state.Left(expected)
		return n, n > 0 && state.HoldsSlots()
	case Lookup:
		return 0, state.Status.Shown() == s.Status
	}
	return 1, state.Status == s.Status
}

// Lookup is the shape by which tasks are found that the matcher matches. A claimed task is found as Pending.
func (m Matcher) Lookup() Shape { return m.shape(Lookup) }

// Gate is where a task with the metadata md counts. It is false when md lacks one of the fields: then the task is
// nothing that the shape counts. A field that is null has the value null.
func (s Shape) Gate(md Metadata) (Gate, bool) {
	var room [8]jsonread.Value
	found := room[:]
	if len(s.Fields) > len(room) {
		found = make([]jsonread.Value, len(s.Fields))
	}
	if !md.find(s.Fields, found) {
		return Gate{}, false
	}
	var keyRoom [256]byte
	key := append(keyRoom[:0], "gate"...)
	key = binary.BigEndian.AppendUint64(key, uint64(s.ID))
	start := len(key)
	key = append(key, '[')
	for i := range s.Fields {
		if i > 0 {
			key = append(key, ',')
		}
		key = appendCanonical(key, found[i])
	}
	key = append(key, ']')
	return Gate{ID: GateID(hash64(key)), Shape: s.ID, Values: string(key[start:])}, true
}

// Check is the condition that the rule puts on the start of a task of that kind with the metadata md. It is false when
// md lacks a field of the matcher, which [ParseBatch] does not let through.
func (t Rule) Check(kind string, md Metadata) (Check, bool) {
	gate, ok := t.Shape().Gate(md)
	if !ok {
		return Check{}, false
	}
	check := Check{Gate: gate, Limit: t.Max}
	// The start of a task of another kind adds nothing to the count; one that waits is itself counted as Pending.
	if t.Type == Concurrency && (kind != t.Matcher.Kind || t.Matcher.Status == Pending) {
		check.Limit++
		check.Inclusive = true
	}
	return check, true
}

// appendKey appends a text so that no two lists of texts come out as the same bytes.
func appendKey(key []byte, text string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(text))), text...)
}

func hash64(key []byte) int64 {
	sum := sha256.Sum256(key)
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// Metadata is the top level of a task's metadata, for looking fields up. Nothing is parsed before that. The zero value
// has no fields. Safe for concurrent use.
type Metadata struct{ root jsonread.Value }

// ParseMetadata views raw, a JSON object that was checked once: what [Task] holds, or what came back from a store.
// It keeps a reference to raw. Anything but an object has no fields.
func ParseMetadata(raw json.RawMessage) Metadata { return Metadata{jsonread.Root(raw)} }

// Has reports whether there is a top-level member of that name. It may be null.
func (m Metadata) Has(field string) bool { return m.hasAll(field) }

func (m Metadata) hasAll(fields ...string) bool {
	var room [8]jsonread.Value
	found := room[:]
	if len(fields) > len(room) {
		found = make([]jsonread.Value, len(fields))
	}
	return m.find(sorted(fields), found)
}

// sorted is fields in order; the same slice where it is so already.
func sorted(fields []string) []string {
	if slices.IsSorted(fields) {
		return fields
	}
	return slices.Sorted(slices.Values(fields))
}

// find sets found[i] to the value of each field, going through the metadata once, and reports whether all are there.
// The fields are sorted and have no duplicates.
func (m Metadata) find(fields []string, found []jsonread.Value) bool {
	missing := len(fields)
	if missing == 0 {
		return true
	}
	for name, value := range m.root.Members {
		i, ok := slices.BinarySearchFunc(fields, name, compareName)
		if !ok {
			continue
		}
		found[i] = value
		if missing--; missing == 0 {
			return true
		}
	}
	return false
}

func compareName(field string, name []byte) int {
	if text := string(name); field != text { // does not allocate: the text does not escape
		if field < text {
			return -1
		}
		return 1
	}
	return 0
}
