package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// build is the service as a program.
type build struct {
	path string
	keep func() // the watchdog that removes it lives for as long as this is reachable
}

// program builds the service once for all tests of this run. Without the race detector, which makes SQLite, C made into
// Go, ten times slower; the services that run in the tests' own process have it.
var program = sync.OnceValues(func() (*build, error) { return compile() })

// mortal is the program that dies at the point that TASKRUNNER_FAILPOINT names.
var mortal = sync.OnceValues(func() (*build, error) { return compile("-tags", "failpoint") })

func compile(flags ...string) (*build, error) {
	dir, err := os.MkdirTemp("", "taskrunner-e2e-")
	if err != nil {
		return nil, err
	}
	b := &build{path: filepath.Join(dir, "taskrunner")}
	if b.keep, err = whenTestsEnd(`rm -rf "$1"`, dir); err != nil {
		return nil, err
	}
	args := append([]string{"build", "-o", b.path}, append(flags, "taskrunner/cmd/taskrunner")...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the service: %w\n%s", err, out)
	}
	return b, nil
}

// whenTestsEnd has a shell run script when this process is gone, however it ended, unless it is called off before: the
// shell waits for the end of a pipe that this process holds. The result is to be kept.
func whenTestsEnd(script string, args ...string) (callOff func(), err error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", "trap '' HUP INT TERM; cat >/dev/null; " + script, "watchdog"}, args...)...)
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("open pipe to watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
	}, nil
}

// process is the service in a process of its own, to be killed. It may be started again: it keeps its address, so that
// the handles it gave out hold.
type process struct {
	client
	log *logBuffer

	env   []string
	point string // where it is to die, as package failpoint has it; "" is nowhere
	cmd   *exec.Cmd
	ended chan struct{} // nil before the first start
}

// startProcess runs the service on the database at url with settings until the test ends.
func startProcess(t testing.TB, url string, settings map[string]string) *process {
	t.Helper()
	address := "127.0.0.1:" + strconv.Itoa(lastingPort(t))
	p := &process{client: client{t: t, url: "http://" + address}, log: &logBuffer{}}
	env := map[string]string{
		"DATABASE_URL": url, "LISTEN_ADDR": address, "HOST_URL": p.url, "WEBHOOK_ALLOWED_NETWORKS": "loopback",
		"SHUTDOWN_TIMEOUT": "15s", "PATH": os.Getenv("PATH"), "TMPDIR": os.Getenv("TMPDIR"),
	}
	for name, value := range settings {
		env[name] = value
	}
	for name, value := range env {
		p.env = append(p.env, name+"="+value)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of the service at %s:\n%s", address, p.log)
		}
	})
	p.start()
	return p
}

// lastingPort finds a port that stays free while nobody listens on it: one below those that the system gives to
// outgoing connections.
func lastingPort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.N(12_000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// launch starts the process and does not wait for it to serve.
func (p *process) launch() {
	p.t.Helper()
	build, env := program, p.env
	if p.point != "" {
		build, env = mortal, append(slices.Clone(env), "TASKRUNNER_FAILPOINT="+p.point)
	}
	built, err := build()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd, ended := exec.Command(built.path, "serve"), make(chan struct{})
	cmd.Env, cmd.Stdout, cmd.Stderr = env, p.log, p.log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	callOff, err := whenTestsEnd(`kill -9 "$1"`, strconv.Itoa(cmd.Process.Pid))
	if err != nil {
		_ = cmd.Process.Kill()
		p.t.Fatal(err)
	}
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its state says more
		callOff()
	}()
}

// start launches the process and waits until it serves.
func (p *process) start() {
	p.t.Helper()
	p.launch()
	eventually(p.t, "the service is ready", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("the service ended with %s:\n%s", p.cmd.ProcessState, p.log)
		default:
		}
		a, err := p.try(context.Background(), http.MethodGet, "/ready", nil)
		return err == nil && a.status == http.StatusOK
	})
}

// kill ends the process as a crash would, and waits until it is gone.
func (p *process) kill() {
	if p.ended == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

// terminate asks the process to stop, as a service manager does.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the process to end by itself.
func (p *process) wait() *os.ProcessState {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the service did not end within %s", patience)
	}
	return p.cmd.ProcessState
}
