// Package failpoint kills the process between two steps, for the tests that want to know what a crash there leaves. It
// stands between the stages and the store: what a crash can lose lies between two transactions.
//
// Only a build with the tag "failpoint" has anything of it; in any other, [Store] returns what it is given.
package failpoint
