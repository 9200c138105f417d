package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"taskrunner/api"
	"taskrunner/internal/store"
	"taskrunner/internal/task"
)

func TestParseList(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]store.Filter{
		"":                                     {Limit: 50},
		"page=2&per_page=10":                   {Offset: 20, Limit: 10},
		"page=2&page_size=10":                  {Offset: 20, Limit: 10},
		"page_size=7&per_page=10":              {Limit: 10},
		"page=-5&per_page=0":                   {Limit: 1},
		"page=&per_page=&status=":              {Limit: 50},
		"per_page=1000":                        {Limit: 100},
		"per_page=99999999999999999999999999":  {Limit: 100},
		"per_page=-99999999999999999999999999": {Limit: 1},
		"page=99999999999999999999999999":      {Offset: 500_000_000, Limit: 50},
		"status=Running":                       {Statuses: []task.Status{task.Running}, Limit: 50},
		"status=Claimed":                       {Statuses: []task.Status{task.Claimed}, Limit: 50},
		"status=Pending":                       {Statuses: []task.Status{task.Pending, task.Claimed}, Limit: 50},
		"status=Claimed,%20Pending,Success&status=Running": {Statuses: []task.Status{task.Claimed, task.Pending, task.Success, task.Running}, Limit: 50},
		"kind=data":                          {Kind: "data", Limit: 50},
		"kind=data*":                         {KindPrefix: "data", Limit: 50},
		"kind=*":                             {Limit: 50},
		"kind=a*b":                           {Kind: "a*b", Limit: 50},
		"name=x%25y":                         {NamePart: "x%y", Limit: 50},
		"batch_id=" + idA:                    {Batch: testID(2), Limit: 50},
		"cursor=" + idA + "&page=4":          {Before: testID(2), Limit: 50},
		"ids=" + idB + "&ids=&cursor=" + idA: {IDs: []task.ID{testID(3)}, Before: testID(2), Limit: 50},
		"ids=" + idB + ",%20" + strings.ToUpper(idA) + "," + idB + "&ids=" + idA: {IDs: []task.ID{testID(3), testID(2)}, Limit: 50},
		"ids=" + manyIDs(100) + "," + manyIDs(100):                               {IDs: testIDs(100), Limit: 100},
		"ids=" + manyIDs(70) + "&page=1":                                         {IDs: testIDs(70), Limit: 70, Offset: 70},
		"ids=" + manyIDs(70) + "&per_page=10":                                    {IDs: testIDs(70), Limit: 10},
		"ids=":                                                                   {Limit: 50},
		"timeout=86400":                                                          {Timeout: 24 * time.Hour, Limit: 50},
		"metadata=" + url.QueryEscape(` {"a": [1, {"b": null}]} `):               {Metadata: []byte(`{"a":[1,{"b":null}]}`), Limit: 50},
		"metadata={}":                                                            {Metadata: []byte(`{}`), Limit: 50},
		"nonsense=1&nonsense=2&Status=x&__proto__=1&page=1&color=%00%ff":         {Offset: 50, Limit: 50},
		"kind=data*&status=Failure&name=n&timeout=1&batch_id=" + unknown:         {KindPrefix: "data", Statuses: []task.Status{task.Failure}, NamePart: "n", Timeout: time.Second, Batch: testID(0xffff), Limit: 50},
		"created_after=2026-01-02T03:04:05Z":                                     {CreatedAfter: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Limit: 50},
		"created_before=" + url.QueryEscape("2026-01-02T03:04:05.123456+02:00"):  {CreatedBefore: time.Date(2026, 1, 2, 1, 4, 5, 123456000, time.UTC), Limit: 50},
		"created_before=2026-01-02T03:04:05.123456001Z":                          {CreatedBefore: time.Date(2026, 1, 2, 3, 4, 5, 123457000, time.UTC), Limit: 50},
		"sort=created&cursor=" + idA:                                             {Before: testID(2), Limit: 50},
		"sort=&status=Success":                                                   {Statuses: []task.Status{task.Success}, Limit: 50},
		"sort=updated&status=Running,Claimed&page=2":                             {Sort: store.SortUpdated, Statuses: []task.Status{task.Running, task.Claimed}, Offset: 100, Limit: 50},
		"sort=updated&status=Success&batch_id=" + idA:                            {Sort: store.SortUpdated, Statuses: []task.Status{task.Success}, Batch: testID(2), Limit: 50},
		"sort=updated&page=2&ids=" + idB + "&cursor=1767323045123456." + idA:     {Sort: store.SortUpdated, IDs: []task.ID{testID(3)}, Before: testID(2), BeforeUpdate: time.UnixMicro(1767323045123456).UTC(), Limit: 50},
		"sort=updated&ids=" + idB + "&cursor=0." + idA:                           {Sort: store.SortUpdated, IDs: []task.ID{testID(3)}, Before: testID(2), BeforeUpdate: time.Unix(0, 0).UTC(), Limit: 50},
		"created_after=0001-01-01T00:00:00Z&created_before=":                     {CreatedAfter: time.Unix(0, 0).UTC(), Limit: 50},
	} {
		l, err := parseList(query, taskFilters)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if diff := cmp.Diff(want, l.filter); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestParseBatchList(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]store.Filter{
		"scope=nightly%201":        {Scope: "nightly 1", Limit: 50},
		"scope=":                   {Limit: 50},
		`metadata={"run":%2017}`:   {Metadata: []byte(`{"run":17}`), Limit: 50},
		"scope=a&kind=k&timeout=x": {Scope: "a", Kind: "k", Limit: 50},
	} {
		l, err := parseList(query, batchFilters)
		if err != nil {
			t.Errorf("%s: %v", query, err)
		}
		if diff := cmp.Diff(want, l.filter); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	var cases []scenario
	for query, wants := range map[string][]string{
		"page=x":                      {`page: must be a whole number, is \"x\"`},
		"page=1.5":                    {"page: "},
		"page=%2B1":                   {"page: "},
		"page=-":                      {"page: "},
		"per_page=1e3":                {"per_page: "},
		"page_size=ten":               {"page_size: "},
		"status=running":              {`status: unknown status \"running\", did you mean \"Running\"?`},
		"status=Running,,":            {"status: "},
		"status=7":                    {"status: "},
		"kind=a&kind=b":               {"kind: stands more than once"},
		"kind=%00":                    {"kind: "},
		"kind=%ff*":                   {"kind: "},
		"name=a%00b":                  {"name: must be UTF-8"},
		"name=%c3%28":                 {"name: "},
		"batch_id=1":                  {"batch_id: "},
		"batch_id=" + nilID:           {"batch_id: "},
		"cursor=x":                    {`cursor: \"x\" is not a UUID`},
		"cursor=" + nilID:             {"cursor: "},
		"sort=Updated":                {`sort: must be created or updated, is \"Updated\"`},
		"sort=created&sort=created":   {"sort: stands more than once"},
		"sort=updated":                {"sort: updated needs batch_id, ids or status=Running"},
		"sort=updated&status=Pending": {"sort: updated needs batch_id, ids or status=Running"},
		"sort=updated&status=Running,Success&kind=a": {"sort: updated needs"},
		"sort=updated&cursor=" + idA + "&ids=" + idA: {"cursor: is one of another sort"},
		"cursor=1." + idA:                          {"cursor: is one of another sort"},
		"cursor=-1." + idA:                         {`cursor: \"-1.` + idA + `\" is not one that Link gave`},
		"cursor=144115188075855872." + idA:         {"is not one that Link gave"},
		"cursor=1." + nilID:                        {"is not a UUID"},
		"cursor=1.":                                {"is not a UUID"},
		"ids=x":                                    {`ids: \"x\" is not a UUID`},
		"ids=" + idA + ",":                         {`ids: \"\" is not a UUID`},
		"ids=" + idA + "&ids=y":                    {`ids: \"y\" is not a UUID`},
		"ids=" + idA + "%20" + idB:                 {"ids: "},
		"ids=" + nilID:                             {"ids: "},
		"ids=" + manyIDs(101):                      {"ids: must be at most 100"},
		"timeout=0":                                {"timeout: "},
		"timeout=1s":                               {"timeout: "},
		"timeout=-1":                               {"timeout: "},
		"timeout=9223372036854775807":              {"timeout: "},
		"created_after=yesterday":                  {`created_after: must be a time as in RFC 3339`, `is \"yesterday\"`},
		"created_after=2026-01-02":                 {"created_after: "},
		"created_before=2026-01-02T03:04:05+02:00": {"created_before: ", "%2B"},
		"created_before=1767323045":                {"created_before: "},
		"metadata=x":                               {"metadata: not valid JSON"},
		"metadata=[]":                              {"metadata: must be a JSON object, is array"},
		"metadata=null":                            {"metadata: "},
		"metadata={}{}":                            {"metadata: "},
		`metadata={"a":1,"a":2}`:                   {"metadata: ", "duplicate"},
		`metadata={"a":"\u0000"}`:                  {"metadata: ", "NUL"},
		`metadata={"a":1e999}`:                     {"metadata: "},
		"metadata={\"a\":\"%ff\"}":                 {"metadata: ", "UTF-8"},
		"metadata=" + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100): {"nested deeper"},
		"page=%zz":                {"the query is not well-formed"},
		"a;b":                     {"the query is not well-formed"},
		"timeout=x&page=y&kind=z": {"page: ", "timeout: "},
	} {
		path := "/task?" + strings.NewReplacer(`"`, "%22", `\`, "%5C").Replace(query)
		cases = append(cases, scenario{name: query, method: "GET", path: path, status: 400, wants: wants})
	}
	run(t, cases)
}

// testIDs are the first n ids of a fake.
func testIDs(n int) []task.ID {
	ids := make([]task.ID, n)
	for i := range ids {
		ids[i] = testID(i + 1)
	}
	return ids
}

func manyIDs(n int) string {
	var texts []string
	for _, id := range testIDs(n) {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, ",")
}

func TestBatchesRefuse(t *testing.T) {
	t.Parallel()
	var cases []scenario
	for query, wants := range map[string][]string{
		"page=x":                             {"page: "},
		"status=running":                     {"status: "},
		"kind=a&kind=b":                      {"kind: stands more than once"},
		"name=%00":                           {"name: "},
		"cursor=x":                           {"cursor: "},
		"sort=updated":                       {"sort: batches are listed by created only"},
		"sort=age":                           {"sort: must be created or updated"},
		"cursor=1." + idA:                    {"cursor: is one of another sort"},
		"created_after=now":                  {"created_after: "},
		"created_before=1":                   {"created_before: "},
		"metadata=x&scope=%ff":               {"metadata: not valid JSON", "scope: must be UTF-8"},
		"metadata=[]":                        {"metadata: must be a JSON object"},
		"scope=a&scope=b":                    {"scope: stands more than once"},
		"created_after=now&created_before=1": {"created_after: ", "created_before: "},
	} {
		cases = append(cases, scenario{name: query, method: "GET", path: "/batches?" + query, status: 400, wants: wants})
	}
	cases = append(cases, scenario{
		name: "filters of tasks alone", method: "GET", path: "/batches?timeout=x&batch_id=x&ids=x", status: 200,
	})
	run(t, cases)
}

// Walking along the links shows every batch once, newest first, and keeps the filters.
func TestBatchPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var all []string
	for range 5 {
		all = append(all, s.do("POST", "/task", diamond).Header().Get("X-Batch-ID"))
	}
	slices.Reverse(all)
	for size := 1; size <= len(all)+1; size++ {
		var got []string
		target := fmt.Sprintf("/batches?kind=ingest&junk=1&page=0&page_size=%d", size)
		for pages := 0; target != ""; pages++ {
			w := s.do("GET", target, "")
			if w.Code != 200 || pages > len(all) {
				t.Fatalf("%s: %d %s", target, w.Code, w.Body)
			}
			for _, item := range decode[[]api.BatchSummary](t, w) {
				got = append(got, item.BatchID)
			}
			if s.filter.Kind != "ingest" || s.filter.Limit != size+1 {
				t.Errorf("%s: asked for %+v", target, s.filter)
			}
			target = next(t, w.Header())
			if target != "" && !strings.HasPrefix(target, "/batches?") || strings.Contains(target, "page=0") || strings.Contains(target, "junk") {
				t.Errorf("next page: %s", target)
			}
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("size %d (-want +got):\n%s", size, diff)
		}
	}
}

const nilID = "00000000-0000-0000-0000-000000000000"

// Walking along the links shows every task once, newest first, and keeps the filters.
func TestListPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var all []string
	for range 3 {
		s.do("POST", "/task", diamond)
	}
	for _, id := range slices.Backward(s.ids) {
		if s.tasks[id].Task.Kind == "ingest" {
			all = append(all, id.String())
		}
	}
	for size := 1; size <= len(all)+1; size++ {
		var got []string
		target := fmt.Sprintf("/task?kind=ingest&junk=%%3E&page=0&status=Pending,Waiting&per_page=%d", size)
		for pages := 0; target != ""; pages++ {
			w := s.do("GET", target, "")
			if w.Code != 200 || pages > len(all) {
				t.Fatalf("%s: %d %s", target, w.Code, w.Body)
			}
			for _, item := range decode[[]api.TaskSummary](t, w) {
				got = append(got, item.ID)
			}
			target = next(t, w.Header())
			if strings.Contains(target, "page=0") || strings.Contains(target, "junk") {
				t.Errorf("next page: %s", target)
			}
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("size %d (-want +got):\n%s", size, diff)
		}
	}
	w := s.do("GET", "/task?per_page=2", "")
	want := `</task?cursor=` + s.ids[len(s.ids)-2].String() + `&per_page=2>; rel="next"`
	if got := w.Header().Get("Link"); got != want {
		t.Errorf("Link %s, want %s", got, want)
	}
	if w := s.do("GET", "/task?page=1000000", ""); strings.TrimSpace(w.Body.String()) != "[]" || w.Header().Get("Link") != "" {
		t.Errorf("%s %v", w.Body, w.Header())
	}
}

func next(t *testing.T, h http.Header) string {
	t.Helper()
	link := h.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok {
		t.Fatalf("Link: %s", link)
	}
	return target
}

// Tasks that are named come newest first, whatever the order of their names, and the next page names them again.
func TestListNamed(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	w := s.do("GET", "/task?per_page=1&ids="+idA+","+unknown+","+idB, "")
	items := decode[[]api.TaskSummary](t, w)
	if len(items) != 1 || items[0].ID != idB {
		t.Errorf("%+v", items)
	}
	w = s.do("GET", next(t, w.Header()), "")
	items = decode[[]api.TaskSummary](t, w)
	if len(items) != 1 || items[0].ID != idA || w.Header().Get("Link") != "" {
		t.Errorf("%+v %s", items, w.Header().Get("Link"))
	}
}

// Where a walk ends before its page is full, the next page begins, however few this one has; but only for who goes from
// link to link.
func TestShortPages(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	for query, c := range map[string]struct {
		cut  bool
		link string
	}{
		"name=x&cursor=":              {true, "cursor=" + idA + "&name=x"},
		"name=x&page=&cursor=":        {true, "cursor=" + idA + "&name=x"},
		"per_page=9&cursor=":          {true, "cursor=" + idA + "&per_page=9"},
		"name=x":                      {false, ""},
		"name=x&page=2&cursor=":       {false, ""},
		"name=x&page=7&cursor=" + idB: {true, "cursor=" + idA + "&name=x"},
		"name=x&page=0":               {false, ""},
		"name=x&page=3":               {false, ""},
		"per_page=1&cursor=":          {true, "cursor=-&per_page=1"}, // the page is full
	} {
		for _, path := range []string{"/task?", "/batches?"} {
			if path == "/batches?" && query == "per_page=1&cursor=" {
				continue
			}
			s.walked = testID(2)
			if c.link == "" {
				s.walked = task.ID{}
			}
			w := s.do("GET", path+query, "")
			link := c.link
			if link != "" {
				link = strings.Replace(path+link, "cursor=-", "cursor="+s.ids[len(s.ids)-1].String(), 1)
			}
			walk := map[string]int{"/task?": store.MaxWalk, "/batches?": store.MaxBatchWalk}[path]
			if !c.cut {
				walk = 0
			}
			if w.Code != 200 || next(t, w.Header()) != link || s.filter.Walk != walk {
				t.Errorf("%s%s: %d, walks %d, want %d; next %s, want %s", path, query, w.Code, s.filter.Walk, walk, next(t, w.Header()), link)
			}
		}
	}
}

// The cursor of a list by update has the time too.
func TestListUpdated(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	s.tasks[testID(2)].State.LastUpdated = time.UnixMicro(1767323045123456).UTC()
	w := s.do("GET", "/task?sort=updated&page=0&per_page=1&ids="+idA+","+idB, "")
	if items := decode[[]api.TaskSummary](t, w); len(items) != 1 || items[0].ID != idA {
		t.Errorf("%+v", items)
	}
	target := next(t, w.Header())
	if !strings.HasPrefix(target, "/task?cursor=1767323045123456."+idA+"&") {
		t.Errorf("next page: %s", target)
	}
	w = s.do("GET", target, "")
	if items := decode[[]api.TaskSummary](t, w); len(items) != 1 || items[0].ID != idB || w.Header().Get("Link") != "" {
		t.Errorf("%+v %s", items, w.Header().Get("Link"))
	}
}

func TestListClaimedIsPending(t *testing.T) {
	t.Parallel()
	s := withDiamond(t)
	s.tasks[testID(3)].State.Status = task.Claimed
	for query, want := range map[string]int{"Pending": 2, "Claimed": 1, "Waiting": 2, "Pending,Waiting": 4} {
		items := decode[[]api.TaskSummary](t, s.do("GET", "/task?status="+query, ""))
		if len(items) != want {
			t.Errorf("%s: %d, want %d", query, len(items), want)
		}
		for _, item := range items {
			if item.Status == "Claimed" {
				t.Errorf("%s: a task is Claimed", query)
			}
		}
	}
}

// endless is a store that finds no page.
type endless struct{ *fake }

func (endless) Tasks(ctx context.Context, _ store.Filter) (store.Page[store.Item], error) {
	<-ctx.Done()
	return store.Page[store.Item]{}, ctx.Err()
}

// crowded is a store all of whose places for lists are taken.
type crowded struct{ *fake }

func (crowded) Tasks(ctx context.Context, _ store.Filter) (store.Page[store.Item], error) {
	<-ctx.Done()
	return store.Page[store.Item]{}, fmt.Errorf("%w: %w", store.ErrListsBusy, ctx.Err())
}

func (crowded) DAG(context.Context, task.ID) (*store.DAG, error) {
	return nil, fmt.Errorf("%w: %w", store.ErrListsBusy, context.DeadlineExceeded)
}

// A list that was never begun was not too long.
func TestListsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, func(o *Options) { o.Store = crowded{newFake()} })
		for _, path := range []string{"/task", "/dag/" + idA} {
			w := s.do("GET", path, "")
			checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
			if p := decode[api.Problem](t, w); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(p.Error, "not begun") || s.log.Len() > 0 {
				t.Errorf("%s: %d %v %+v; logged %s", path, w.Code, w.Header(), p, s.log)
			}
		}
	})
}

// A search that takes too long is given up, so that it keeps no connection from others.
func TestLongSearch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, func(o *Options) { o.Store = endless{newFake()} })
		began := time.Now()
		w := s.do("GET", "/task?name=nothing&page=9", "")
		checkProblem(t, w.Header(), w.Code, w.Body.Bytes())
		if p := decode[api.Problem](t, w); w.Code != 504 || !strings.Contains(p.Error, "cursor=") || time.Since(began) != listTime || s.log.Len() > 0 {
			t.Errorf("after %v: %d %+v; logged %s", time.Since(began), w.Code, p, s.log)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		left := httptest.NewRecorder()
		s.handler.ServeHTTP(left, httptest.NewRequestWithContext(gone, "GET", "/task?name=nothing", nil))
		if left.Code != 499 {
			t.Errorf("who left: %d", left.Code)
		}
	})
}
