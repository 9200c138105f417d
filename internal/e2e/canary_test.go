package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"taskrunner/api"
)

// Secrets, each to be found by its first word wherever it gets to.
const (
	canaryToken    = "canary-token-0123456789"
	canaryPassword = "canary-password-0123456789"
	canaryHeader   = "canary-header-0123456789"
	canaryQuery    = "canary-query-0123456789"
	canaryBody     = "canary-body-0123456789"
	canaryAnswer   = "canary-answer-0123456789"
)

// told is all that the service has answered.
type told struct {
	client
	mu    sync.Mutex
	lines []string
}

// ask keeps the answer, without what an action is shown with: its URL and its body.
func (c *told) ask(method, path string, body any, headers ...string) answer {
	c.t.Helper()
	a := c.do(method, path, body, append([]string{"Authorization", "Bearer " + canaryToken}, headers...)...)
	c.keep(method+" "+path, a)
	return a
}

func (c *told) keep(what string, a answer) {
	shown := string(a.body)
	var v any
	if json.Unmarshal(a.body, &v) == nil {
		shown = jsonOf(withoutShown(v))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprintf("%s: %d %v %s", what, a.status, a.header, shown))
}

func withoutShown(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = withoutShown(v[i])
		}
	case map[string]any:
		if params, is := v["params"].(map[string]any); is {
			delete(params, "url")
			delete(params, "body")
		}
		if answer, is := v["answer"].(string); is { // of an attempt: what a receiver says is shown, but for what is ours in it
			v["answer"] = strings.ReplaceAll(answer, canaryAnswer, "")
		}
		for name := range v {
			v[name] = withoutShown(v[name])
		}
	}
	return v
}

// TestCanaries: secrets are put wherever one can be, and every path is gone with them; none comes out in an answer, a log,
// a metric or an error.
func TestCanaries(t *testing.T) {
	onEach(t, func(t *testing.T, db string) {
		p := startProcess(t, withPassword(t, databaseURL(t, db)), map[string]string{
			"AUTH_TOKEN": canaryToken, "LOG_LEVEL": "debug", "WEBHOOK_TIMEOUT": "1s",
		})
		c := &told{client: p.client}
		failEveryWay(t, c)
		refuseEveryWay(c)
		lookEverywhere(c)
		p.terminate()
		p.wait()
		for _, line := range c.lines {
			noCanary(t, line, "canary-")
		}
		// What receivers answer is nobody's business in the log.
		for line := range strings.Lines(p.log.String()) {
			noCanary(t, line, "canary-")
		}
		for _, what := range []string{"webhook targets", "give up a webhook", "ignore the cancel action"} {
			if !strings.Contains(p.log.String(), what) {
				t.Errorf("%q was not logged", what)
			}
		}
	})
}

func noCanary(t *testing.T, text, canary string) {
	t.Helper()
	if at := strings.Index(text, canary); at >= 0 {
		t.Errorf("%s… in %s", text[at:min(at+18, len(text))], text[:min(len(text), 2000)])
	}
}

// withPassword adds one that the server does not ask for.
func withPassword(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme == "postgres" {
		u.User = url.UserPassword(u.User.Username(), canaryPassword)
	}
	return u.String()
}

// secretHook is a webhook to url that is full of secrets.
func secretHook(url string) obj {
	return obj{"kind": "Webhook", "params": obj{
		"url": url + "?a=1&token=" + canaryQuery, "verb": "Post", "body": obj{"password": canaryBody},
		"headers": obj{"Authorization": "Bearer " + canaryHeader, "X-Key": canaryHeader + `-"quoted"`, "Cookie": "session=" + canaryHeader, "Accept": "*/*"},
	}}
}

