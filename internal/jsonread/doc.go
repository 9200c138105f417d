// Package jsonread reads JSON that strangers send. Its way has two steps:
//
//   - [Check] walks a whole body once and refuses what is not JSON, and what is JSON but would be read differently by
//     two readers or refused by a database later: duplicate member names, NUL and lone surrogates in strings, numbers
//     out of bounds, nesting without end. Its error names the place.
//   - After that a [Value] is a slice of the checked body. Its members and elements are found by scanning for them,
//     one level at a time, without reflection and without allocating. A [Reader] turns values into Go types and
//     collects every mistake with its path, so that a client learns of all of them at once.
//
// A [Stream] does both for a body that is never in memory as a whole: it checks and gives out one value after the other.
//
// Invariants:
//
//   - What Check accepts is valid for encoding/json, and every string in it decodes to the same text there.
//   - Member names are case-sensitive. No name stands twice in one object.
//   - Nothing panics on bytes that were not checked; what is read from them is unspecified.
//
// A Value refers to the body it was cut from: text that outlives the body is copied (Text and Reader.String do).
package jsonread
