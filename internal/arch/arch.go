// Package arch holds the rules of the house: which package may import which,
// and why the others may not. Its tests read the source tree and fail where an
// import breaks a rule, so that the layering is checked by `go test ./...` and
// needs no reviewer's memory.
//
// It reads import clauses only, of every file whatever its build tags; nothing
// in the product depends on it.
package arch

import (
	"cmp"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Violation is one import that breaks a rule.
type Violation struct {
	// File is the importing file, relative to the module's root.
	File string
	// Import is the import path that stands in it.
	Import string
	// Reason is the rule's sentence.
	Reason string
}

// String writes the violation as one line that names all three.
func (v Violation) String() string {
	return fmt.Sprintf("%s imports %q: %s", v.File, v.Import, v.Reason)
}

// kind tells apart the packages that can live in one folder.
type kind int

const (
	source       kind = iota // package foo
	internalTest             // package foo in a _test.go file
	externalTest             // package foo_test
)

// importer is a file that imports something.
type importer struct {
	area string // the top-level folder, or internal/<name>
	kind kind
}

func (i importer) test() bool { return i.kind != source }

// Check reads every Go file below the root of fsys, which is the root of the
// module, and returns the imports that break a rule, in the order of files.
// Folders named testdata and those that start with a dot or an underscore are
// not part of the module's packages and are passed over, as is a folder with a
// go.mod of its own.
func Check(fsys fs.FS, module string) ([]Violation, error) {
	var found []Violation
	err := goFiles(fsys, func(file string) error {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("parse imports: %w", err)
		}
		who := importer{area: areaOf(path.Dir(file)), kind: source}
		if strings.HasSuffix(file, "_test.go") {
			who.kind = internalTest
			if strings.HasSuffix(f.Name.Name, "_test") {
				who.kind = externalTest
			}
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("read import of %s: %w", file, err)
			}
			if reason := judge(who, module, imported); reason != "" {
				found = append(found, Violation{file, imported, reason})
			}
		}
		return nil
	})
	slices.SortFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Import, b.Import))
	})
	return found, err
}

// areaOf names the part of the house that a folder belongs to: its top-level
// folder, and below internal the next one too.
func areaOf(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if parts[0] == "internal" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// goFiles calls fn for every Go file of the module's own packages.
func goFiles(fsys fs.FS, fn func(file string) error) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			if strings.HasSuffix(name, ".go") {
				return fn(name)
			}
			return nil
		}
		if name == "." {
			return nil
		}
		base := d.Name()
		if base == "testdata" || base == "node_modules" || base[0] == '.' || base[0] == '_' {
			return fs.SkipDir
		}
		if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
			return fs.SkipDir
		}
		return nil
	})
}

// judge returns why the import is forbidden, or "" where it is not.
func judge(who importer, module, imported string) string {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		return judgeOwn(who, areaOf(ours))
	}
	if imported == module {
		return "the module's root holds no package"
	}
	return judgeForeign(who, imported)
}