// failEveryWay runs tasks whose webhooks fail in every way there is, until they have failed.
func failEveryWay(t *testing.T, c *told) {
	t.Helper()
	r := newReceiver(t)
	for path, status := range map[string]int{"/400": 400, "/401": 401} {
		r.handle(path, func(w http.ResponseWriter, got call) {
			w.WriteHeader(status)
			echo(w, got)
		})
	}
	// Each of those that seem not to be there is a host of its own, so that no breaker opens.
	away := map[string]*receiver{"/503": newReceiver(t), "/hang": newReceiver(t), "/cut": newReceiver(t)}
	away["/503"].handle("/503", func(w http.ResponseWriter, got call) {
		w.WriteHeader(503)
		echo(w, got)
	})
	away["/hang"].handle("/hang", func(http.ResponseWriter, call) { <-away["/hang"].life.Done() })
	away["/cut"].handle("/cut", func(http.ResponseWriter, call) { panic(http.ErrAbortHandler) })
	r.handle("/302", func(w http.ResponseWriter, got call) {
		w.Header().Set("Location", "/200?"+got.Query)
		w.WriteHeader(302)
		echo(w, got)
	})
	r.handle("/cancel-forbidden", func(w http.ResponseWriter, _ call) {
		_, _ = w.Write([]byte(jsonOf(secretHook("http://169.254.169.254/"))))
	})
	r.handle("/cancel-invalid", func(w http.ResponseWriter, _ call) {
		_, _ = w.Write([]byte(`{"kind":"Webhook","params":{"url":"http://u:` + canaryQuery + `@h/","verb":"` + "Past" + `","headers":{"Host":"` + canaryHeader + `"},"token":"` + canaryAnswer + `"}}`))
	})
	r.handle("/cancel", func(w http.ResponseWriter, _ call) { _, _ = w.Write([]byte(jsonOf(secretHook(r.url + "/401")))) })
	nonsense := "http://" + talkNonsense(t)
	failing := map[string]string{
		"refused": "http://127.0.0.1:1/", "no-tls": strings.Replace(newReceiver(t).url, "http:", "https:", 1) + "/", "no-name": "http://nowhere.invalid/",
		"nonsense": nonsense + "/", "400": r.url + "/400", "401": r.url + "/401", "302": r.url + "/302",
	}
	for path, host := range away {
		failing[path[1:]] = host.url + path
	}
	var tasks []obj
	for id, target := range failing {
		tasks = append(tasks, obj{"id": id, "name": id, "kind": "canary", "on_start": secretHook(target), "on_failure": []obj{secretHook(target)}})
	}
	for _, id := range []string{"cancel", "cancel-forbidden", "cancel-invalid"} {
		tasks = append(tasks, obj{"id": id, "name": id, "kind": "canary", "on_start": secretHook(r.url + "/" + id), "on_success": []obj{secretHook(r.url + "/401")}})
	}
	tasks = append(tasks, obj{"id": "unasked", "name": "unasked", "kind": "canary", "on_start": secretHook("http://" + talkUnasked(t) + "/")})
	body := jsonOf(obj{"tasks": tasks, "scope": "canary", "on_batch_complete": []obj{secretHook(r.url + "/401")}})
	created := c.ask("POST", "/task", body, "Idempotency-Key", "once")
	ids := map[string]string{}
	for _, task := range decode[[]api.Task](t, created) {
		ids[task.LocalID] = task.ID
	}
	c.ask("POST", "/task", body, "Idempotency-Key", "once")
	c.ask("POST", "/task", body+" ", "Idempotency-Key", "once")
	c.ask("POST", "/task?dry_run=true", body)
	get := func(id string) api.Task { return decode[api.Task](t, c.ask("GET", "/task/"+ids[id], nil)) }
	for _, id := range []string{"cancel", "cancel-forbidden", "cancel-invalid"} {
		eventually(t, id+" runs", func() bool { return get(id).Status == "Running" })
		if n := len(actions(get(id), "Cancel")); n > 0 != (id == "cancel") {
			t.Errorf("%s has %d cancel actions", id, n)
		}
	}
	eventually(t, "unasked runs", func() bool { return get("unasked").Status == "Running" })
	c.ask("DELETE", "/task/"+ids["unasked"], nil)
	c.ask("DELETE", "/task/"+ids["cancel"], nil)
	c.ask("PATCH", "/task/"+ids["cancel-forbidden"], obj{"status": "Success"})
	c.ask("PATCH", "/task/"+ids["cancel-invalid"], obj{"status": "Success"})
	for id := range failing {
		eventually(t, id+" has failed, and its end webhook too", func() bool {
			task := get(id)
			return task.Status == "Failure" && actions(task, "End")[0].Failures > 0
		})
	}
	eventually(t, "the cancel action has failed", func() bool { return actions(get("cancel"), "Cancel")[0].Failures > 0 })
	batch := created.header.Get("X-Batch-ID")
	eventually(t, "the batch's webhook has failed", func() bool {
		return decode[api.Batch](t, c.ask("GET", "/batch/"+batch, nil)).Actions[0].Failures > 0
	})
	for _, id := range ids {
		c.ask("GET", "/task/"+id+"/history", nil)
		c.ask("GET", "/task/"+id+"/explain", nil)
	}
	c.ask("GET", "/dag/"+batch, nil)
	c.ask("DELETE", "/batch/"+batch, nil)
}

