package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	main "postroad/cmd/postroad"
	"postroad/embedded"
	"postroad/internal/config"
	"postroad/internal/testkit"
)

// childVariable makes a process of this test binary be postroad.
const childVariable = "POSTROAD_TEST_MAIN"

const (
	startMax = 2 * time.Minute
	stopMax  = 45 * time.Second
	waitMax  = time.Minute
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(temporalVariable); dir != "" {
		os.Exit(temporalMain(dir, os.Args[1]))
	}
	if os.Getenv(childVariable) == "1" {
		os.Exit(main.Main())
	}
	code := testkit.Run(m)
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// result is what a run of the program gave.
type result struct {
	code           int
	stdout, stderr string
}

// cli runs the program in an empty directory, without an environment, against
// nothing unless args say otherwise.
func cli(t *testing.T, args ...string) result {
	t.Helper()
	return invoke(t, main.Invocation{Args: args, WorkDir: t.TempDir()})
}

func invoke(t *testing.T, i main.Invocation) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startMax)
	defer cancel()
	var stdout, stderr bytes.Buffer
	if i.Stdin == nil {
		i.Stdin = strings.NewReader("")
	}
	i.Stdout, i.Stderr = &stdout, &stderr
	code := i.Run(ctx)
	return result{code, stdout.String(), stderr.String()}
}

// want fails the test unless the run ended with that code.
func (r result) want(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.stdout, r.stderr)
	}
	return r
}

// contains fails the test unless the output has each of these.
func (r result) contains(t *testing.T, wanted ...string) result {
	t.Helper()
	for _, text := range wanted {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("no %q in\n%s%s", text, r.stdout, r.stderr)
		}
	}
	return r
}

// sharedStack is `postroad dev` within this process, for all tests that do not
// stop or kill it.
type sharedStack struct {
	once    sync.Once
	err     error
	dir     string
	stdout  lockedBuffer // one JSON document that says where everything is
	stderr  lockedBuffer
	cancel  context.CancelFunc
	stopped chan int
}

var shared sharedStack

// stack starts it at first use and returns its data directory.
func stack(t *testing.T) (dataDir string) {
	t.Helper()
	shared.once.Do(func() { shared.err = shared.start() })
	if shared.err != nil {
		t.Fatalf("start postroad dev: %v\n%s", shared.err, shared.stderr.String())
	}
	return shared.dir
}

// on runs a client command against the shared stack.
func on(t *testing.T, args ...string) result {
	t.Helper()
	return cli(t, append(args, "--data-dir", stack(t))...)
}

func (s *sharedStack) start() error {
	parent, err := os.MkdirTemp("", "postroad-test-")
	if err != nil {
		return err
	}
	s.dir, s.stopped = filepath.Join(parent, "data"), make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		s.stopped <- main.Invocation{
			Args: devArgs(s.dir, "--log-level", "warn", "--json"), Stdin: strings.NewReader(""), Stdout: &s.stdout, Stderr: &s.stderr,
		}.Run(ctx)
	}()
	deadline := time.Now().Add(startMax)
	for {
		select {
		case code := <-s.stopped:
			s.stopped <- code
			return fmt.Errorf("it ended with code %d", code)
		case <-time.After(20 * time.Millisecond):
		}
		if _, err := os.Stat(config.AddressFile(s.dir)); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("it is not ready in time")
		}
	}
}

func (s *sharedStack) stop() error {
	if s.cancel == nil {
		return nil
	}
	s.cancel()
	select {
	case code := <-s.stopped:
		if code != 0 {
			return fmt.Errorf("postroad dev ended with code %d: %s", code, s.stderr.String())
		}
	case <-time.After(stopMax):
		return errors.New("postroad dev did not stop")
	}
	if err := embedded.Remove(s.dir); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(s.dir))
}

// devArgs are the arguments of a stack on free ports.
func devArgs(dataDir string, more ...string) []string {
	return append([]string{
		"dev", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--temporal-listen", "127.0.0.1:0", "--ui-listen", "127.0.0.1:0",
	}, more...)
}

// lockedBuffer is a buffer that is written and read at once.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String is what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
