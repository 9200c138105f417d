package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
)

// Migration is one step of a schema, forward only.
type Migration struct {
	Version  int
	Name     string // of its file
	SQL      string
	Checksum string // of SQL, SHA-256 in hex
}

var migrationName = regexp.MustCompile(`^(\d{4})_[a-z_]+\.sql$`)

// PendingMigrations reads migration/NNNN_name.sql of files and returns those that are not in applied, which has the
// checksum of each version, in their order. A version that applied does not know by the same checksum, or that the
// files do not have, is an error: another program made this schema.
func PendingMigrations(files fs.FS, applied map[int]string) ([]Migration, error) {
	names, err := fs.Glob(files, "migration/*.sql")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	slices.Sort(names)
	var pending []Migration
	newest := 0
	for _, name := range names {
		m, err := readMigration(files, name)
		if err != nil {
			return nil, err
		}
		newest = m.Version
		switch checksum, ok := applied[m.Version]; {
		case !ok:
			pending = append(pending, m)
		case checksum != m.Checksum:
			return nil, fmt.Errorf("migration %s is not the one that made this database", m.Name)
		}
	}
	for version := range applied {
		if version > newest {
			return nil, fmt.Errorf("the database has version %d, this program knows only up to %d: use a newer one",
				version, newest)
		}
	}
	return pending, nil
}

func readMigration(files fs.FS, name string) (Migration, error) {
	match := migrationName.FindStringSubmatch(path.Base(name))
	if match == nil {
		return Migration{}, fmt.Errorf("migration %s: the name is not NNNN_name.sql", name)
	}
	raw, err := fs.ReadFile(files, name)
	if err != nil {
		return Migration{}, fmt.Errorf("read migration: %w", err)
	}
	version, err := strconv.Atoi(match[1])
	if err != nil {
		return Migration{}, fmt.Errorf("migration %s: %w", name, err)
	}
	sum := sha256.Sum256(raw)
	return Migration{Version: version, Name: path.Base(name), SQL: string(raw), Checksum: hex.EncodeToString(sum[:])}, nil
}
