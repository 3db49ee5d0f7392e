// Package config answers where a program's settings come from: flags, then the
// environment, then what a running stack left in its data directory.
//
// It owns the names of those files and variables, and how settings are shown:
// secrets as set or unset, URLs without credentials. It reads the environment
// only from what it is handed, so that a test can run a program with its own.
package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/pflag"
)

// Prefix begins the name of every environment variable of ours.
const Prefix = "POSTROAD_"

// Variables that no flag stands for: a secret on a command line can be read by
// every user of the machine.
const (
	EnvToken      = Prefix + "TOKEN"       // the client's bearer token
	EnvAdminToken = Prefix + "ADMIN_TOKEN" // the server's
)

// Env is an environment.
type Env map[string]string

// ParseEnv reads an environment as os.Environ gives it; of a name that comes
// twice the last counts.
func ParseEnv(environ []string) Env {
	env := make(Env, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

// Environ writes the environment as os/exec wants it, in order of name.
func (e Env) Environ() []string {
	all := make([]string, 0, len(e))
	for name, value := range e {
		all = append(all, name+"="+value)
	}
	sort.Strings(all)
	return all
}

// With returns a copy in which name has that value.
func (e Env) With(name, value string) Env {
	copied := make(Env, len(e)+1)
	for n, v := range e {
		copied[n] = v
	}
	copied[name] = value
	return copied
}

// testPrefix begins the variables that only tests set.
const testPrefix = Prefix + "TEST_"

// WithoutOurs returns a copy without our own variables, for a process that is
// told everything by flags.
func (e Env) WithoutOurs() Env {
	rest := make(Env, len(e))
	for name, value := range e {
		if !strings.HasPrefix(name, Prefix) || strings.HasPrefix(name, testPrefix) {
			rest[name] = value
		}
	}
	return rest
}

// FlagVariable is the variable that may stand for a flag: --data-dir is
// POSTROAD_DATA_DIR.
func FlagVariable(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Fill sets the named flags that the command line does not from their
// variables. An empty variable is none.
func Fill(flags *pflag.FlagSet, env Env, names ...string) error {
	for _, name := range names {
		flag := flags.Lookup(name)
		value := env[FlagVariable(name)]
		if flag == nil || flag.Changed || value == "" {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("environment variable %s: %w", FlagVariable(name), err)
		}
	}
	return nil
}

// Secret shows whether a secret is set, and nothing more of it.
func Secret(value string) slog.Value {
	if value == "" {
		return slog.StringValue("unset")
	}
	return slog.StringValue("set")
}

// DatabaseURL shows a PostgreSQL URL or connection string without its password
// and without parameters, which can hold one too.
func DatabaseURL(raw string) string {
	if raw == "" {
		return ""
	}
	cfg, err := pgconn.ParseConfig(raw)
	if err != nil {
		return "unreadable" // the parser's error would quote it
	}
	shown := url.URL{Scheme: "postgres", Host: fmt.Sprintf("%s:%d", cfg.Host, cfg.Port), Path: "/" + cfg.Database}
	if cfg.User != "" {
		shown.User = url.User(cfg.User)
	}
	return shown.String()
}
