package house

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// module is the root of the repository.
const module = "../.."

// skipped directories hold nothing of this module's own source.
var skipped = []string{"bin", "coverage", "node_modules", "testdata", "tools"}

var meaningless = []string{"common", "models", "pkg", "types", "util"}

// directories returns the paths below the root of all directories that can hold packages.
func directories(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := fs.WalkDir(os.DirFS(module), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if base := path.Base(name); base != "." && (slices.Contains(skipped, base) || strings.HasPrefix(base, ".")) {
			return fs.SkipDir
		}
		dirs = append(dirs, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func TestPackagesHaveDocComments(t *testing.T) {
	t.Parallel()
	for _, dir := range directories(t) {
		files, err := fs.Glob(os.DirFS(module), path.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > 0 && !slices.ContainsFunc(files, func(file string) bool { return hasPackageDoc(t, file) }) {
			t.Errorf("%s: no file has a package doc comment (its role first, then its invariants)", dir)
		}
	}
}

func hasPackageDoc(t *testing.T, file string) bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path.Join(module, file), nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != ""
}

func TestDirectoriesHaveTellingNames(t *testing.T) {
	t.Parallel()
	for _, dir := range directories(t) {
		if strings.HasPrefix(dir, "internal/") && slices.Contains(meaningless, path.Base(dir)) {
			t.Errorf("%s: name the directory after what is in it", dir)
		}
	}
}
