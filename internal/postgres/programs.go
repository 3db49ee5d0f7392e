package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// majorMin is the oldest PostgreSQL that is still maintained and has all we use.
const majorMin = 14

// programs is one installation of the server.
type programs struct {
	dir   string
	major int
}

func (p programs) initdb() string   { return filepath.Join(p.dir, "initdb") }
func (p programs) postgres() string { return filepath.Join(p.dir, "postgres") }

// NotInstalledError says that no usable PostgreSQL server was found.
type NotInstalledError struct {
	Major   int   // the version the data needs; 0 if any would do
	Problem error // why the download did not help either; nil if none was tried
}

// Error tells what to install.
func (e *NotInstalledError) Error() string {
	text := fmt.Sprintf("no PostgreSQL server of version %d or newer was found", majorMin)
	debian, homebrew := "postgresql", "postgresql@17"
	if e.Major != 0 {
		text = fmt.Sprintf("the data directory was made by PostgreSQL %d, and no server of that version was found", e.Major)
		debian, homebrew = fmt.Sprintf("postgresql-%d", e.Major), fmt.Sprintf("postgresql@%d", e.Major)
	}
	text += fmt.Sprintf("; install it (Debian and Ubuntu: apt install %s; macOS: brew install %s) or name a database of your own", debian, homebrew)
	if e.Problem != nil {
		text += "; downloading one did not work either: " + e.Problem.Error()
	}
	return text
}

// Unwrap returns the download's error.
func (e *NotInstalledError) Unwrap() error { return e.Problem }

// findPrograms finds a server that the account can run: of the given major
// version, or of any that is new enough if that is 0.
func findPrograms(ctx context.Context, acct *account, major int, logger *slog.Logger) (programs, error) {
	if p, ok := choosePrograms(ctx, installedDirs(ctx), acct, major); ok {
		return p, nil
	}
	dir, err := download(ctx, acct, major, logger)
	if err != nil {
		return programs{}, &NotInstalledError{Major: major, Problem: err}
	}
	if p, ok := choosePrograms(ctx, []string{dir}, acct, major); ok {
		return p, nil
	}
	return programs{}, &NotInstalledError{Major: major, Problem: fmt.Errorf("the programs in %s do not run", dir)}
}

// choosePrograms returns the first directory of dirs that will do.
func choosePrograms(ctx context.Context, dirs []string, acct *account, major int) (programs, bool) {
	for _, dir := range dirs {
		found, err := inspect(ctx, dir, acct)
		if err != nil || found.major < majorMin || major != 0 && found.major != major {
			continue
		}
		return found, true
	}
	return programs{}, false
}

// installedDirs lists where servers are installed, the most deliberate choice first.
func installedDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// A link in PATH leads to the directory where the other programs are.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if output, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(bytes.TrimSpace(output)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // Red Hat
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
		"/opt/homebrew/opt/postgresql/bin",   //
		"/usr/local/opt/postgresql/bin",      //
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	} {
		dirs = append(dirs, newestFirst(pattern)...)
	}
	return dirs
}

var numberInPath = regexp.MustCompile(`\d+`)

// newestFirst expands a pattern; a higher version number in a path comes first.
func newestFirst(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	slices.SortFunc(found, func(a, b string) int {
		return cmp.Or(cmp.Compare(numberIn(b), numberIn(a)), cmp.Compare(a, b))
	})
	return found
}

// numberIn is the last number in a path: earlier ones belong to what it lies in.
func numberIn(path string) int {
	all := numberInPath.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	number, err := strconv.Atoi(all[len(all)-1])
	if err != nil {
		return 0
	}
	return number
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect checks that a directory has the server's programs (some packages put
// only the client's there) and that the account can run them.
func inspect(ctx context.Context, dir string, acct *account) (programs, error) {
	p := programs{dir: dir}
	for _, path := range []string{p.initdb(), p.postgres(), filepath.Join(dir, "pg_ctl")} {
		info, err := os.Stat(path)
		if err != nil {
			return programs{}, err
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return programs{}, fmt.Errorf("%s is not a program", path)
		}
	}
	output, err := acct.command(ctx, "/", p.postgres(), "--version").Output()
	if err != nil {
		return programs{}, fmt.Errorf("run %s: %w", p.postgres(), err)
	}
	match := versionText.FindSubmatch(output)
	if match == nil {
		return programs{}, errors.New("unknown version: " + string(output))
	}
	if p.major, err = strconv.Atoi(string(match[1])); err != nil {
		return programs{}, err
	}
	return p, nil
}
