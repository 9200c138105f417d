package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"taskrunner/api"
)

const token = "e2e-Token-0123456789"

// bearer is the header that a client of a guarded service sends.
func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// TestAuthToken: a whole life of a task with the token, and nothing without it. The service sends it to nobody.
func TestAuthToken(t *testing.T) {
	onBothWith(t, map[string]string{"AUTH_TOKEN": token}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		batch := []obj{r.newTask("a", "/run", obj{"on_success": []obj{r.hook("/end")}})}
		created := s.want(201, "POST", "/task", batch, bearer(token)...)
		id, batchID := decode[[]api.Task](t, created)[0].ID, created.header.Get("X-Batch-ID")
		started := r.wait(1, "on_start", to("/run"))[0]
		cases := []struct {
			method, path string
			body         any
			status       int // with the token
		}{
			{"POST", "/task", batch, 201},
			{"GET", "/task", nil, 200},
			{"GET", "/task/" + id, nil, 200},
			{"GET", "/batch/" + batchID, nil, 200},
			{"GET", "/dag/" + batchID, nil, 200},
			{"GET", "/metrics", nil, 200},
			{"GET", "/nothing", nil, 404},
			{"PUT", "/task", obj{"task_id": id, "new_success": 1}, 202},
			{"PUT", started.Handle, obj{"new_success": 1}, 202},
			{"PATCH", "/task/pause/" + id, nil, 200},
			{"PATCH", "/task/resume/" + id, nil, 200},
			{"PATCH", started.Handle, obj{"status": "Success"}, 200},
			{"DELETE", "/task/" + id, nil, 409},
		}
		for _, c := range cases {
			path := strings.Replace(c.path, "http://localhost:", "http://127.0.0.1:", 1) // where the test's service listens
			for _, headers := range [][]string{nil, bearer("e2e-Token-0123456788"), bearer(""), {"Authorization", "Basic " + token}} {
				a := s.do(c.method, path, c.body, headers...)
				if a.status != 401 || a.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s with %v: %d, WWW-Authenticate %q", c.method, path, headers, a.status, a.header.Get("WWW-Authenticate"))
					continue
				}
				wantDetail(t, a)
			}
			s.want(c.status, c.method, path, c.body, bearer(token)...)
		}
		for _, path := range []string{"/health", "/ready"} {
			s.want(200, "GET", path, nil)
		}
		r.wait(1, "the end webhook", to("/end"))
		for _, c := range r.got(func(call) bool { return true }) {
			if c.Header.Get("Authorization") != "" || strings.Contains(fmt.Sprint(c.Query, c.Header, string(c.Body)), token) {
				t.Errorf("a webhook carries the token: %s", jsonOf(c))
			}
		}
		got := decode[api.Task](t, s.want(200, "GET", "/task/"+id, nil, bearer(token)...))
		if got.Status != "Success" || got.Success != 2 {
			t.Errorf("task %s", jsonOf(got))
		}
		refusedBeforeTheBody(t, s)
		s.stop()
		if strings.Contains(s.log.String(), token) {
			t.Error("the log has the token")
		}
	})
}

// refusedBeforeTheBody: a stranger is answered although the body has not come.
func refusedBeforeTheBody(t *testing.T, s *service) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience / 2)); err != nil { // less than what a body may take
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 401 ") {
		t.Errorf("%q, %v", line, err)
	}
}

// TestDevWithToken: the example worker and the live view of dev know the token, and a worker alone does too.
func TestDevWithToken(t *testing.T) {
	t.Parallel()
	built, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for name, alone := range map[string]bool{"dev": false, "worker only": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := strconv.Itoa(lastingPort(t))
			settings := []string{
				"DATABASE_URL=sqlite:" + filepath.Join(t.TempDir(), "dev.db"), "PORT=" + port, "AUTH_TOKEN=" + token,
				"LOG_LEVEL=warn",
			}
			if !alone {
				out := runDev(t, built.path, settings, "the batch is done")
				if strings.Contains(out, token) {
					t.Error("the token is shown")
				}
				return
			}
			s := startService(t, databaseURL(t, "sqlite"), map[string]string{"AUTH_TOKEN": token, "LISTEN_ADDR": "127.0.0.1:" + port})
			worker := "127.0.0.1:" + strconv.Itoa(lastingPort(t))
			runDev(t, built.path, settings, "example worker", "--worker-only", "--worker-addr", worker)
			on := func(path string) obj {
				return obj{"kind": "Webhook", "params": obj{"url": "http://" + worker + path, "verb": "Post", "body": obj{"work_ms": 1}}}
			}
			a := s.want(201, "POST", "/task", []obj{{"id": "a", "name": "a", "kind": "k", "on_start": on("/run")}}, bearer(token)...)
			id := decode[[]api.Task](t, a)[0].ID
			eventually(t, "the worker has reported", func() bool {
				return decode[api.Task](t, s.want(200, "GET", "/task/"+id, nil, bearer(token)...)).Status == "Success"
			})
			checkHandles(t, worker)
		})
	}
}

// checkHandles: a worker does not send the token to a handle that somebody has made up.
func checkHandles(t *testing.T, worker string) {
	t.Helper()
	stranger := newReceiver(t)
	c := client{t: t, url: "http://" + worker}
	c.want(200, "POST", "/run?handle="+escape(stranger.url+"/task/1"), obj{"work_ms": 1})
	for _, reported := range stranger.wait(1, "a report", to("/task/1")) {
		if got := reported.Header.Get("Authorization"); got != "" {
			t.Errorf("the token went to a stranger: %s", got)
		}
	}
}

// runDev runs the subcommand dev until the test ends, and returns what it has written once that has the text.
func runDev(t *testing.T, path string, env []string, text string, args ...string) string {
	t.Helper()
	if !slices.Contains(args, "--worker-addr") {
		args = append(args, "--worker-addr", "127.0.0.1:0")
	}
	out := &logBuffer{}
	cmd := exec.CommandContext(context.Background(), path, append([]string{"dev"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	callOff, err := whenTestsEnd(`kill -9 "$1"`, strconv.Itoa(cmd.Process.Pid))
	if err != nil {
		_ = cmd.Process.Kill()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
		callOff()
		if t.Failed() {
			t.Logf("dev wrote:\n%s", out)
		}
	})
	eventually(t, "dev writes "+text, func() bool { return strings.Contains(out.String(), text) })
	return out.String()
}
