// Package house holds no code: its test reads the module's source and keeps the house rules that no linter knows. Every
// package has a doc comment, and no directory below internal has a name that says nothing of what is in it.
package house
