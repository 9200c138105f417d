package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // driver of the floor
)

// newDatabase makes an empty database and returns its DATABASE_URL. On PostgreSQL it is a schema: it is made and dropped
// without a checkpoint.
func (b *bench) newDatabase(ctx context.Context) (string, error) {
	if b.Database == "sqlite" {
		dir, err := os.MkdirTemp(b.dir, "database-")
		return "sqlite:" + filepath.Join(dir, "bench.db"), err
	}
	schema := "bench_" + strings.ToLower(rand.Text()[:12])
	if err := b.admin(ctx, "CREATE SCHEMA "+schema); err != nil {
		return "", err
	}
	u, err := url.Parse(b.postgresURL)
	if err != nil {
		return "", fmt.Errorf("read the URL of PostgreSQL: %w", err)
	}
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// dropDatabase removes what newDatabase made; an empty url means nothing.
func (b *bench) dropDatabase(ctx context.Context, databaseURL string) error {
	if path, ok := strings.CutPrefix(databaseURL, "sqlite:"); ok {
		return os.RemoveAll(filepath.Dir(path))
	}
	if databaseURL == "" {
		return nil
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return err
	}
	return b.admin(ctx, "DROP SCHEMA "+u.Query().Get("search_path")+" CASCADE")
}

// admin runs a statement on the server's own database.
func (b *bench) admin(ctx context.Context, statement string) (err error) {
	conn, err := pgx.Connect(ctx, b.postgresURL)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
