package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"taskrunner/api"
	"taskrunner/internal/bench"
)

// token is what liars want.
const token = "as-good-as-a-secret"

// liar is a service that keeps everything in memory, starts all tasks at once, and gets one thing wrong.
type liar struct {
	t   *testing.T
	lie string
	url string

	mu      sync.Mutex
	batches map[string]*api.Batch
	batchOf map[string]string // by task
	localID map[string]string // by task
	reports chan struct{}
	success map[string]int64 // counts, by task
	ended   map[string]bool
	late    func() // what is done when a batch is asked for
	starts  sync.WaitGroup
}

func newLiar(t *testing.T, lie string) *liar {
	s := &liar{t: t, lie: lie, batches: map[string]*api.Batch{}, batchOf: map[string]string{}, localID: map[string]string{}, reports: make(chan struct{}, 1), success: map[string]int64{}, ended: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /task", s.create)
	mux.HandleFunc("GET /task", s.live)
	mux.HandleFunc("GET /task/{id}", s.get)
	mux.HandleFunc("PUT /task/{id}", s.count)
	mux.HandleFunc("PATCH /task/{id}", s.finish)
	mux.HandleFunc("GET /batch/{id}", s.batch)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	s.url = server.URL
	t.Cleanup(func() {
		s.starts.Wait()
		server.Close()
	})
	return s
}

func (s *liar) create(w http.ResponseWriter, r *http.Request) {
	if s.lie == "answers nothing" {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return
	}
	var tasks []struct {
		ID      string
		OnStart struct{ Params struct{ URL string } } `json:"on_start"`
	}
	if err := json.NewDecoder(r.Body).Decode(&tasks); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("batch-%d", len(s.batches))
	s.batches[id] = &api.Batch{BatchID: id, TotalTasks: len(tasks)}
	var begins []func()
	for i, t := range tasks {
		task := fmt.Sprintf("%s-task-%d", id, i)
		s.batchOf[task], s.localID[task] = id, t.ID
		named, target := task, t.OnStart.Params.URL
		times := 1
		switch {
		case s.lie == "mixes up handles": // and all that it says of them
			task = fmt.Sprintf("%s-task-%d", id, len(tasks)-1-i)
			named = task
		case s.lie == "mixes up names":
			named = fmt.Sprintf("%s-task-%d", id, len(tasks)-1-i)
		case i == 1 && s.lie == "starts one for another":
			task = id + "-task-0"
			named = task
		case i == 0 && s.lie == "starts one twice, late":
			s.late = func() { s.start(target, named, task) }
		case i == 0 && s.lie == "starts one twice":
			times = 2
		case i == 0 && s.lie == "starts one never":
			times, s.ended[task] = 0, true
			s.batches[id].StatusCounts.Success++
		}
		begins = append(begins, func() {
			for range times {
				s.start(target, named, task)
			}
		})
	}
	if s.lie == "youngest first" {
		s.starts.Go(func() {
			for _, begin := range slices.Backward(begins) {
				begin()
				<-s.reports
			}
		})
	} else {
		for _, begin := range begins {
			s.starts.Go(begin)
		}
	}
	w.Header().Set("X-Batch-ID", id)
	w.WriteHeader(http.StatusCreated)
}

// start calls target with the handle of a task, and with what it says of the task named.
func (s *liar) start(target, named, task string) {
	req, err := http.NewRequest(http.MethodPost, target+"?handle="+url.QueryEscape(s.url+"/task/"+task), http.NoBody)
	if err != nil {
		s.t.Error(err)
		return
	}
	req.Header.Set("X-Task-Id", named)
	req.Header.Set("Idempotency-Key", named+":start")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // the run is over, and says so
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

func (s *liar) finish(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if task := r.PathValue("id"); !s.ended[task] {
		s.ended[task] = true
		s.batches[s.batchOf[task]].StatusCounts.Success++
	}
	select {
	case s.reports <- struct{}{}:
	default:
	}
	if s.lie == "refuses a report" && strings.HasSuffix(r.PathValue("id"), "-1") {
		w.WriteHeader(http.StatusConflict)
	}
}

func (s *liar) count(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	task := r.PathValue("id")
	if s.success[task]++; s.lie == "loses a count" && s.success[task] == 7 {
		s.success[task]--
		s.lie = ""
	}
	s.batches[s.batchOf[task]].TotalSuccess = s.success[task]
	w.WriteHeader(http.StatusAccepted)
}

func (s *liar) live(w http.ResponseWriter, _ *http.Request) {
	tasks := []api.TaskSummary{}
	if s.lie == "keeps one" {
		tasks = append(tasks, api.TaskSummary{ID: "one", Status: "Running"})
	}
	_ = json.NewEncoder(w).Encode(tasks)
}

func (s *liar) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(api.Task{TaskSummary: api.TaskSummary{ID: r.PathValue("id"), LocalID: s.localID[r.PathValue("id")], Success: s.success[r.PathValue("id")]}})
}

func (s *liar) batch(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late := s.late; late != nil {
		s.late = nil
		s.mu.Unlock()
		late()
		s.mu.Lock()
	}
	b := *s.batches[r.PathValue("id")]
	if s.lie == "says one failed" && b.StatusCounts.Success > 0 {
		b.StatusCounts.Success--
		b.StatusCounts.Failure++
	}
	_ = json.NewEncoder(w).Encode(b)
}

// TestWrongRunsFail runs workloads on services that are fast and wrong.
func TestWrongRunsFail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lie, workload, want string }{
		{"", "flat/10", ""},
		{"", "counters/put-1", ""},
		{"starts one twice", "flat/10", "started too often"},
		{"starts one twice, late", "flat/10", "started too often"},
		{"starts one never", "flat/10", "stuck: "},
		{"starts one for another", "flat/10", "with the id of another one"},
		{"mixes up names", "flat/10", "do not belong together"},
		{"mixes up handles", "flat/10", "was given the handle of"},
		{"answers nothing", "flat/10", "no answer within"},
		{"youngest first", "limits/handoff", "before that from which their latency counts"},
		{"refuses a report", "flat/10", "refused"},
		{"keeps one", "flat/10", "have not ended"},
		{"says one failed", "flat/10", "Failure:1"},
		{"knows no limits", "limits/1-key-max-5", "starts over a limit"},
		{"waits for nothing", "chain/1x10000", "before what they depend on"},
		{"loses a count", "counters/put-1", "counts"},
	} {
		t.Run(c.workload+" "+c.lie, func(t *testing.T) {
			t.Parallel()
			o, out := options(t, "", c.workload)
			o.URL, o.Token, o.Patience = newLiar(t, c.lie).url, token, time.Second
			err := bench.Run(t.Context(), o)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.workload)):
				t.Errorf("error %v, want it to name %s", err, c.workload)
			case c.want != "" && !bytes.Contains(out.Bytes(), []byte(c.want)):
				t.Errorf("the report says nothing of it: %s", out)
			case c.want != "" && bytes.Contains(out.Bytes(), []byte(`"figures"`)):
				t.Errorf("a wrong run has figures: %s", out)
			}
		})
	}
}
