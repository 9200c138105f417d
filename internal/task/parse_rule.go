package task

import (
	"slices"
	"strconv"
	"strings"

	"taskrunner/internal/jsonread"
)

// The largest limits of rules. The load of a million tasks with MaxExpectedCount stays within 64 bits.
const (
	MaxLimit    = 1_000_000_000
	MaxCapacity = 1_000_000_000_000_000
)

const (
	fieldMatcherKind = iota
	fieldMatcherStatus
	fieldMatcherFields
	matcherFieldCount
)

var matcherFields = []string{"kind", "status", "fields"}

const (
	fieldMatcher = iota
	fieldMaxR
	fieldMaxRR
	concurrencyFieldCount
)

const (
	fieldMaxCapacity   = fieldMatcher + 1
	capacityFieldCount = fieldMaxCapacity + 1
)

// The members of a rule; the last one only where it is tagged.
var (
	concurrencyFields = []string{"matcher", "max_concurency", "max_concurrency", "type"}
	capacityFields    = []string{"matcher", "max_capacity", "type"}
)

var ruleTypes = []string{"Concurency", "Concurrency", "Capacity"}

// ParseRules reads an array of rules in either dialect, from a client or as [MarshalRules] wrote them. Nothing and null
// are no rules. The error is [Problems]. It does not know the metadata of tasks; [Rule.Check] tells whether a field is
// missing. The rules do not refer to raw.
func ParseRules(raw []byte) ([]Rule, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if err := jsonread.CheckStored(raw, "rules"); err != nil {
		return nil, err
	}
	p := newParser("")
	rules := p.rules("rules", jsonread.Root(raw))
	if err := p.Err(); err != nil {
		return nil, err
	}
	return rules, nil
}

var editFields = []string{"kind", "rules"}

// ParseRulesEdit reads {"kind": …, "rules": […]}, of which both are required. The error is [Problems].
func ParseRulesEdit(body []byte) (kind string, rules []Rule, err error) {
	v, err := jsonread.Parse(body, "")
	if err != nil {
		return "", nil, err
	}
	p := newParser("")
	var f [2]jsonread.Value
	if p.Fields(v, editFields, f[:]) {
		kind = p.label("kind", f[0], MaxKind)
		if f[1].IsNull() {
			p.Addf("rules", "is required")
		}
		rules = p.rules("rules", f[1])
	}
	return kind, rules, p.Err()
}

// rules reads an array of them; left out there are none.
func (p *parser) rules(name string, v jsonread.Value) (rules []Rule) {
	if v.IsNull() {
		return nil
	}
	if rules, ok := p.ruleLists[string(v.Raw())]; ok {
		return rules
	}
	before := p.Count()
	p.list(name, v, MaxRules, "rules", func(element jsonread.Value) { rules = append(rules, p.rule(element)) })
	if p.Count() == before {
		p.ruleLists.add(v.Raw(), rules)
	}
	return rules
}

// rule reads {"type": "Concurency", …} or {"Concurency": {…}}.
func (p *parser) rule(v jsonread.Value) (rule Rule) {
	if !p.Object("", v) {
		return rule
	}
	count, kind, inner := 0, "", jsonread.Value{}
	for name, value := range v.Members {
		count++
		if i := slices.Index(ruleTypes, string(name)); i >= 0 {
			kind, inner = ruleTypes[i], value
		}
		if string(name) == "type" {
			return p.taggedRule(v, value)
		}
	}
	switch {
	case kind == "" && count == 1:
		for name := range v.Members {
			p.Addf("", "unknown field %s%s", jsonread.Quote(string(name)), jsonread.Suggest(string(name), ruleTypes))
		}
	case count != 1:
		p.Addf("", `must be {"Concurency": {…}} or {"type": "Concurency", …}`)
	default:
		p.Enter(kind)
		p.ruleOf(kind, inner, &rule)
		p.Leave()
	}
	return rule
}

func (p *parser) taggedRule(v, kindValue jsonread.Value) (rule Rule) {
	kind, ok := p.String("type", kindValue)
	switch {
	case !ok:
	case !slices.Contains(ruleTypes, kind):
		p.Addf("type", "must be Concurency or Capacity, is %s%s", jsonread.Quote(kind), jsonread.Suggest(kind, ruleTypes))
	default:
		rule.Form.Tagged = true
		p.ruleOf(kind, v, &rule)
	}
	return rule
}

// ruleOf reads the members of a rule of that type into rule, whose Form says already whether it is tagged.
func (p *parser) ruleOf(kind string, v jsonread.Value, rule *Rule) {
	names := concurrencyFields
	if kind == "Capacity" {
		names, rule.Type = capacityFields, Capacity
	}
	rule.Form.TypeRR = kind == "Concurrency"
	var room [concurrencyFieldCount + 1]jsonread.Value
	f := room[:len(names)]
	if !rule.Form.Tagged {
		names = names[:len(names)-1]
	}
	if !p.Fields(v, names, f) {
		return
	}
	rule.Matcher = p.matcher(f[fieldMatcher])
	if rule.Type == Capacity {
		p.capacity(f[fieldMaxCapacity], rule)
	} else {
		p.concurrency(f, rule)
	}
}

