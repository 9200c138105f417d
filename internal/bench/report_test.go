package bench

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReportOfRuns(t *testing.T) {
	t.Parallel()
	r := &results{}
	for _, v := range []float64{10, 30, 20} {
		r.add("flat/1", []Figure{
			{Name: "tasks a second", Unit: "/s", Value: v, Floor: 40, More: true},
			{Name: "hop p50", Unit: "ms", Value: v, Floor: 5},
			{Name: "WAL", Unit: "B/task", Value: v * 100},
		}, nil)
	}
	r.add("flat/1", nil, errors.New("two of two"))
	r.add("chain", []Figure{{Name: "hop p50", Unit: "ms", Value: 0.25}, {Name: "hop p99", Unit: "ms", Value: 4.125, Floor: 8.25}}, nil)
	var out bytes.Buffer
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	_, table, _ := bytes.Cut(out.Bytes(), []byte("\n\n"))
	const want = `      best      median       floor   of it               

flat/1, runs: 4
WRONG: two of two
      30.0        20.0        40.0     50%   /s          tasks a second
      10.0        20.0        5.00     25%   ms          hop p50
      1000        2000                       B/task      WAL

chain, runs: 1
      0.25        0.25                       ms          hop p50
      4.12        4.12        8.25    200%   ms          hop p99
`
	if diff := cmp.Diff(want, string(table)); diff != "" {
		t.Error(diff)
	}
}

func TestTimesOfProcesses(t *testing.T) {
	t.Parallel()
	known := runtime.GOOS == "linux"
	_, _, parent := cpuTime(os.Getpid())
	if known && parent != os.Getppid() {
		t.Errorf("the parent is %d, want %d", parent, os.Getppid())
	}
	tree := treeTime(os.Getpid())
	before, _, _ := cpuTime(os.Getpid())
	for used := before; known && used < before+50*time.Millisecond; used, _, _ = cpuTime(os.Getpid()) {
	}
	if known && treeTime(os.Getpid()) < tree+50*time.Millisecond {
		t.Error("the time of a tree is without that of its root")
	}
	if peak := peakMemory(os.Getpid()); known && (peak < 1<<20 || peak > 1<<40) {
		t.Errorf("the peak is %d bytes", peak)
	}
	if own, _, _ := cpuTime(-1); own != 0 || peakMemory(-1) != 0 {
		t.Error("a process that is not there has used something")
	}
}
