package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// cut is where a connection is cut.
type cut int

const (
	noCut cut = iota
	// cutBetween: before some statements of a transaction reach the server.
	cutBetween
	// cutBefore: before COMMIT reaches the server; what stands before it does.
	cutBefore
	// cutHeld: at COMMIT, which reaches the server a while later.
	cutHeld
	// cutAnswer: after the commit, before the answer to it; the answers to what stood before it come through.
	cutAnswer
	// cutAnswers: after the commit, before any answer to what was sent with it.
	cutAnswers
	cutKinds
	// cutNothing: nothing comes back from COMMIT on, and the connection stays open.
	cutNothing
)

func (c cut) String() string {
	return [...]string{"none", "between statements", "before COMMIT", "COMMIT held", "before its answer", "before all answers"}[c]
}

// wire is a proxy in front of PostgreSQL that understands its protocol and cuts connections at the worst moments.
type wire struct {
	t      testing.TB
	target string
	addr   string

	mu      sync.Mutex
	random  *rand.Rand
	commits float64 // the share of COMMITs to cut at; 0: none
	silent  bool
	conns   map[net.Conn]bool
	closed  bool
	cuts    [cutKinds]int
	total   int // COMMITs seen while cutting
	next    int // of the kinds of cuts at COMMIT, in turns
	loops   sync.WaitGroup
}

// newWire listens until the test ends.
func newWire(t testing.TB, target string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed of the cuts: %d", seed)
	p := &wire{t: t, target: target, addr: l.Addr().String(), random: rand.New(rand.NewPCG(seed, 0)), conns: map[net.Conn]bool{}}
	p.loops.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.loops.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends the loop
		p.mu.Lock()
		p.closed = true
		for c := range p.conns {
			_ = c.Close() // ends its loops
		}
		p.mu.Unlock()
		p.loops.Wait()
	})
	return p
}

// through is the connection URL dsn, but through the proxy.
func through(t testing.TB, dsn string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := newWire(t, u.Host)
	u.Host = p.addr
	return p, u.String()
}

// cutting sets the share of COMMITs at which connections are cut.
func (p *wire) cutting(share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commits = share
}

// silence sets whether commits are carried out and never answered, their connections staying open.
func (p *wire) silence(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

func (p *wire) choose(commit bool) cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind := noCut
	switch {
	case p.silent && commit:
		return cutNothing
	case p.commits == 0:
		return noCut
	case commit:
		p.total++
		if p.random.Float64() < p.commits {
			kind = cutBefore + cut(p.next%int(cutKinds-cutBefore))
			p.next++
		}
	case p.random.Float64() < p.commits/20:
		kind = cutBetween
	}
	p.cuts[kind]++
	return kind
}

// report says how many connections were cut where, and fails the test if a kind of cut at COMMIT was never made.
func (p *wire) report() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var kinds []string
	for kind := noCut + 1; kind < cutKinds; kind++ {
		kinds = append(kinds, fmt.Sprintf("%d %s", p.cuts[kind], kind))
		if p.cuts[kind] == 0 && kind != cutBetween {
			p.t.Errorf("no connection was cut %s: the test is too short", kind)
		}
	}
	p.t.Logf("connections cut at %d commits: %s", p.total, strings.Join(kinds, ", "))
}

func (p *wire) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[c] = true; p.closed {
		_ = c.Close()
	}
}

func (p *wire) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close() // may be closed already
}

// link is one connection through the proxy.
type link struct {
	p              *wire
	client, server net.Conn
	queries        map[string]string // prepared statements
	mu             sync.Mutex
	cut            cut // cutAnswer, cutAnswers or cutNothing, once it is to be done
}

func (p *wire) serve(client net.Conn) {
	p.keep(client)
	defer p.drop(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	p.keep(server)
	defer p.drop(server)
	l := &link{p: p, client: client, server: server, queries: map[string]string{}}
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		l.down()
		_ = client.Close() // ends the other loop
	}()
	l.up()
	_ = server.Close() // ends the other loop
	<-answers
}

// up passes on what the client sends, up to each Sync at once.
func (l *link) up() {
	in := bufio.NewReaderSize(l.client, 64<<10)
	if first, err := readStart(in); err != nil || !write(l.server, first) {
		return
	}
	for {
		before, commit, err := l.readRequest(in)
		if err != nil {
			return
		}
		switch kind := l.p.choose(len(commit) > 0); kind {
		case cutBetween:
			write(l.server, before[:len(before)/2])
			return
		case cutBefore:
			write(l.server, before)
			return
		case cutHeld:
			_ = l.client.Close() // the client asks meanwhile what became of it
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
			write(l.server, append(before, commit...))
			time.Sleep(50 * time.Millisecond) // for the server to carry it out; it is the same to the test if it is not
			return
		case cutAnswer, cutAnswers, cutNothing:
			l.mu.Lock()
			l.cut = kind
			l.mu.Unlock()
		}
		if !write(l.server, append(before, commit...)) {
			return
		}
	}
}

// readRequest reads messages up to one that makes the server answer. commit are those from the Bind of COMMIT on.
func (l *link) readRequest(in *bufio.Reader) (before, commit []byte, err error) {
	for {
		kind, raw, err := readMessage(in)
		if err != nil {
			return nil, nil, err
		}
		if l.isCommit(kind, raw[5:]) || len(commit) > 0 {
			commit = append(commit, raw...)
		} else {
			before = append(before, raw...)
		}
		if strings.IndexByte("SHQXpcfd", kind) >= 0 {
			return before, commit, nil
		}
	}
}

func (l *link) isCommit(kind byte, body []byte) bool {
	fields := bytes.SplitN(body, []byte{0}, 3)
	switch {
	case kind == 'Q':
		return strings.EqualFold(string(fields[0]), "commit")
	case kind == 'P' && len(fields) == 3: // name, query
		l.queries[string(fields[0])] = string(fields[1])
	case kind == 'B' && len(fields) == 3: // portal, name
		return strings.EqualFold(l.queries[string(fields[1])], "commit")
	}
	return false
}

// down passes on what the server answers.
func (l *link) down() {
	in := bufio.NewReaderSize(l.server, 64<<10)
	for {
		kind, raw, err := readMessage(in)
		if err != nil {
			return
		}
		l.mu.Lock()
		cut := l.cut
		l.mu.Unlock()
		switch {
		case cut == cutNothing:
		case cut != noCut && (kind == 'Z' || kind == 'C' && bytes.Equal(raw[5:], []byte("COMMIT\x00"))):
			return
		case cut == cutAnswers:
		case !write(l.client, raw):
			return
		}
	}
}

// readStart reads the first message of a connection, which has no type.
func readStart(in *bufio.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	return readRest(in, head)
}

func readMessage(in *bufio.Reader) (kind byte, raw []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	raw, err = readRest(in, head)
	return head[0], raw, err
}

// readRest reads as many bytes as the last four of head say; these count themselves.
func readRest(in *bufio.Reader, head []byte) ([]byte, error) {
	n := int(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
	if n < 0 || n > 1<<30 {
		return nil, errors.New("not a message")
	}
	raw := append(head, make([]byte, n)...)
	_, err := io.ReadFull(in, raw[len(head):])
	return raw, err
}

func write(c net.Conn, raw []byte) bool {
	_, err := c.Write(raw)
	return err == nil
}
