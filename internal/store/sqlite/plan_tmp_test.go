package sqlite
import ("testing";"path/filepath";"fmt";"os";"regexp")
func TestPlans(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "x.db"), newClock())
	for _, f := range []string{"create","settle","changes","pump","delivery","lease","list"} {
		raw, _ := os.ReadFile("query/"+f+".sql")
		for _, m := range regexp.MustCompile(`(?m)^-- name: ([a-z_]+)\n`).FindAllStringSubmatch(string(raw), -1) {
			sql := s.queries.Get(m[1])
			if m[1]=="tasks" || len(m[1])>6 && m[1][:6]=="tasks_" { continue }
			fmt.Println("==", m[1])
			s.write(t.Context(), func(tx *tx) error {
				tx.query("x", "EXPLAIN QUERY PLAN "+sql, func(r *row) error { fmt.Println("   ", r.values[3]); return nil }, int64(1), int64(1), int64(1))
				if tx.err != nil { fmt.Println(tx.err) }
				return nil
			})
		}
	}
	for _, x := range []string{"tasks_by_facts\nORDER BY t.id DESC","tasks_by_facts\nWHERE t.batch_id=? AND t.id<? ORDER BY t.id DESC","tasks_by_facts\nWHERE t.kind=? ORDER BY t.id DESC","tasks_by_state\nWHERE s.status in (select value from json_each(?)) AND s.id < ? ORDER BY s.id DESC","tasks_by_running\nWHERE p.task_id < ? AND t.batch_id=? ORDER BY p.task_id DESC","tasks_by_place\nWHERE p.task_id < ? ORDER BY p.task_id DESC"} {
		name := regexp.MustCompile(`^\w+`).FindString(x)
		fmt.Println("==", x)
		s.write(t.Context(), func(tx *tx) error {
			tx.query("x", "EXPLAIN QUERY PLAN "+s.queries.Get("tasks")+"\n"+s.queries.Get(name)+x[len(name):]+" LIMIT 50", func(r *row) error { fmt.Println("   ", r.values[3]); return nil }, int64(1), int64(1), int64(1))
			return nil
		})
	}
}
