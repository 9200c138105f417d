package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"taskrunner/api"
	receiving "taskrunner/client"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// verifier knows these secrets.
func verifier(t *testing.T, texts ...string) *receiving.Verifier {
	t.Helper()
	secrets := make([]receiving.Secret, len(texts))
	for i, text := range texts {
		var err error
		if secrets[i], err = receiving.ParseSecret(text); err != nil {
			t.Fatal(err)
		}
	}
	return receiving.NewVerifier(secrets...)
}

// TestSignedWebhooks: every webhook is signed with both secrets, whatever it tells, and keeps its id when it is sent again.
func TestSignedWebhooks(t *testing.T) {
	onBothWith(t, map[string]string{"WEBHOOK_SECRETS": secretA + ", " + secretB}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		r.handle("/twice", answers(503, 200))
		r.handle("/cancelable", r.withCancel("/cancel"))
		ends := obj{"on_success": []obj{r.hook("/success")}, "on_failure": []obj{r.send("Delete", "/failure", nil)}}
		a := s.want(201, "POST", "/task", obj{
			"tasks":             []obj{r.newTask("a", "/twice", ends), r.newTask("b", "/run", ends), r.newTask("c", "/cancelable", nil)},
			"on_batch_complete": []obj{r.send("Post", "/complete", obj{"body": obj{"é": []int{1}}})},
		})
		tasks := map[string]api.Task{}
		for _, task := range decode[[]api.Task](t, a) {
			tasks[task.LocalID] = task
			s.waitStatus(task.ID, "Running")
		}
		s.finish(tasks["a"].ID, "Success")
		s.finish(tasks["b"].ID, "Failure")
		s.want(200, "DELETE", "/task/"+tasks["c"].ID, nil)
		for _, path := range []string{"/success", "/failure", "/cancel", "/complete"} {
			r.wait(1, path, to(path))
		}
		known := map[string]*receiving.Verifier{"the old secret": verifier(t, secretA), "the new secret": verifier(t, secretB)}
		for _, c := range r.got(func(call) bool { return true }) {
			for name, v := range known {
				if err := v.Verify(c.Header, c.Body); err != nil {
					t.Errorf("%s, with %s: %v", c.Path, name, err)
				}
				if err := v.Verify(c.Header, append(c.Body, ' ')); err == nil {
					t.Errorf("%s, with %s: another body is good too", c.Path, name)
				}
			}
			if c.Header.Get("webhook-id") != c.Key || c.Key == "" {
				t.Errorf("%s: webhook-id %q, Idempotency-Key %q", c.Path, c.Header.Get("webhook-id"), c.Key)
			}
		}
		if twice := r.got(to("/twice")); len(twice) != 2 || twice[0].Header.Get("webhook-id") != twice[1].Header.Get("webhook-id") {
			t.Errorf("sent again: %s", jsonOf(twice))
		}
		s.stop()
		if log := s.log.String(); strings.Contains(log, secretA[6:]) || strings.Contains(log, secretB[6:]) {
			t.Error("the log has a secret")
		}
	})
}

// local is the request target of a handle: where the test's service listens may change.
func local(t *testing.T, handle string) string {
	t.Helper()
	u, err := url.Parse(handle)
	if err != nil || u.Query().Get("token") == "" {
		t.Fatalf("handle %q, %v", handle, err)
	}
	return u.RequestURI()
}

