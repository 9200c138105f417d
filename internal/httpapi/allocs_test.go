package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Progress is counted often, and in large arrays: what a request needs of memory is what it costs. The bounds leave room for
// another release of Go, not for another allocation of each count.
func TestCountsAllocateLittle(t *testing.T) { // not parallel: it counts allocations
	element := `{"task_id":"` + idA + `","new_success":5}`
	for _, c := range []struct {
		name, path, body string
		most             float64
	}{
		{"one", "/task/" + idA, `{"new_success":5}`, 24},
		{"an array of 1000", "/task", "[" + strings.Repeat(element+",", 999) + element + "]", 1000 + 60},
	} {
		handler := New(Options{Store: newFake(), Settler: quickSettler{}, NewID: newFake().newID})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, c.path, nil)
		r.ContentLength = int64(len(c.body))
		body := strings.NewReader(c.body)
		r.Body = io.NopCloser(body)
		w := sink{header: http.Header{}}
		allocs := testing.AllocsPerRun(20, func() {
			body.Reset(c.body)
			clear(w.header)
			handler.ServeHTTP(&w, r)
		})
		if w.status != http.StatusAccepted || allocs > c.most {
			t.Errorf("%s: status %d, %.0f allocations, at most %.0f are meant", c.name, w.status, allocs, c.most)
		}
	}
}
