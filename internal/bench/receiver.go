package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// reporters is how many reports may be on their way to the service at once.
const reporters = 256

// receiver is where all webhooks go, each to the load that its path names: /<load>/<task>. It has few goroutines and keeps
// its connections: it is not what is measured.
type receiver struct {
	bench    *bench
	url      string
	services []string  // the URLs of its replicas, as their handles have them
	born     time.Time // times of loads count from here

	mu    sync.Mutex
	loads atomic.Pointer[[]*load] // replaced as a whole

	reports chan report
	life    context.Context // of its goroutines; it ends with close
	end     context.CancelFunc
	serving sync.WaitGroup
	servers []*http.Server
}

// report is one to be sent to a handle.
type report struct {
	load         *load
	task         int
	handle, body string
}

func newReceiver(b *bench) (*receiver, error) {
	r := &receiver{bench: b, born: time.Now(), reports: make(chan report, 1<<16)}
	r.life, r.end = context.WithCancel(context.Background())
	r.loads.Store(&[]*load{})
	var err error
	if r.url, err = r.listen(); err != nil {
		return nil, err
	}
	for range reporters {
		r.serving.Go(func() {
			for {
				select {
				case p := <-r.reports:
					p.load.end(r.life, p.task, p.handle, p.body)
				case <-r.life.Done():
					return
				}
			}
		})
	}
	return r, nil
}

// listen opens another address, which is another host to the service.
func (r *receiver) listen() (string, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for webhooks: %w", err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	r.servers = append(r.servers, server)
	r.serving.Go(func() { _ = server.Serve(l) }) // until Close
	return "http://" + l.Addr().String(), nil
}

// close ends it. The service must have stopped.
func (r *receiver) close() {
	for _, s := range r.servers {
		_ = s.Close() // nobody listens any more to what it might say
	}
	r.end()
	r.serving.Wait()
}

// add gives a load its place.
func (r *receiver) add(l *load) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.loads.Load()
	l.place = len(old)
	all := append(old[:len(old):len(old)], l)
	r.loads.Store(&all)
}

func (r *receiver) now() time.Duration { return time.Since(r.born) }

// ServeHTTP takes a webhook.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	now := r.now()
	_, _ = io.Copy(io.Discard, req.Body)
	l, task, err := r.target(req.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if task == complete {
		l.completions.Add(1)
		return
	}
	l.started(now, task, webhook{
		id: req.Header.Get("X-Task-Id"), key: req.Header.Get("Idempotency-Key"), handle: req.URL.Query().Get("handle"),
	})
}

// webhook is what an on_start says of its task.
type webhook struct{ id, key, handle string }

// agrees reports whether all of it is of one task.
func (w webhook) agrees() bool {
	path, _, _ := strings.Cut(w.handle, "?")
	return w.id != "" && strings.HasSuffix(path, "/task/"+w.id) && w.key == w.id+":start"
}

// complete is the task in the path of what a batch sends at its end.
const complete = -1

func (r *receiver) target(path string) (*load, int, error) {
	place, task, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	p, err1 := strconv.Atoi(place)
	n, err2 := strconv.Atoi(task)
	if err := errors.Join(err1, err2); err != nil {
		return nil, 0, err
	}
	loads := *r.loads.Load()
	if p < 0 || p >= len(loads) || n < complete || n >= len(loads[p].starts) {
		return nil, 0, fmt.Errorf("no load has the path %s", path)
	}
	return loads[p], n, nil
}
