package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"taskrunner/api"
)

// scenario is requests to a service, one after the other, each with its answer, and the webhooks that come of them.
//
// In all texts <a> is the id of the task with the local id a, <batch> that of the last batch, <next> what the last answer
// links to, <delivery> the first of the last list of deliveries, <kind> a kind of the scenario's own, and <url> the service's address. <hook /x> is a webhook to the path /x of
// the scenario; <hook /x End Success> says its trigger and condition too. <task a> is the members that a task needs, with
// on_start to /a; <task a 2> is of another kind, <kind>-2. On_start to /cancelable is answered with a cancel action to
// /cancel, and calls of /gone with 410.
type scenario struct {
	name  string
	steps []exchange
}

// exchange is a request and its answer, or "CALL /x" and the webhooks that came there: how many, and the last of them.
type exchange struct {
	request string // and its headers, each on a line
	body    string
	status  int
	// want is contained in the answer, as [contains] says. A GET and a CALL are repeated until it is.
	want string
}

// play plays a scenario.
func (c scenario) play(t *testing.T, url string, r *receiver, kind string) {
	p := &player{client: client{t: t, url: url}, r: r, names: map[string]string{"kind": kind, "url": url}}
	for _, e := range c.steps {
		p.step(e)
	}
}

type player struct {
	client
	r     *receiver
	names map[string]string
}

var placeholder = regexp.MustCompile(`<([a-z]\w*)((?: [\w/]+)*)>`)

// fill replaces what stands in < and >.
func (p *player) fill(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		args := strings.Fields(m[2])
		switch m[1] {
		case "hook":
			hook := p.r.hook("/" + p.names["kind"] + args[0])
			for i, name := range []string{"trigger", "condition"} {
				if len(args) > i+1 {
					hook[name] = args[i+1]
				}
			}
			return jsonOf(hook)
		case "task":
			kind := strings.Join(append([]string{p.names["kind"]}, args[1:]...), "-")
			task := p.r.newTask(args[0], "/"+p.names["kind"]+"/"+args[0], obj{"kind": kind})
			delete(task, "timeout") // the scenario's own
			members := jsonOf(task)
			return members[1 : len(members)-1]
		}
		value, ok := p.names[m[1]]
		if !ok {
			p.t.Fatalf("nothing is called %s", found)
		}
		return value
	})
}

func (p *player) step(e exchange) {
	p.t.Helper()
	lines := strings.Split(p.fill(e.request), "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	body := p.fill(e.body)
	var seen, want string
	p.t.Cleanup(func() {
		if p.t.Failed() && seen != "" {
			p.t.Logf("%s\n%s\n%s\nwant %d %s", lines[0], body, seen, e.status, want)
		}
	})
	once := func() bool {
		if method == "CALL" {
			seen, want = p.called(path), p.fill(e.want)
			return contains(valueOf(p.t, seen), valueOf(p.t, want))
		}
		a := p.send(method, path, body, lines[1:])
		seen, want = a.text(), p.fill(e.want) // with the names that the answer gave
		return a.status == e.status && a.contains(p.t, want)
	}
	switch {
	case method == "CALL" || method == http.MethodGet:
		eventually(p.t, lines[0], once)
	case !once():
		p.t.FailNow()
	}
	seen = ""
}

// send also keeps the names that an answer gives.
func (p *player) send(method, path, body string, lines []string) answer {
	p.t.Helper()
	var headers []string
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		headers = append(headers, name, value)
	}
	var content any
	if body != "" {
		content = body
	}
	a := p.do(method, path, content, headers...)
	if a.header.Get("Link") != "" {
		p.names["next"], _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	var created []struct {
		ID      string
		LocalID string `json:"local_id"`
	}
	if batch := a.header.Get("X-Batch-ID"); batch != "" && a.status < 300 {
		p.names["batch"] = batch
		if a.status != http.StatusNoContent {
			if err := json.Unmarshal(a.body, &created); err != nil {
				p.t.Fatalf("%v in %s", err, a.body)
			}
		}
	}
	for _, task := range created {
		p.names[task.LocalID] = task.ID
	}
	var listed []api.DeliverySummary
	if strings.Contains(path, "deliveries?") && json.Unmarshal(a.body, &listed) == nil && len(listed) > 0 {
		p.names["delivery"] = listed[0].ID
	}
	return a
}

// called is the webhooks that came to a path, as JSON.
func (p *player) called(path string) string {
	calls := p.r.got(to("/" + p.names["kind"] + path))
	value := obj{"calls": len(calls)}
	if len(calls) > 0 {
		c := calls[len(calls)-1]
		value["method"], value["task"], value["trigger"], value["key"], value["handle"] = c.Method, c.Task, c.Trigger, c.Key, c.Handle
		if json.Valid(c.Body) {
			value["body"] = json.RawMessage(c.Body)
		}
	}
	return jsonOf(value)
}

func (a answer) text() string {
	return strings.TrimSpace(http.StatusText(a.status) + " " + jsonOf(a.header) + " " + string(a.body))
}

// contains is [contains] where want is JSON. Otherwise want is a header, "Name: value", or a text in the body.
func (a answer) contains(t testing.TB, want string) bool {
	t.Helper()
	if strings.HasPrefix(want, "{") || strings.HasPrefix(want, "[") {
		return json.Valid(a.body) && contains(valueOf(t, string(a.body)), valueOf(t, want))
	}
	if name, value, ok := strings.Cut(want, ": "); ok {
		return a.header.Get(name) == value
	}
	return strings.Contains(string(a.body), want)
}

// contains reports whether got has all that want has: an object at least its members, an array as many elements, a text
// that is or, where want begins with "~", has the rest of it. "~" alone is any value but null.
func contains(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		members, ok := got.(map[string]any)
		for name := range want {
			value, there := members[name]
			ok = ok && there && contains(value, want[name])
		}
		return ok
	case []any:
		elements, ok := got.([]any)
		return ok && slices.EqualFunc(elements, want, contains)
	case string:
		if part, partly := strings.CutPrefix(want, "~"); partly {
			text, ok := got.(string)
			return part == "" && got != nil || ok && strings.Contains(text, part)
		}
	}
	return got == want
}

