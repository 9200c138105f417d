package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latencies are a histogram from a microsecond to ten minutes, of three digits. Safe for concurrent use.
type latencies struct {
	mu   sync.Mutex
	hist *hdrhistogram.Histogram
}

const longest = 10 * time.Minute

func newLatencies() *latencies {
	return &latencies{hist: hdrhistogram.New(1, longest.Microseconds(), 3)}
}

func (l *latencies) record(d time.Duration) {
	d = min(max(d, time.Microsecond), longest)
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.hist.RecordValue(d.Microseconds()) // it is in range
}

func (l *latencies) snapshot() *hdrhistogram.Histogram {
	l.mu.Lock()
	defer l.mu.Unlock()
	return hdrhistogram.Import(l.hist.Export())
}
