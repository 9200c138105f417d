package httpapi

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"taskrunner/internal/jsonread"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

// Bounds of a page.
const (
	defaultPage = 50
	maxPage     = 100
	// maxIDs is how many tasks one list may name: as many as a page has.
	maxIDs = maxPage
	// maxOffset is beyond every list, and within what databases count.
	maxOffset = 1_000_000_000
)

// list is a query for tasks or batches, understood.
type list struct {
	filter store.Filter
	// known are the parameters it came from. Others were ignored.
	known url.Values
	// linked: who asks goes from link to link, by a cursor, which is empty at the beginning. A page may be short then. All
	// others want their page full, as the original's clients do, which know of no links.
	linked bool
}

// filters reads each parameter into a filter, or returns what is wrong with it. An empty one counts as left out.
type filters map[string]func(f *store.Filter, values []string) string

var (
	taskFilters = filters{
		"status":         filterStatus,
		"kind":           filterKind,
		"name":           filterName,
		"batch_id":       filterBatch,
		"ids":            filterIDs,
		"metadata":       filterMetadata,
		"timeout":        filterTimeout,
		"created_after":  filterCreatedAfter,
		"created_before": filterCreatedBefore,
		"sort":           filterSort,
		"cursor":         filterCursor,
	}
	batchFilters = filters{
		"status":         filterStatus,
		"kind":           filterKind,
		"name":           filterName,
		"scope":          filterScope,
		"metadata":       filterMetadata,
		"created_after":  filterCreatedAfter,
		"created_before": filterCreatedBefore,
		"sort":           filterBatchSort,
		"cursor":         filterCursor,
	}
	deliveryFilters = filters{
		"state":    filterDeliveryState,
		"status":   filterDeliveryState, // as GET /webhook-deliveries calls it
		"host":     filterHost,
		"task_id":  filterTask,
		"batch_id": filterBatch,
		"cursor":   filterCursor,
	}
	hostFilters = filters{"cursor": filterHost}
)

// parseList reads the query of a list. The error names every parameter that is wrong.
func parseList(rawQuery string, filters filters) (list, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return list{}, invalidf("the query is not well-formed")
	}
	l := list{known: url.Values{}}
	wrong := &failure{code: invalid}
	for name, values := range query {
		filter, known := filters[name]
		if !known && name != "page" && name != "per_page" && name != "page_size" {
			continue
		}
		values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
		if len(values) == 0 {
			continue
		}
		l.known[name] = values
		reason := ""
		switch {
		case len(values) > 1 && name != "status" && name != "state" && name != "ids":
			reason = "stands more than once"
		case filter != nil:
			reason = filter(&l.filter, values)
		}
		if reason != "" {
			wrong.details = append(wrong.details, name+": "+reason)
		}
	}
	wrong.details = append(wrong.details, l.page()...)
	l.linked = l.filter.Before != (task.ID{}) || query.Has("cursor") && l.known.Get("page") == ""
	if len(wrong.details) == 0 {
		wrong.details = l.order()
	}
	if len(wrong.details) > 0 {
		slices.Sort(wrong.details)
		return list{}, wrong
	}
	return l, nil
}

// page reads which part of the list is asked for, within bounds. A cursor has the place in it already.
func (l *list) page() (wrong []string) {
	number := func(name string, otherwise, low, high int) int {
		text := l.known.Get(name)
		if text == "" {
			return otherwise
		}
		n, ok := clamped(text, low, high)
		if !ok {
			wrong = append(wrong, name+": must be a whole number, is "+jsonread.Quote(text))
		}
		return n
	}
	size := number("page_size", max(defaultPage, len(l.filter.IDs)), 1, maxPage) // who names tasks wants all of them
	size = number("per_page", size, 1, maxPage)
	page := number("page", 0, 0, maxOffset/maxPage)
	l.filter.Limit = size
	if l.filter.Before == (task.ID{}) {
		l.filter.Offset = page * size
	}
	return wrong
}

// order is what is wrong with the order of the list, or with its cursor, which has to be one of that order.
func (l *list) order() (wrong []string) {
	updated := l.filter.Sort == store.SortUpdated
	if updated && !l.filter.Bounded() {
		wrong = append(wrong, "sort: updated needs batch_id, ids or status=Running")
	}
	if l.filter.Before != (task.ID{}) && updated == l.filter.BeforeUpdate.IsZero() {
		wrong = append(wrong, "cursor: is one of another sort")
	}
	return wrong
}

// clamped reads a whole number of any length and moves it between low and high.
func clamped(text string, low, high int) (n int, ok bool) {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	switch {
	case err == nil:
		return min(max(n, low), high), true
	case text[0] == '-':
		return low, true
	}
	return high, true
}

func filterStatus(f *store.Filter, values []string) string {
	for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name = strings.TrimSpace(name)
		status, ok := task.ParseStatus(name)
		if !ok {
			var names []string
			for _, s := range task.Statuses() {
				names = append(names, s.String())
			}
			return "unknown status " + jsonread.Quote(name) + jsonread.Suggest(name, names)
		}
		add := []task.Status{status}
		if status == task.Pending {
			add = append(add, task.Claimed)
		}
		for _, s := range add {
			if !slices.Contains(f.Statuses, s) {
				f.Statuses = append(f.Statuses, s)
			}
		}
	}
	return ""
}