func (p *parser) capacity(limit jsonread.Value, rule *Rule) {
	if s := rule.Matcher.Status; s != Running && s != 0 {
		p.Enter("matcher")
		p.Addf("status", "must be Running in a Capacity rule, is %s", s)
		p.Leave()
	}
	if limit.IsNull() {
		p.Addf("max_capacity", "is required")
		return
	}
	n, _ := p.IntBetween("max_capacity", limit, 1, MaxCapacity)
	rule.Max = int(n)
}

func (p *parser) concurrency(f []jsonread.Value, rule *Rule) {
	name, limit := "max_concurency", f[fieldMaxR]
	switch {
	case !f[fieldMaxR].IsMissing() && !f[fieldMaxRR].IsMissing():
		p.Addf("", "must have one of max_concurency and max_concurrency, has both")
		return
	case !f[fieldMaxRR].IsMissing():
		name, limit, rule.Form.MaxRR = "max_concurrency", f[fieldMaxRR], true
	}
	if limit.IsNull() {
		p.Addf(name, "is required")
		return
	}
	n, _ := p.IntBetween(name, limit, 1, MaxLimit)
	rule.Max = int(n)
}

func (p *parser) matcher(v jsonread.Value) (m Matcher) {
	if v.IsNull() {
		p.Addf("matcher", "is required")
		return m
	}
	p.Enter("matcher")
	defer p.Leave()
	return p.matcherMembers(v, "what is claimed counts as Running")
}

// dedupe reads an array of matchers; left out there are none.
func (p *parser) dedupe(v jsonread.Value) (matchers []Matcher) {
	p.list("dedupe_strategy", v, MaxDedupe, "matchers", func(element jsonread.Value) {
		matchers = append(matchers, p.matcherMembers(element, "what is claimed is found as Pending"))
	})
	return matchers
}

// matcherMembers reads a matcher; claimed says as what it has tasks that are claimed, which is no status of clients.
func (p *parser) matcherMembers(v jsonread.Value, claimed string) (m Matcher) {
	var f [matcherFieldCount]jsonread.Value
	if !p.Fields(v, matcherFields, f[:]) {
		return m
	}
	m.Kind = p.label("kind", f[fieldMatcherKind], MaxKind)
	m.Status = p.matcherStatus(f[fieldMatcherStatus], claimed)
	m.Fields = p.matcherFields(f[fieldMatcherFields])
	return m
}

func (p *parser) matcherStatus(v jsonread.Value, claimed string) Status {
	if v.IsNull() {
		p.Addf("status", "is required")
		return 0
	}
	name, ok := p.String("status", v)
	if !ok {
		return 0
	}
	status, known := ParseStatus(name)
	switch {
	case !known:
		p.Addf("status", "unknown status %s%s", jsonread.Quote(name), jsonread.Suggest(name, statusNames[1:]))
		return 0
	case status == Claimed:
		p.Addf("status", "must not be Claimed: %s", claimed)
		return 0
	}
	return status
}

func (p *parser) matcherFields(v jsonread.Value) (fields []string) {
	p.list("fields", v, MaxFields, "fields", func(element jsonread.Value) {
		field, ok := p.text("", element)
		switch {
		case !ok:
		case strings.TrimSpace(field) == "":
			p.Addf("", "must not be empty")
		case slices.Contains(fields, field):
			p.Addf("", "duplicate %s", jsonread.Quote(field))
		default:
			fields = append(fields, field)
		}
	})
	return fields
}

// ruleNeeds checks that the task has what its rules need.
func (p *parser) ruleNeeds(t *Task) {
	md := ParseMetadata(t.Metadata)
	p.Enter("rules")
	defer p.Leave()
	for i, rule := range t.Rules {
		p.EnterIndex(i)
		for _, field := range rule.Lacks(md, t.ExpectedCount) {
			if field == "" {
				p.Addf("", "the task has no expected_count, which a Capacity rule needs")
			} else {
				p.Addf("", "the task's metadata has no field %s", jsonread.Quote(field))
			}
		}
		p.Leave()
	}
}

// MarshalRules is what [ParseRules] reads: compact JSON in which every rule has the dialect and the spelling it was sent
// in. No rules are [].
func MarshalRules(rules []Rule) []byte {
	out := []byte{'['}
	for i, rule := range rules {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendRule(out, rule)
	}
	return append(out, ']')
}

func appendRule(out []byte, rule Rule) []byte {
	kind, limit := rule.Type.String(), "max_concurency"
	switch {
	case rule.Type == Capacity:
		limit = "max_capacity"
	case rule.Form.MaxRR:
		limit = "max_concurrency"
	}
	if rule.Form.TypeRR {
		kind = "Concurrency"
	}
	if rule.Form.Tagged {
		out = append(append(append(out, `{"type":"`...), kind...), `",`...)
	} else {
		out = append(append(append(out, `{"`...), kind...), `":{`...)
	}
	out = jsonread.AppendString(append(out, `"matcher":{"kind":`...), rule.Matcher.Kind)
	out = jsonread.AppendString(append(out, `,"status":`...), rule.Matcher.Status.String())
	out = append(out, `,"fields":[`...)
	for i, field := range rule.Matcher.Fields {
		if i > 0 {
			out = append(out, ',')
		}
		out = jsonread.AppendString(out, field)
	}
	out = append(append(append(out, `]},"`...), limit...), `":`...)
	out = strconv.AppendInt(out, int64(rule.Max), 10)
	if !rule.Form.Tagged {
		out = append(out, '}')
	}
	return append(out, '}')
}
