package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// results are what all runs found.
type results struct {
	Machine machine `json:"machine"`
	Runs    []runOf `json:"runs"`
	json    bool
}

// machine is what it was found on, and of what.
type machine struct {
	At       time.Time `json:"at"`
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	System   string    `json:"system"`
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	MemoryMB int64     `json:"memory_mb,omitempty"`
	Database string    `json:"database"`
	Scale    float64   `json:"scale"`
}

type runOf struct {
	Workload string   `json:"workload"`
	Error    string   `json:"error,omitempty"`
	Figures  []Figure `json:"figures,omitempty"`
}

func newResults(o *Options, database string) *results {
	return &results{json: o.JSON, Machine: machine{
		At: time.Now().UTC().Truncate(time.Second), Version: o.Version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH + kernel(),
		CPU: fromProc("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), MemoryMB: memory(), Database: database, Scale: o.Scale,
	}}
}

// fromProc is the value of the first line of a file that begins with name; empty where there is none.
func fromProc(file, name string) string {
	raw, _ := os.ReadFile(file) // none: not known
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kernel() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/osrelease") // none: not known
	return strings.TrimRight(" "+strings.TrimSpace(string(raw)), " ")
}

func memory() int64 {
	kB, _ := strconv.ParseInt(strings.TrimSuffix(fromProc("/proc/meminfo", "MemTotal"), " kB"), 10, 64) // none: 0
	return kB << 10 / 1e6
}

// version is that of the database.
func (b *bench) version(ctx context.Context) (string, error) {
	if b.Database == "sqlite" {
		return "SQLite", nil
	}
	conn, err := pgx.Connect(ctx, b.postgresURL)
	if err != nil {
		return "", fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	var version string
	err = conn.QueryRow(ctx, "SELECT 'PostgreSQL ' || current_setting('server_version') || ', shared_buffers ' || current_setting('shared_buffers') || ', fsync ' || current_setting('fsync')").Scan(&version)
	if closing := conn.Close(ctx); err == nil {
		err = closing
	}
	return version, err
}

func (r *results) add(workload string, figures []Figure, err error) {
	run := runOf{Workload: workload, Figures: figures}
	if err != nil {
		run = runOf{Workload: workload, Error: err.Error()}
	}
	r.Runs = append(r.Runs, run)
}

func (r *results) write(out io.Writer) error {
	if r.json {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	m := r.Machine
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s, version %s, %s, scale %g\n%s, %d cores, %d MB, %s\n\n",
		m.At.Format(time.RFC3339), m.Database, m.Version, m.Go, m.Scale, m.CPU, m.Cores, m.MemoryMB, m.System)
	fmt.Fprintf(&b, row, "best", "median", "floor", "of it", "", "")
	seen := map[string]bool{}
	for _, run := range r.Runs {
		if !seen[run.Workload] {
			seen[run.Workload] = true
			r.workload(&b, run.Workload)
		}
	}
	_, err := b.WriteTo(out)
	return err
}

// row is the form of the table.
const row = "%10s  %10s  %10s  %6s   %-10s  %s\n"

// workload writes the rows of one: the best and the median of its runs, and the medians of the floor and of how near it
// they came.
func (r *results) workload(table io.Writer, name string) {
	byName := map[string][]Figure{}
	var order []string
	runs, wrong := 0, ""
	for _, run := range r.Runs {
		if run.Workload != name {
			continue
		}
		runs++
		if run.Error != "" {
			wrong += "\nWRONG: " + run.Error
		}
		for _, f := range run.Figures {
			if byName[f.Name] == nil {
				order = append(order, f.Name)
			}
			byName[f.Name] = append(byName[f.Name], f)
		}
	}
	fmt.Fprintf(table, "\n%s, runs: %d%s\n", name, runs, wrong)
	for _, name := range order {
		all := byName[name]
		best, median := slices.MinFunc(all, better).Value, medianOf(all, func(f Figure) float64 { return f.Value })
		floor, near := "", ""
		if f := medianOf(all, func(f Figure) float64 { return f.Floor }); f > 0 {
			floor = number(f)
			near = fmt.Sprintf("%.0f%%", 100*medianOf(all, Figure.Efficiency))
		}
		fmt.Fprintf(table, row, number(best), number(median), floor, near, all[0].Unit, name)
	}
}

// better orders the better figures first.
func better(a, b Figure) int {
	if a.More {
		a, b = b, a
	}
	return cmp.Compare(a.Value, b.Value)
}

func medianOf(all []Figure, of func(Figure) float64) float64 {
	values := make([]float64, len(all))
	for i, f := range all {
		values[i] = of(f)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