// echo answers with all that the request has: some receivers do.
func echo(w http.ResponseWriter, got call) {
	_, _ = fmt.Fprintf(w, "%s %v %s", got.Query, got.Header, canaryAnswer)
}

// talkNonsense answers requests with themselves, which is no HTTP.
func talkNonsense(t *testing.T) (address string) {
	t.Helper()
	return talk(t, func(request string) string { return request + "\r\n\r\n" })
}

// talkUnasked is a receiver that accepts, and then goes on to repeat what it was told.
func talkUnasked(t *testing.T) (address string) {
	t.Helper()
	return talk(t, func(request string) string { return "HTTP/1.1 204 No Content\r\n\r\n" + request })
}

// talk is a receiver that answers the head of a request, all in one line, with what is no HTTP.
func talk(t *testing.T, answer func(request string) string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			var request []string
			for line, err := in.ReadString('\n'); err == nil && line != "\r\n"; line, err = in.ReadString('\n') {
				request = append(request, strings.TrimSpace(line))
			}
			_, _ = io.WriteString(conn, answer(strings.Join(request, " ")))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// refuseEveryWay sends requests that are wrong, with a secret at the place that is wrong, or beside it.
func refuseEveryWay(c *told) {
	hook := jsonOf(secretHook("http://127.0.0.1:1/"))
	task := func(onStart string) string {
		return `[{"id":"a","name":"a","kind":"k","on_start":` + onStart + `}]`
	}
	params := func(members string) string { return task(`{"kind":"Webhook","params":{` + members + `}}`) }
	secretHeaders := `"headers":{"Authorization":"` + canaryHeader + `"}`
	for _, body := range []string{
		task(hook)[:len(task(hook))-9],
		task(hook) + "x",
		strings.Replace(task(hook), `"Accept"`, `Accept`, 1),
		strings.Replace(task(hook), canaryHeader, canaryHeader+`\x`, 1),
		strings.Replace(task(hook), canaryHeader, canaryHeader+"\n", 1),
		strings.Replace(task(hook), canaryHeader, canaryHeader+"\xff", 1),
		strings.Replace(task(hook), `"verb"`, `"verbs"`, 1),
		strings.Replace(task(hook), `"id":"a"`, `"id":""`, 1),
		params(`"url":"http://h/?` + canaryQuery + `","verb":"Past",` + secretHeaders),
		params(`"url":"http://u:` + canaryQuery + `@h/","verb":"Post",` + secretHeaders),
		params(`"url":"http://h:` + canaryQuery + `/","verb":"Post",` + secretHeaders),
		params(`"url":"http://%zz?` + canaryQuery + `","verb":"Post",` + secretHeaders),
		params(`"url":"http://10.0.0.1/?` + canaryQuery + `","verb":"Post",` + secretHeaders),
		params(`"url":"http://127.0.0.1:22/?` + canaryQuery + `","verb":"Post",` + secretHeaders),
		params(`"url":"/` + canaryQuery + ` x","verb":"Post",` + secretHeaders),
		params(`"url":["` + canaryQuery + `"],"verb":"Post",` + secretHeaders),
		params(`"url":"http://h/","verb":"Post","headers":"` + canaryHeader + `"`),
		params(`"url":"http://h/","verb":"Post","headers":["` + canaryHeader + `"]`),
		params(`"url":"http://h/","verb":"Post","headers":{"A":["` + canaryHeader + `"]}`),
		params(`"url":"http://h/","verb":"Post","headers":{"A":"` + canaryHeader + `\r\nB: c"}`),
		params(`"url":"http://h/","verb":"Post","headers":{"Host":"` + canaryHeader + `","b c":"` + canaryHeader + `"}`),
		params(`"url":"http://h/","verb":"Post","headers":{"A":"` + canaryHeader + `","a":"` + canaryHeader + `"}`),
		params(`"url":"http://h/","verb":"Post","headers":{"A":"` + canaryHeader + strings.Repeat("x", 17_000) + `"}`),
	} {
		for _, path := range []string{"/task", "/task?dry_run=true", "/task?dry_run=maybe"} {
			if a := c.ask("POST", path, body); a.status != 400 {
				c.t.Errorf("%d for %s", a.status, body)
			}
		}
		c.ask("PATCH", "/task/0198c0de-5a10-7000-8000-000000000001", body)
		c.ask("PUT", "/task", body)
	}
	for _, auth := range []string{"", "Bearer " + canaryToken + "x", "Basic " + canaryToken, canaryToken} {
		for _, path := range []string{"/task", "/metrics", "/nothing"} {
			c.keep("without the token: "+path, c.do("GET", path, nil, "Authorization", auth))
		}
	}
}

// lookEverywhere asks all that can be asked without an id, and follows the ids of deliveries.
func lookEverywhere(c *told) {
	for _, path := range []string{
		"/task", "/task?kind=canary&sort=created", "/task?cursor=", "/batches", "/batches?scope=canary", "/limits", "/hosts", "/health", "/ready", "/nothing",
		"/metrics", "/task/" + "x", "/task/0198c0de-5a10-7000-8000-000000000001",
	} {
		c.ask("GET", path, nil)
	}
	for _, state := range []string{"pending", "dead", "done"} {
		var deliveries []struct{ ID string }
		if a := c.ask("GET", "/deliveries?state="+state, nil); json.Unmarshal(a.body, &deliveries) != nil {
			continue // an object: a problem
		}
		for _, d := range deliveries {
			c.ask("GET", "/deliveries/"+d.ID, nil)
		}
	}
}

// TestCanariesAtStart: settings that are wrong are told without their values where these may be secret.
func TestCanariesAtStart(t *testing.T) {
	t.Parallel()
	built, err := program()
	if err != nil {
		t.Fatal(err)
	}
	noDatabase, err := url.Parse(withPassword(t, databaseURL(t, "postgres")))
	if err != nil {
		t.Fatal(err)
	}
	noDatabase.Path, noDatabase.RawQuery = "/no-such-database", "sslmode=disable"
	const password = canaryPassword
	for name, setting := range map[string]string{
		"nobody there": "DATABASE_URL=postgres://u:" + password + "@127.0.0.1:1/db",
		"no database":  "DATABASE_URL=" + noDatabase.String(),
		"port":         "DATABASE_URL=postgres://u:" + password + "@h:port/db",
		"escape":       "DATABASE_URL=postgres://u:" + password + "%zz@h/db",
		"slash":        "DATABASE_URL=postgres://u:" + password + "/x@127.0.0.1:1/db",
		"in the query": "DATABASE_URL=postgres://127.0.0.1:1/db?user=u&password=" + password + "&sslmode=bogus",
		"pool":         "DATABASE_URL=postgres://u:" + password + "@127.0.0.1:1/db?pool_max_conns=many",
		"keywords":     "DATABASE_URL=host=127.0.0.1 port=1 password=" + password,
		"scheme":       "DATABASE_URL=mysql://u:" + password + "@h/db",
		"SQLite":       "DATABASE_URL=sqlite:x.db?key=" + password,
		"token":        "AUTH_TOKEN=" + canaryToken + " x",
		"host":         "HOST_URL=http://u:" + password + "@h",
		"host's query": "HOST_URL=http://h/?" + password,
		"host's form":  "HOST_URL=ftp://u:" + password + "@h",
	} {
		for _, command := range []string{"serve", "migrate"} {
			t.Run(name+"/"+command, func(t *testing.T) {
				t.Parallel()
				variable, value, _ := strings.Cut(setting, "=")
				cmd := exec.CommandContext(t.Context(), built.path, command)
				cmd.Env = []string{
					"PATH=" + os.Getenv("PATH"), "LOG_LEVEL=debug", "LISTEN_ADDR=127.0.0.1:0",
					"DATABASE_URL=sqlite:" + filepath.Join(t.TempDir(), "t.db"), variable + "=" + value, // the last one counts
				}
				out, err := cmd.CombinedOutput()
				if err == nil || len(out) == 0 {
					t.Errorf("%v: %s", err, out)
				}
				noCanary(t, string(out), "canary-")
			})
		}
	}
}
