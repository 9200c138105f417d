package postgres

import (
	"github.com/jackc/pgx/v5/pgtype"

	"taskrunner/internal/task"
)

// uuids hands ids to pgx as a uuid array without a value per element made by reflection.
type uuids []task.ID

// Dimensions is for pgtype.ArrayGetter.
func (a uuids) Dimensions() []pgtype.ArrayDimension {
	if a == nil {
		a = uuids{} // an empty array, never null
	}
	return []pgtype.ArrayDimension{{Length: int32(len(a)), LowerBound: 1}}
}

// Index is for pgtype.ArrayGetter.
func (a uuids) Index(i int) any { return (*uuidValue)(&a[i]) }

// IndexType is for pgtype.ArrayGetter.
func (a uuids) IndexType() any { return (*uuidValue)(nil) }

type uuidValue task.ID

// UUIDValue is for pgtype.UUIDValuer.
func (u *uuidValue) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: *u, Valid: u != nil}, nil
}

// tids does the same for places of rows.
type tids []pgtype.TID

// Dimensions is for pgtype.ArrayGetter.
func (a tids) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(a)), LowerBound: 1}}
}

// Index is for pgtype.ArrayGetter.
func (a tids) Index(i int) any { return &a[i] }

// IndexType is for pgtype.ArrayGetter.
func (a tids) IndexType() any { return (*pgtype.TID)(nil) }
