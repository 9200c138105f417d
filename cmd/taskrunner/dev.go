package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"taskrunner/api"
	"taskrunner/internal/app"
	"taskrunner/internal/config"
	"taskrunner/internal/telemetry"
)

func devCommand() *cobra.Command {
	var workerOnly bool
	var workerAddr string
	// What dev is about; a flag or a variable still wins.
	defaults := map[string]string{"LISTEN_ADDR": "127.0.0.1", "WEBHOOK_ALLOWED_NETWORKS": "loopback", "LOG_LEVEL": "warn"}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Serve on 127.0.0.1 with an example worker, and run an example batch",
		Long: "Serve on 127.0.0.1 with webhooks to this machine allowed and warnings only, start an example worker, run an example batch\n" +
			"and show its progress; then keep serving.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for name, value := range defaults {
				flag := config.Setting{Name: name}.Flag()
				if cmd.Flags().Changed(flag) || os.Getenv(name) != "" || name == "LOG_LEVEL" && os.Getenv("RUST_LOG") != "" {
					continue
				}
				if err := cmd.Flags().Set(flag, value); err != nil {
					return err
				}
			}
			if workerOnly {
				return runWorker(cmd, workerAddr)
			}
			return dev(cmd, workerAddr)
		},
	}
	addSettings(cmd, defaults)
	cmd.Flags().BoolVar(&workerOnly, "worker-only", false, "run the example worker alone")
	cmd.Flags().StringVar(&workerAddr, "worker-addr", "127.0.0.1:8086", "address of the example worker")
	return cmd
}

func runWorker(cmd *cobra.Command, address string) error {
	c, _, err := configure(cmd)
	if err != nil {
		return err
	}
	worker, err := newExampleWorker(cmd.Context(), address, telemetry.NewLogger(os.Stderr, slog.LevelInfo))
	if err != nil {
		return err
	}
	worker.service, worker.token, worker.secrets = c.HostURL, c.AuthToken, c.WebhookSecrets
	fmt.Fprintf(cmd.OutOrStdout(), "example worker  %s\n", worker.url("/run"))
	return worker.run(cmd.Context())
}

func dev(cmd *cobra.Command, workerAddr string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	c, log, err := configure(cmd)
	if err != nil {
		return err
	}
	c.HostURLGuessed = false // the worker is on this machine
	worker, err := newExampleWorker(ctx, workerAddr, log)
	if err != nil {
		return err
	}
	worker.service, worker.token, worker.secrets = c.HostURL, c.AuthToken, c.WebhookSecrets
	fmt.Fprintf(out, "example worker  %s\n", worker.url("/run"))
	a, err := app.New(ctx, c, log)
	if err != nil {
		return err
	}
	base := "http://" + a.Addr().String()
	fmt.Fprintf(out, "task runner     %s\n\n", base)

	g, ctx := errgroup.WithContext(ctx)
	show := &progress{out: out, base: base, token: c.AuthToken, last: map[string]string{}, begun: time.Now()}
	worker.done = show.delivered
	g.Go(func() error { return worker.run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	g.Go(func() error {
		if err := show.example(ctx, worker.url("")); err != nil && ctx.Err() == nil {
			return fmt.Errorf("example batch: %w", err)
		}
		return nil
	})
	return g.Wait()
}

// exampleBatch is a diamond: three transforms wait for extract, no two of them run at once for one tenant, and load
// waits for all of them.
func exampleBatch(worker string) string {
	task := func(id, kind string, workMS int, rest string) string {
		return fmt.Sprintf(`{"id": %q, "name": %q, "kind": %q, "metadata": {"tenant": "acme"}, %s
  "on_start": {"kind": "Webhook", "trigger": "Start", "params": {"url": %q, "verb": "Post", "body": {"work_ms": %d}}},
  "on_success": [{"kind": "Webhook", "trigger": "End", "params": {"url": %q, "verb": "Post"}}]}`,
			id, id, kind, rest, worker+"/run", workMS, worker+"/done/"+id)
	}
	const limit = `"dependencies": [{"id": "extract", "requires_success": true}],
  "rules": [{"Concurency": {"matcher": {"kind": "transform", "status": "Running", "fields": ["tenant"]}, "max_concurency": 2}}],`
	return "[" + task("extract", "extract", 400, "") + ",\n" +
		task("transform-a", "transform", 500, limit) + ",\n" +
		task("transform-b", "transform", 800, limit) + ",\n" +
		task("transform-c", "transform", 600, limit) + ",\n" +
		task("load", "load", 400, `"dependencies": [{"id": "transform-a"}, {"id": "transform-b"}, {"id": "transform-c"}],`) + "]"
}

// progress shows what becomes of a batch, a line a change.
type progress struct {
	out   io.Writer
	base  string
	token string // of the service; empty: it wants none
	begun time.Time

	mu   sync.Mutex
	last map[string]string // what was shown of each task, by local id
	told int               // end webhooks received
}

func (p *progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%6.2fs  %s\n", time.Since(p.begun).Seconds(), fmt.Sprintf(format, args...))
}

// delivered is told of end webhooks that the worker received.
func (p *progress) delivered(path string) {
	p.line("end webhook    POST %s", path)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told++
}

// example creates the example batch and shows it until it is done.
func (p *progress) example(ctx context.Context, worker string) error {
	header, _, err := p.request(ctx, http.MethodPost, "/task", []byte(exampleBatch(worker)))
	if err != nil {
		return err
	}
	batch := header.Get("X-Batch-ID")
	p.line("POST /task     201, batch %s", batch)
	for {
		done, err := p.look(ctx, batch)
		if err != nil {
			return err
		}
		if done {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
	p.line("the batch is done; still serving %s (Ctrl-C stops)", p.base)
	return nil
}

// look shows what has changed and reports whether every task has ended and said so.
func (p *progress) look(ctx context.Context, batch string) (bool, error) {
	_, answer, err := p.request(ctx, http.MethodGet, "/task?per_page=100&batch_id="+batch, nil)
	if err != nil {
		return false, err
	}
	var tasks []api.TaskSummary
	if err := json.Unmarshal(answer, &tasks); err != nil {
		return false, fmt.Errorf("read the list of tasks: %w", err)
	}
	slices.SortFunc(tasks, func(a, b api.TaskSummary) int { return cmp.Compare(a.ID, b.ID) })
	ended := 0
	for _, t := range tasks {
		now := fmt.Sprintf("%-8s %3d done", t.Status, t.Success)
		if p.last[t.LocalID] != now {
			p.last[t.LocalID] = now
			p.line("%-13s  %s", t.LocalID, now)
		}
		if t.EndedAt != (api.Time{}) {
			ended++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return ended == len(tasks) && p.told >= len(tasks), nil
}

// request calls the service like any client, and returns the header and the body of the answer.
func (p *progress) request(ctx context.Context, method, path string, body []byte) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("X-Requester", "taskrunner dev")
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it is read whole
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return resp.Header, answer, nil
}
