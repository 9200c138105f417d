package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child. Its standard input stays open for as long as this process lives.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   io.Reader
	ended chan struct{}

	mu  sync.Mutex
	log []byte // the end of what it wrote to standard error
}

const logKept = 8 << 10

// Write keeps the end of the log.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, text...)
	p.log = p.log[max(0, len(p.log)-logKept):]
	return len(text), nil
}

// spawn starts a program, with variables beside those of this process.
func spawn(program string, args, variables []string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr, p.cmd.SysProcAttr = append(os.Environ(), variables...), p, endsWithParent()
	var err1, err2 error
	p.in, err1 = p.cmd.StdinPipe()
	p.out, err2 = p.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		return nil, fmt.Errorf("start %s %s: %w", program, strings.Join(args, " "), err)
	}
	return p, nil
}

// watch notices the end of the process; what it writes to standard output must have been read before.
func (p *process) watch() {
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its state says more
	}()
}

// stop asks it to end and waits until it has.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = p.cmd.Process.Kill() // a system without signals, or it is gone
	}
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return p.failed("did not stop within a minute")
	}
	if !p.cmd.ProcessState.Success() {
		return p.failed("ended with " + p.cmd.ProcessState.String())
	}
	return nil
}

// failed is an error with the end of its log.
func (p *process) failed(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("%s %s; its log ends:\n%s", filepath.Base(p.cmd.Path), what, bytes.TrimSpace(p.log))
}

// ticks a second is the unit of times in /proc, on every Linux.
const ticks = 100

// cpuTime is what a process has used, with its dead children; and which process is its parent. Zero where there is no
// /proc, or no process.
func cpuTime(pid int) (own, children time.Duration, parent int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0
	}
	// The name of the program stands in parentheses, and may hold anything.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	number := func(i int) int {
		n, _ := strconv.Atoi(fields[i]) // they are numbers, see proc(5)
		return n
	}
	const tick = time.Second / ticks
	own = time.Duration(number(11)+number(12)) * tick
	return max(own, threadTime(pid)), time.Duration(number(13)+number(14)) * tick, number(1)
}

// threadTime is what the threads of a process have used that live: less than all, but told in nanoseconds. Zero where that is unknown.
func threadTime(pid int) (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is well-formed
	for _, thread := range threads {
		raw, _ := os.ReadFile(thread) // it has ended: it counts in stat
		used, _, _ := strings.Cut(string(raw), " ")
		nanos, _ := strconv.ParseInt(used, 10, 64)
		sum += time.Duration(nanos)
	}
	return sum
}

// treeTime is what a process and its children have used, dead ones too: all of PostgreSQL, given its postmaster.
func treeTime(pid int) time.Duration {
	own, dead, _ := cpuTime(pid)
	sum := own + dead
	entries, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, entry := range entries {
		child, _ := strconv.Atoi(filepath.Base(entry))
		if used, _, parent := cpuTime(child); parent == pid {
			sum += used
		}
	}
	return sum
}

// peakMemory is the most memory that a process ever had, in bytes; 0 where that is unknown.
func peakMemory(pid int) int64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // none: unknown
	_, after, _ := strings.Cut(string(raw), "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	kB, _ := strconv.ParseInt(number, 10, 64)
	return kB << 10
}
