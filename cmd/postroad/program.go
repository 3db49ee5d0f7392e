package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postroad/internal/apiclient"
	"postroad/internal/config"
)

// Exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
)

// program is one run of postroad.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            config.Env
	// force, when closed, makes a server that is stopping hurry; nil: never.
	force <-chan struct{}
	// workDir is where relative data directories begin and where discovery
	// looks; "": the process's.
	workDir string

	// Set by flags that all commands have.
	json      bool
	url       string
	tokenFile string
	dataDir   string // of clients: where to find address and token

	// started tells wrong usage from a command that failed.
	started bool
}

func newProgram(stdin io.Reader, stdout, stderr io.Writer, environ []string) *program {
	return &program{stdin: stdin, stdout: stdout, stderr: stderr, env: config.ParseEnv(environ)}
}

// run runs the command that args name until it is done or ctx ends, and returns
// the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.rootCommand() //nolint:contextcheck // commands get their context when they run
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := p.exitCode(err)
	p.report(command, err, code)
	return code
}

// usageError is a command line that cannot be obeyed.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// unavailableError is something of ours that cannot be reached.
type unavailableError struct{ error }

// Unwrap returns the reason.
func (e unavailableError) Unwrap() error { return e.error }

// silentError ends the program with its code; what there is to say was said.
type silentError struct{ code int }

// Error implements error.
func (e silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func (p *program) exitCode(err error) int {
	var (
		usage       usageError
		silent      silentError
		problem     *apiclient.Problem
		unreachable *apiclient.UnreachableError
		away        unavailableError
	)
	switch {
	case errors.As(err, &silent):
		return silent.code
	case !p.started || errors.As(err, &usage) || errors.Is(err, config.ErrURL):
		return exitUsage
	case errors.As(err, &problem):
		return problemExitCode(problem)
	case errors.As(err, &unreachable), errors.As(err, &away), errors.Is(err, config.ErrNoTarget):
		return exitUnavailable
	}
	return exitError
}

func problemExitCode(problem *apiclient.Problem) int {
	switch problem.Status {
	case 404, 410:
		return exitNotFound
	case 409, 412:
		return exitConflict
	case 502, 503, 504:
		return exitUnavailable
	}
	return exitError
}

// report says on standard error what went wrong: a document for programs, or
// text.
func (p *program) report(command *cobra.Command, err error, code int) {
	var silent silentError
	if errors.As(err, &silent) {
		return
	}
	if p.json {
		fmt.Fprintln(p.stderr, string(errorDocument(err, code)))
		return
	}
	fmt.Fprintf(p.stderr, "postroad: %s\n", err)
	if code == exitUsage && command != nil {
		fmt.Fprintf(p.stderr, "Run `%s --help` for how to use it.\n", command.CommandPath())
	}
}

// errorDocument is the server's own problem where it sent one.
func errorDocument(err error, code int) []byte {
	var problem *apiclient.Problem
	if errors.As(err, &problem) && len(problem.Raw) > 0 {
		return []byte(strings.TrimSpace(string(problem.Raw)))
	}
	text, encodeErr := json.Marshal(map[string]any{"title": err.Error(), "exitCode": code})
	if encodeErr != nil {
		return []byte(`{"title":"error"}`)
	}
	return text
}

// action makes a command's RunE of what it does.
func (p *program) action(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		names := []string{"token-file", "data-dir"}
		if own := command.Annotations[envFlags]; own != "" {
			names = append(names, strings.Fields(own)...)
		}
		if err := config.Fill(command.Flags(), p.env, names...); err != nil {
			return usageError{err}
		}
		p.started = true
		return do(command.Context(), args)
	}
}

// envFlags is the annotation that names a command's flags that an environment
// variable may stand for.
const envFlags = "postroad/env"

// client finds the server to talk to.
func (p *program) client(ctx context.Context) (*apiclient.Client, error) {
	dir, err := p.dir()
	if err != nil {
		return nil, err
	}
	target, err := config.Search{Env: p.env, WorkDir: dir, URL: cmp.Or(p.url, p.env[config.Prefix+"URL"]), TokenFile: p.tokenFile, DataDir: p.dataDir}.Find(ctx)
	if err != nil {
		return nil, err
	}
	return &apiclient.Client{URL: target.URL, Token: target.Token, UserAgent: "postroad/" + version()}, nil
}

func (p *program) dir() (string, error) {
	if p.workDir != "" {
		return p.workDir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	return dir, nil
}

// terminal returns the file behind w if it is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// printJSON writes a document as the server sent it, indented.
func (p *program) printJSON(document []byte) error {
	var value any
	decoder := json.NewDecoder(strings.NewReader(string(document)))
	decoder.UseNumber() // sequences go beyond what a float64 holds
	if err := decoder.Decode(&value); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return p.encode(value)
}

// encode writes a value for programs.
func (p *program) encode(value any) error {
	encoder := json.NewEncoder(p.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// encodeLine writes a value in one line, for streams.
func (p *program) encodeLine(value any) error {
	encoder := json.NewEncoder(p.stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// tell prints a line for people only.
func (p *program) tell(text string) {
	if !p.json {
		p.printf("%s\n", text)
	}
}

func (p *program) printf(format string, args ...any) {
	fmt.Fprintf(p.stdout, format, args...)
}