func filterKind(f *store.Filter, values []string) string {
	if prefix, ok := strings.CutSuffix(values[0], "*"); ok {
		f.KindPrefix = prefix
	} else {
		f.Kind = values[0]
	}
	return textProblem(values[0])
}

func filterName(f *store.Filter, values []string) string {
	f.NamePart = values[0]
	return textProblem(values[0])
}

func filterScope(f *store.Filter, values []string) string {
	f.Scope = values[0]
	return textProblem(values[0])
}

// textProblem is why a database cannot look for text; empty when it can.
func textProblem(text string) string {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return "must be UTF-8 without NUL characters"
	}
	return ""
}

func filterBatch(f *store.Filter, values []string) (reason string) {
	f.Batch, reason = filterID(values[0])
	return reason
}

func filterTask(f *store.Filter, values []string) (reason string) {
	f.Task, reason = filterID(values[0])
	return reason
}

// filterHost takes a host as it may stand in a URL; they are stored as [store.Host] has them.
func filterHost(f *store.Filter, values []string) string {
	f.Host = strings.ToLower(values[0])
	return textProblem(values[0])
}

func filterDeliveryState(f *store.Filter, values []string) string {
	for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name = strings.TrimSpace(name)
		state := store.DeliveryState(slices.Index(deliveryStates, name))
		if name == "" || state < 0 {
			return "unknown state " + jsonread.Quote(name) + jsonread.Suggest(name, deliveryStates[1:])
		}
		if !slices.Contains(f.DeliveryStates, state) {
			f.DeliveryStates = append(f.DeliveryStates, state)
		}
	}
	return ""
}

func filterIDs(f *store.Filter, values []string) string {
	for text := range strings.SplitSeq(strings.Join(values, ","), ",") {
		id, reason := filterID(strings.TrimSpace(text))
		if reason != "" {
			return reason
		}
		if !slices.Contains(f.IDs, id) {
			f.IDs = append(f.IDs, id)
		}
		if len(f.IDs) > maxIDs {
			return "must be at most " + strconv.Itoa(maxIDs)
		}
	}
	return ""
}

func filterSort(f *store.Filter, values []string) string {
	switch values[0] {
	case "created":
	case "updated":
		f.Sort = store.SortUpdated
	default:
		return "must be created or updated, is " + jsonread.Quote(values[0])
	}
	return ""
}

func filterBatchSort(f *store.Filter, values []string) string {
	reason := filterSort(f, values)
	if f.Sort == store.SortUpdated {
		return "batches are listed by created only"
	}
	return reason
}

// cursor is where a list continues after an item, for [filterCursor].
func cursor(id task.ID, updated time.Time, sort store.Sort) string {
	if sort == store.SortUpdated {
		return strconv.FormatInt(updated.UnixMicro(), 10) + "." + id.String()
	}
	return id.String()
}

func filterCursor(f *store.Filter, values []string) (reason string) {
	text := values[0]
	if updated, id, ok := strings.Cut(text, "."); ok {
		micros, err := strconv.ParseUint(updated, 10, 57) // that is up to the year 6500
		if err != nil {
			return jsonread.Quote(text) + " is not one that Link gave"
		}
		f.BeforeUpdate, text = time.UnixMicro(int64(micros)).UTC(), id
	}
	f.Before, reason = filterID(text)
	return reason
}

func filterID(text string) (task.ID, string) {
	id, err := task.ParseID(text)
	if err != nil || id == (task.ID{}) {
		return id, jsonread.Quote(text) + " is not a UUID"
	}
	return id, ""
}

func filterMetadata(f *store.Filter, values []string) string {
	v, err := jsonread.Parse([]byte(values[0]), "")
	if err != nil {
		return err.Error()
	}
	if v.Kind() != jsonread.Object {
		return "must be a JSON object, is " + v.Kind().String()
	}
	if f.Metadata = v.AppendCompact(nil); len(f.Metadata) > task.MaxMetadata {
		return "is too large"
	}
	return ""
}

func filterTimeout(f *store.Filter, values []string) string {
	const high = int(task.MaxTimeout / time.Second)
	n, err := strconv.Atoi(values[0])
	if err != nil || n < 1 || n > high {
		return "must be whole seconds between 1 and " + strconv.Itoa(high) + ", is " + jsonread.Quote(values[0])
	}
	f.Timeout = time.Duration(n) * time.Second
	return ""
}

func filterCreatedAfter(f *store.Filter, values []string) (reason string) {
	f.CreatedAfter, reason = filterTime(values[0])
	return reason
}

// filterCreatedBefore rounds up: stores know microseconds.
func filterCreatedBefore(f *store.Filter, values []string) (reason string) {
	f.CreatedBefore, reason = filterTime(values[0])
	f.CreatedBefore = f.CreatedBefore.Add(time.Microsecond - 1).Truncate(time.Microsecond)
	return reason
}

// filterTime reads a time; nothing is older than its epoch.
func filterTime(text string) (time.Time, string) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		reason := "must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z, is " + jsonread.Quote(text)
		if strings.Contains(text, " ") {
			reason += "; a + has to be written as %2B in a URL"
		}
		return at, reason
	}
	if epoch := time.Unix(0, 0); at.Before(epoch) {
		at = epoch
	}
	return at.UTC(), ""
}
