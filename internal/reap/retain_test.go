package reap

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"taskrunner/internal/store"
)

// pile is a store with old batches of tasks. Each batch that is looked at, and each task that is deleted, takes its time.
type pile struct {
	*fake
	keep              time.Duration
	batchTakes, takes time.Duration

	mu                   sync.Mutex
	batches, each, tasks int
	busy                 bool
	err                  error
	worked               time.Duration
	sizes                []int
	last                 time.Time
	looked               []time.Duration
}

func (p *pile) work(n int, each time.Duration) {
	took := time.Duration(n) * each
	p.worked += took
	p.sizes = append(p.sizes, n)
	p.mu.Unlock()
	time.Sleep(took)
	p.mu.Lock()
	p.last = time.Now()
}

func (p *pile) Expire(_ context.Context, keep time.Duration, limit int) (store.Removed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = append(p.looked, time.Since(p.began).Round(time.Second))
	if keep != p.keep {
		return store.Removed{}, errors.New("wrong time")
	}
	if p.err != nil || p.busy {
		return store.Removed{Busy: p.busy}, p.err
	}
	n := min(limit, p.batches)
	p.work(n, p.batchTakes)
	p.batches, p.tasks = p.batches-n, p.tasks+p.each*n
	return store.Removed{Batches: n, More: n == limit}, nil
}

func (p *pile) Purge(_ context.Context, limit int) (store.Removed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || p.busy {
		return store.Removed{Busy: p.busy}, p.err
	}
	n := min(limit, p.tasks)
	p.work(n, p.takes)
	p.tasks -= n
	return store.Removed{Tasks: n, More: n == limit}, nil
}

// runPile runs a reaper on p until the test ends. Call it in a bubble.
func runPile(t *testing.T, p *pile) *bytes.Buffer {
	t.Helper()
	p.fake = newFake()
	var log bytes.Buffer
	r := New(Options{Store: p, Settler: p.fake, Starter: p.fake, Owner: [16]byte{7}, Keep: p.keep, Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &log
}

func TestRetainInShortSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pile{keep: 24 * time.Hour, batches: 3000, each: 10, batchTakes: 10 * time.Microsecond, takes: 50 * time.Microsecond}
		log := runPile(t, p)
		began := time.Now()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.batches > 0 || p.tasks > 0 {
			t.Fatalf("%d batches and %d tasks are left", p.batches, p.tasks)
		}
		if took := p.last.Sub(began); p.worked > took*6/10 || p.worked < took*4/10 {
			t.Errorf("it worked %s of %s", p.worked, took)
		}
		if most := slices.Max(p.sizes); most > 1000 {
			t.Errorf("a step took on %d", most)
		}
		if text := log.String(); strings.Count(text, "old batches removed") != 1 || !strings.Contains(text, "batches=3000 tasks=30000") {
			t.Error(text)
		}
	})
}

func TestRetainLooksNowAndThen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ keep, every time.Duration }{{720 * time.Hour, time.Minute}, {90 * time.Second, 9 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			p := &pile{keep: c.keep}
			log := runPile(t, p)
			time.Sleep(c.every*2 + time.Second)
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.looked) != 3 || p.looked[2] != 2*c.every {
				t.Errorf("looked at %v", p.looked)
			}
			if log.Len() > 0 {
				t.Errorf("log %s", log)
			}
		})
	}
}

func TestRetainNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pile{batches: 1}
		runPile(t, p)
		time.Sleep(time.Hour)
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.looked)+len(p.sizes) > 0 {
			t.Errorf("looked at %v", p.looked)
		}
	})
}

// While another process is at it, this one does nothing; and a failure is told once.
func TestRetainGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pile{keep: time.Hour, batches: 1, each: 1, busy: true}
		log := runPile(t, p)
		set := func(busy bool, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.busy, p.err = busy, err
		}
		time.Sleep(2*time.Minute + time.Second)
		set(false, errors.New("database is away"))
		time.Sleep(2 * time.Minute)
		set(false, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.batches+p.tasks > 0 {
			t.Error("something is left")
		}
		if text := log.String(); strings.Count(text, "database is away") != 1 || strings.Count(text, "works again") != 1 {
			t.Error(text)
		}
	})
}