var (
	routePattern = regexp.MustCompile(`[hH]andle\("([A-Z]+) (/[^"]*)"`)
	routeServed  = regexp.MustCompile(`(?m)^http_request_duration_seconds_count\{code="2..",method="([A-Z]+)",route="([^"]*)"\}`)
)

// routes returns what pattern finds, each a method and a path.
func routes(pattern *regexp.Regexp, text []byte) map[string]bool {
	found := map[string]bool{}
	for _, m := range pattern.FindAllSubmatch(text, -1) {
		found[string(m[1])+" "+string(m[2])] = true
	}
	return found
}

// TestScenarios plays every scenario. No route of the service may be without one.
func TestScenarios(t *testing.T) {
	source, err := os.ReadFile("../httpapi/server.go")
	if err != nil {
		t.Fatal(err)
	}
	all := routes(routePattern, source)
	settings := map[string]string{"DEAD_END_CANCEL_ENABLED": "1"}
	onBothWith(t, settings, func(t *testing.T, s *service) {
		r := newReceiver(t)
		played := append(scenarios(), refusedIDs(all)...)
		kind := func(i int) string { return fmt.Sprint("kind", i+100) } // none begins with another
		for i := range played {
			r.handle("/"+kind(i)+"/cancelable", r.withCancel("/"+kind(i)+"/cancel"))
			r.handle("/"+kind(i)+"/gone", says(410, "out of order"))
		}
		for i, c := range played {
			t.Run(c.name, func(t *testing.T) { c.play(t, s.url, r, kind(i)) })
		}
		served := routes(routeServed, s.want(200, "GET", "/metrics", nil).body)
		for _, route := range slices.Sorted(maps.Keys(all)) {
			if !served[route] && route != "GET /metrics" { // it is not measured, and has just been served
				t.Errorf("no scenario has a request to %s that is answered with 2xx", route)
			}
		}
		s.checkDrift()
	})
}

// refusedIDs are two requests to every route with an id: to something that is not there, and with what is no id.
func refusedIDs(routes map[string]bool) []scenario {
	bodies := map[string]string{
		"PATCH /task/{id}": `{"new_success":1}`, "PUT /task/{id}": `{"new_success":1}`, "PATCH /batch/{id}/rules": `{"kind":"k","rules":[]}`,
	}
	id := regexp.MustCompile(`\{\w+\}`)
	var all []scenario
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		if !id.MatchString(route) {
			continue
		}
		none := "0198c0de-5a10-7000-8000-00000000ffff"
		all = append(all, scenario{"ids of " + route, []exchange{
			{id.ReplaceAllString(route, none), bodies[route], 404, `{"status":404,"title":"~","error":"~` + none + ` not found","details":[]}`},
			{id.ReplaceAllString(route, "x"), bodies[route], 400, `{"status":400,"title":"~","details":["~is not a UUID"]}`},
		}})
	}
	return all
}
