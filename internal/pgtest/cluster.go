package pgtest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// watchdog is a shell script, not a goroutine: it has to outlive this process to clean up after it.
//
//go:embed watchdog.sh
var watchdog string

// startTries is how often a port that somebody took between finding it free and using it is replaced.
const startTries = 5

// Cluster is one running PostgreSQL server with its own data directory. Its methods are safe for concurrent use.
type Cluster struct {
	dir    string
	port   int
	pooler int // port of its pgbouncer; 0: it has none
	cmd    *exec.Cmd

	mu      sync.Mutex
	in      io.WriteCloser // commands to the watchdog; its end is the order to clean up
	out     *bufio.Reader  // one exit status a command
	running bool
	closed  bool
}

// Start makes a cluster and starts it: one to two seconds, 35 MB of memory and 40 MB of disk to begin with. The
// caller ends it with Close; the end of this process, however it comes, does too. ctx bounds only the search for the
// programs. Tests use [URL] or [NewCluster] instead.
func Start(ctx context.Context) (*Cluster, error) {
	bin, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	attr, owner, err := serverUser()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(tempBase(owner), "taskrunner-pgtest-")
	if err != nil {
		return nil, fmt.Errorf("make cluster directory: %w", err)
	}
	c := &Cluster{dir: dir}
	if err := c.launch(bin, attr, owner); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := c.init(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if Pooled() {
		if err := c.pool(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// launch starts the watchdog, which from here on owns the directory.
func (c *Cluster) launch(bin string, attr *procAttr, owner *ids) error {
	if owner != nil {
		if err := os.Chown(c.dir, owner.uid, owner.gid); err != nil {
			return fmt.Errorf("give cluster directory to the server's user: %w", err)
		}
	}
	// Not CommandContext: the watchdog ends when its input does, and no earlier.
	c.cmd = exec.Command("/bin/sh", "-c", watchdog, "pgtest-watchdog", c.dir, bin)
	c.cmd.Dir = c.dir // the server's user may not be allowed to enter ours
	c.cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/opt/homebrew/bin", "LC_ALL=C", "TZ=UTC"}
	c.cmd.SysProcAttr = attr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("open pipe to watchdog: %w", err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("open pipe from watchdog: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start watchdog: %w", err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	return nil
}

// init creates the data directory and starts the server on a free port.
func (c *Cluster) init() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.order("init"); err != nil {
		return err
	}
	var err error
	for range startTries {
		if c.port, err = freePort(); err != nil {
			return err
		}
		if err = c.start(); err == nil {
			return nil
		}
	}
	return err
}

// pool starts a pgbouncer on a free port. It lives on when the server is killed.
func (c *Cluster) pool() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range startTries {
		var port int
		if port, err = freePort(); err != nil {
			return err
		}
		if err = c.order(fmt.Sprintf("pool %d %d", port, c.port)); err == nil {
			c.pooler = port
			return nil
		}
	}
	return fmt.Errorf("start pgbouncer (scripts/ensure-postgres.sh --pgbouncer installs it): %w", err)
}

// start brings the server up on c.port. c.mu is held.
func (c *Cluster) start() error {
	if err := c.order("start " + strconv.Itoa(c.port)); err != nil {
		return err
	}
	c.running = true
	return nil
}

// stop ends the server as a crash does: no checkpoint, connections cut, so that the next start has to recover from the
// log. c.mu is held.
func (c *Cluster) stop() error {
	if !c.running {
		return nil
	}
	if err := c.order("stop"); err != nil {
		return err
	}
	c.running = false
	return nil
}

// order sends one command to the watchdog and waits for it to be carried out. c.mu is held.
func (c *Cluster) order(command string) error {
	if c.closed {
		return fmt.Errorf("%s PostgreSQL: cluster is closed", command)
	}
	if _, err := io.WriteString(c.in, command+"\n"); err != nil {
		return fmt.Errorf("%s PostgreSQL: write to watchdog: %w", command, err)
	}
	status, err := c.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s PostgreSQL: read from watchdog: %w", command, err)
	}
	if status = strings.TrimSpace(status); status != "0" {
		return fmt.Errorf("%s PostgreSQL: exit status %s:\n%s", command, status, c.logTail())
	}
	return nil
}

// logTail returns the last lines that the programs and the server wrote.
func (c *Cluster) logTail() string {
	const limit = 2000
	var b strings.Builder
	for _, name := range []string{"programs.log", "server.log", "pgbouncer.log"} {
		text, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			continue // not written yet
		}
		b.Write(text[max(0, len(text)-limit):])
	}
	return b.String()
}

// Addr returns the server's host:port. It stays the same over Restart.
func (c *Cluster) Addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
}

// URL returns a connection URL for the superuser and the database postgres, for pgx as for libpq's programs. When
// [Pooled], it leads through pgbouncer.
func (c *Cluster) URL() string {
	port := c.port
	if c.pooler != 0 {
		port = c.pooler
	}
	return "postgres://postgres@127.0.0.1:" + strconv.Itoa(port) + "/postgres?sslmode=disable"
}

// Kill ends the server as a crash would, without a checkpoint, and leaves it down until Restart. When it returns nobody
// listens at Addr. It does nothing to a server that is down.
func (c *Cluster) Kill(tb testing.TB) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.stop(); err != nil {
		tb.Fatal(err)
	}
}

// Restart kills the server if it runs and starts it again at the same address with the data it had committed. When it
// returns the server has recovered and takes connections.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.stop(); err != nil {
		tb.Fatal(err)
	}
	if err := c.start(); err != nil {
		tb.Fatal(err)
	}
}

// Close stops the server and removes its directory. A second Close does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if err := c.in.Close(); err != nil {
		return fmt.Errorf("close pipe to watchdog: %w", err)
	}
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("wait for watchdog: %w", err)
	}
	// The server's user may empty the directory, but not always remove it from its parent.
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove cluster directory: %w", err)
	}
	return nil
}

// Ports of servers are below those that the system gives to whoever does not care: one that is down for a while finds its
// own free when it starts again.
const (
	firstPort = 15_000
	lastPort  = 32_000
)

func freePort() (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			err = l.Close()
		}
		if err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find free port: %w", err)
}