// TestHandleTokens: a worker needs its handle and nothing else, and can do nothing else with it. Secrets are replaced
// without anybody noticing, and the handle dies some time after the task's end.
func TestHandleTokens(t *testing.T) {
	settings := map[string]string{"AUTH_TOKEN": token, "HANDLE_SECRET": "an-old-handle-secret", "HANDLE_GRACE": "1h"}
	onBothWith(t, settings, func(t *testing.T, s *service) {
		r := newReceiver(t)
		created := decode[[]api.Task](t, s.want(201, "POST", "/task", []obj{
			r.newTask("a", "/a", obj{"on_success": []obj{r.hook("/end")}}), r.newTask("b", "/b", nil),
		}, bearer(token)...))
		id := created[0].ID
		a, b := local(t, r.wait(1, "on_start", to("/a"))[0].Handle), local(t, r.wait(1, "on_start", to("/b"))[0].Handle)
		tokenOf := func(handle string) string { return handle[strings.Index(handle, "?token=")+len("?token="):] }
		if got := tokenOf(a); !strings.HasPrefix(got, "1.report.1.") { // of its first claim
			t.Errorf("token %s", got)
		}
		none := "/task/0198c0de-5a10-7000-8000-00000000ffff"

		s.want(202, "PUT", a, obj{"new_success": 2})
		s.want(202, "PUT", "/task", []obj{{"task_id": id, "new_success": 3, "token": tokenOf(a)}})
		s.want(200, "PATCH", a, obj{"expected_count": 9})
		refused := s.want(401, "PATCH", "/task/"+id, obj{"status": "Success"}).body
		for _, c := range []struct {
			method, path string
			body         any
		}{
			{"PATCH", "/task/" + id + "?token=" + tokenOf(b), obj{"status": "Success"}},
			{"PATCH", "/task/" + id + "?token=x", obj{"status": "Success"}},
			{"PATCH", none + "?token=" + tokenOf(a), obj{"status": "Success"}},
			{"PUT", none, obj{"new_success": 1}},
			{"GET", "/task/" + id + "?token=" + tokenOf(b), nil},
			{"PUT", "/task", []obj{{"task_id": id, "new_success": 1}}},
			{"PATCH", "/task", []obj{{"id": id, "status": "Success", "token": tokenOf(b)}}},
		} {
			if got := s.want(401, c.method, c.path, c.body).body; string(got) != string(refused) {
				t.Errorf("%s %s: %s, others %s", c.method, c.path, got, refused)
			}
		}
		s.want(401, "DELETE", a, nil) // a worker reports, it does not cancel
		s.want(401, "GET", "/task/"+id, nil)

		s = restart(t, s, settings, map[string]string{"HANDLE_SECRET": "a-new-handle-secret,an-old-handle-secret"})
		s.want(200, "PATCH", a, obj{"status": "Success"})
		s.want(200, "PATCH", a, obj{"status": "Success"}) // once more, within its grace
		end := local(t, r.wait(1, "the end webhook", to("/end"))[0].Handle)
		got := decode[api.Task](t, s.want(200, "GET", end, nil))
		if got.ID != id || got.Status != "Success" || got.Success != 5 {
			t.Errorf("task %s", jsonOf(got))
		}
		s.want(401, "PUT", end, obj{"new_success": 1}) // it may only read

		s = restart(t, s, settings, map[string]string{"HANDLE_SECRET": "a-new-handle-secret", "HANDLE_GRACE": "1s"})
		s.want(401, "PUT", b, obj{"new_success": 1})
		ended := s.endAnother(r)
		for method, path := range map[string]string{"GET": end, "PUT": ended} {
			eventually(t, "the handle is dead to "+method, func() bool {
				a := s.do(method, path, obj{"new_success": 1})
				return a.status == 401 && string(a.body) == string(refused)
			})
		}
		log := s.log.String()
		if strings.Contains(log, tokenOf(a)) || strings.Contains(log, tokenOf(end)) || strings.Contains(log, "handle-secret") {
			t.Errorf("the log has a token: %s", log)
		}
	})
}

// endAnother is the handle of another task, which has ended.
func (s *service) endAnother(r *receiver) string {
	s.t.Helper()
	s.want(201, "POST", "/task", []obj{r.newTask("c", "/c", nil)}, bearer(token)...)
	u, err := url.Parse(r.wait(1, "on_start", to("/c"))[0].Handle)
	if err != nil {
		s.t.Fatal(err)
	}
	s.want(200, "PATCH", u.RequestURI(), obj{"status": "Success"})
	return u.RequestURI()
}

// restart stops s and starts it again with settings and what is changed of them.
func restart(t *testing.T, s *service, settings, changed map[string]string) *service {
	t.Helper()
	s.stop()
	settings = maps.Clone(settings)
	maps.Copy(settings, changed)
	return startService(t, s.database, settings)
}

// TestHandleTokensAlone: without AUTH_TOKEN reports need the token, and all else is open.
func TestHandleTokensAlone(t *testing.T) {
	onBothWith(t, map[string]string{"HANDLE_SECRET": "a-new-handle-secret"}, func(t *testing.T, s *service) {
		r := newReceiver(t)
		tasks, batch := s.create([]obj{r.newTask("a", "/a", nil)})
		handle := local(t, r.wait(1, "on_start", to("/a"))[0].Handle)
		path := "/task/" + tasks["a"].ID
		s.want(401, "PATCH", path, obj{"status": "Success"})
		s.want(401, "PUT", "/task", obj{"task_id": tasks["a"].ID, "new_success": 1})
		s.want(200, "GET", path, nil)
		s.want(200, "PATCH", handle, obj{"status": "Success"})
		s.waitEnd(batch)
	})
}

// TestDevWithSecrets: the example worker reports on handles with tokens, and takes signed webhooks only.
func TestDevWithSecrets(t *testing.T) {
	t.Parallel()
	built, err := program()
	if err != nil {
		t.Fatal(err)
	}
	worker := fmt.Sprint("127.0.0.1:", lastingPort(t))
	out := runDev(t, built.path, []string{
		"DATABASE_URL=sqlite:" + filepath.Join(t.TempDir(), "dev.db"), fmt.Sprint("PORT=", lastingPort(t)),
		"HANDLE_SECRET=a-new-handle-secret", "WEBHOOK_SECRETS=" + secretA, "LOG_LEVEL=warn",
	}, "the batch is done", "--worker-addr", worker)
	if strings.Contains(out, secretA[6:]) || strings.Contains(out, "handle-secret") || strings.Contains(out, "token=") {
		t.Error("a secret is shown")
	}
	resp, err := http.Post("http://"+worker+"/run", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("not signed: %d", resp.StatusCode)
	}
}
