package postgres_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"taskrunner/internal/pgtest"
	"taskrunner/internal/store"
	"taskrunner/internal/store/postgres"
	"taskrunner/internal/store/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
