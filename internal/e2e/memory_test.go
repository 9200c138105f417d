package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
)

// A body of many tasks needs no more than about three times its size, or four where its tasks have nothing but what they must. Not parallel: the heap is that of the whole process.
func TestMemoryOfABigCreate(t *testing.T) {
	const constant = 8 << 20
	for _, test := range []struct {
		name          string
		tasks, factor int64
		task          func(i, n int) string
	}{{"usual", 10_000, 3, manyTask}, {"tiny", 50_000, 4, tinyTask}} {
		for _, db := range databases {
			t.Run(test.name+"/"+db, func(t *testing.T) {
				s := startService(t, databaseURL(t, db), map[string]string{"MAX_TASKS_PER_BATCH": fmt.Sprint(test.tasks)})
				s.postMany(100, test.task) // connections and statements are there from now on
				var size int64
				peak := peakHeap(func() { size = s.postMany(int(test.tasks), test.task) })
				t.Logf("a body of %.1f MB needs %.1f MB, %.1f times as much", float64(size)/1e6, float64(peak)/1e6, float64(peak)/float64(size))
				if peak > test.factor*size+constant {
					t.Errorf("a body of %d bytes needs %d bytes", size, peak)
				}
			})
		}
	}
}

// Many large bodies at once need no more than those for which the window has room.
func TestMemoryOfManyBigCreates(t *testing.T) {
	const posts, tasks, window, constant = 16, 2000, 3 << 20, 8 << 20 // room for two
	s := startService(t, databaseURL(t, "sqlite"), map[string]string{"BODY_WINDOW_BYTES": fmt.Sprint(window)})
	s.postMany(100, manyTask)
	peak := peakHeap(func() {
		var all sync.WaitGroup
		for range posts {
			all.Go(func() {
				for s.t.Context().Err() == nil { // a slow machine has no room for long
					if status, err := s.tryMany(tasks, manyTask); err == nil && status == 201 {
						return
					}
				}
			})
		}
		all.Wait()
	})
	t.Logf("%d bodies need %.1f MB", posts, float64(peak)/1e6)
	if peak > 3*window+constant {
		t.Errorf("%d bodies need %d bytes", posts, peak)
	}
}

// postMany posts n tasks as they come, so that the client needs no memory for them, and returns the size of the body.
func (s *service) postMany(n int, task func(i, n int) string) int64 {
	s.t.Helper()
	if status, err := s.tryMany(n, task); err != nil || status != 201 {
		s.t.Fatalf("create: %d, %v", status, err)
	}
	return sizeOfMany(n, task)
}

func sizeOfMany(n int, task func(i, n int) string) (size int64) {
	for i := range n {
		size += int64(len(task(i, n)))
	}
	return size
}

// tryMany is postMany that returns how it was answered; for goroutines.
func (s *service) tryMany(n int, task func(i, n int) string) (status int, err error) {
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.url+"/task", &taskReader{task: task, n: n})
	if err != nil {
		return 0, err
	}
	r.ContentLength = sizeOfMany(n, task)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// taskReader makes a body of n tasks while it is read.
type taskReader struct {
	task func(i, n int) string
	i, n int
	rest bytes.Buffer
}

func (r *taskReader) Read(p []byte) (int, error) {
	for ; r.i < r.n && r.rest.Len() < len(p); r.i++ {
		r.rest.WriteString(r.task(r.i, r.n))
	}
	return r.rest.Read(p)
}

// manyTask is the part of a body of n tasks that is about task i. Chains of 100 tasks each keep most of them Waiting.
func manyTask(i, n int) string {
	parents := ""
	if i%100 != 0 {
		parents = fmt.Sprintf(`{"id":"task-%d","requires_success":true}`, i-1)
	}
	return inArray(i, n, fmt.Sprintf(`{"id":"task-%d","name":"Cluster documents of tenant %d","kind":"clustering","timeout":600,`+
		`"metadata":{"tenant_id":%d,"region":"eu-west-1","documents":["a%d","b%d"],"nested":{"x":1.5}},`+
		`"on_start":{"kind":"Webhook","trigger":"Start","params":{"url":"http://127.0.0.1:9999/run/clustering","verb":"Post",`+
		`"headers":{"Content-Type":"application/json","X-Worker-Token":"0123456789abcdef"},"body":{"job":%d,"options":{"fast":true}}}},`+
		`"on_success":[{"kind":"Webhook","params":{"url":"http://127.0.0.1:9999/done","verb":"Post"}}],`+
		`"rules":[{"Concurency":{"matcher":{"kind":"clustering","status":"Running","fields":["tenant_id"]},"max_concurency":3}}],`+
		`"dependencies":[%s]}`, i, i%50, i%50, i, i, i, parents))
}

// tinyTask is as manyTask, with nothing in it but what has to be.
func tinyTask(i, n int) string {
	return inArray(i, n, fmt.Sprintf(`{"id":"%d","name":"x","kind":"k","on_start":{"kind":"Webhook","trigger":"Start",`+
		`"params":{"url":"http://127.0.0.1:9999/","verb":"Post"}}}`, i))
}

// inArray is an element of an array of n.
func inArray(i, n int, element string) string {
	before, after := ",\n", ""
	if i == 0 {
		before = "["
	}
	if i == n-1 {
		after = "]"
	}
	return before + element + after
}

// peakHeap is by how much the live heap grows at most while fn runs, as far as one collection after the other sees it.
func peakHeap(fn func()) int64 {
	live := func() int64 {
		runtime.GC()
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	before, peak := live(), int64(0)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				peak = max(peak, live()-before)
			}
		}
	})
	fn()
	close(done)
	watch.Wait()
	return peak
}
