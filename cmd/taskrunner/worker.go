package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"taskrunner/client"
)

// exampleWorker is what a worker behind HTTP looks like: it accepts on_start at once, works for a moment, reports
// counts on the handle and then its end. It is there to try the service with, and to read.
type exampleWorker struct {
	listener net.Listener
	log      *slog.Logger
	done     func(path string) // told of end webhooks; may be nil
	service  string            // HOST_URL of the service
	token    string            // AUTH_TOKEN of the service; empty: it wants none
	secrets  []client.Secret   // that sign its webhooks; none: they are not signed

	mu      sync.Mutex
	working map[string]context.CancelFunc // by task: handles differ when they have tokens
	jobs    sync.WaitGroup
}

func newExampleWorker(ctx context.Context, address string, log *slog.Logger) (*exampleWorker, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the example worker: %w", err)
	}
	return &exampleWorker{listener: listener, log: log, working: map[string]context.CancelFunc{}}, nil
}

// url is where path of the worker is reached.
func (w *exampleWorker) url(path string) string { return "http://" + w.listener.Addr().String() + path }

// run serves until ctx ends, and gives up what it is working on then.
func (w *exampleWorker) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", func(rw http.ResponseWriter, r *http.Request) { w.start(ctx, rw, r) })
	mux.HandleFunc("POST /accept", func(http.ResponseWriter, *http.Request) {}) // 200, and never reports: you do
	mux.HandleFunc("DELETE /cancel", w.cancel)
	mux.HandleFunc("POST /done/", func(_ http.ResponseWriter, r *http.Request) {
		if w.done != nil {
			w.done(r.URL.Path)
		}
	})
	var handler http.Handler = mux
	if len(w.secrets) > 0 {
		handler = client.NewVerifier(w.secrets...).Handler(1<<20, mux)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // its clients send again
	defer stop()
	err := server.Serve(w.listener)
	w.jobs.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve the example worker: %w", err)
}

// job is the body of on_start.
type job struct {
	WorkMS int  `json:"work_ms"`
	Fail   bool `json:"fail"`
}

func (w *exampleWorker) start(ctx context.Context, rw http.ResponseWriter, r *http.Request) {
	handle, task := r.URL.Query().Get("handle"), r.Header.Get("X-Task-Id")
	var j job
	if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, 1<<20)).Decode(&j); err != nil && r.ContentLength > 0 {
		http.Error(rw, "the body is not a job: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.working[task]; !known { // the same start may come twice
		working, cancel := context.WithCancel(ctx)
		w.working[task] = cancel
		w.jobs.Go(func() { w.work(working, task, handle, j) })
	}
	// The answer may name what to call when the task is canceled.
	rw.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(rw, `{"kind": "Webhook", "params": {"url": %q, "verb": "Delete"}}`, w.url("/cancel"))
}

func (w *exampleWorker) work(ctx context.Context, task, handle string, j job) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.working[task]()
		delete(w.working, task)
	}()
	const steps = 4
	for range steps {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(j.WorkMS) * time.Millisecond / steps):
		}
		w.report(ctx, http.MethodPut, handle, map[string]any{"new_success": 10})
	}
	if j.Fail {
		w.report(ctx, http.MethodPatch, handle, map[string]any{"status": "Failure", "failure_reason": "asked to fail"})
		return
	}
	w.report(ctx, http.MethodPatch, handle, map[string]any{"status": "Success"})
}

// report tells the service, again and again until it has heard.
func (w *exampleWorker) report(ctx context.Context, method, handle string, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own maps always marshal
	}
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, method, handle, bytes.NewReader(raw))
		if err != nil {
			w.log.Warn("the handle is no URL") // which is not shown: it may have a token
			return
		}
		req.Header.Set("Content-Type", "application/json")
		// Whoever calls a worker chooses the handle. The token goes to the service and to nobody else.
		if w.token != "" && strings.HasPrefix(handle, w.service+"/task/") {
			req.Header.Set("Authorization", "Bearer "+w.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusUnauthorized {
				w.log.Warn("the service wants its token: set AUTH_TOKEN and HOST_URL as it has them", "host", req.URL.Host)
			}
			if resp.StatusCode < 500 {
				return // taken, or refused for good
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (w *exampleWorker) cancel(_ http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cancel := w.working[r.Header.Get("X-Task-Id")]; cancel != nil {
		cancel()
	}
}
