package main_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postroad/embedded"
	"postroad/internal/apiclient"
	"postroad/internal/config"
	"postroad/internal/testkit"
)

// child is postroad as a process of its own: this test binary, told to be it.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	done   chan struct{} // closed when it has ended
}

// startChild starts it without settings of its own; what is left of it is killed
// at the end of the test.
func startChild(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	return startChildWith(t, dir, nil, args...)
}

// startChildWith starts it with variables, as in NAME=value.
func startChildWith(t *testing.T, dir string, environ []string, args ...string) *child {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatalf("find the test binary: %v", err)
	}
	return startProgram(t, executable, dir, environ, args...)
}

// startProgram starts another release's binary in the same way.
func startProgram(t *testing.T, executable, dir string, environ []string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(executable, args...), done: make(chan struct{})}
	c.cmd.Dir = dir
	c.cmd.Env = append(append(config.ParseEnv(os.Environ()).WithoutOurs().Environ(), environ...), childVariable+"=1")
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	// A group of its own, so that Ctrl-C on the test does not reach it first.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start postroad %s: %v", args[0], err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("postroad %s wrote:\n%s%s", strings.Join(args, " "), c.stdout.String(), c.stderr.String())
		}
		c.killTree()
	})
	return c
}

// devDir makes a data directory that is removed at the end of the test, with
// the database that may lie elsewhere.
func devDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() {
		if err := embedded.Remove(dir); err != nil {
			t.Errorf("remove data: %v", err)
		}
	})
	return dir
}

// startDev starts a stack on free ports with the data of dir, and waits until it
// is ready. Another start on the same dir takes up what is there.
func startDev(t *testing.T, dir string, more ...string) (*child, *apiclient.Client) {
	t.Helper()
	// A killed stack leaves its address behind.
	if err := config.RemoveAddress(dir); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, t.TempDir(), devArgs(dir, more...)...)
	return c, c.ready(dir)
}

// ready waits until the stack of dir says that it is ready.
func (c *child) ready(dir string) *apiclient.Client {
	c.t.Helper()
	var api *apiclient.Client
	testkit.Eventually(c.t, startMax, func() bool {
		if c.ended() {
			c.t.Fatalf("it ended: %s", c.stderr.String())
		}
		target, err := config.Search{DataDir: dir}.Find(c.t.Context())
		if err != nil {
			return false
		}
		api = &apiclient.Client{URL: target.URL, Token: target.Token}
		_, err = api.Do(c.t.Context(), apiclient.Request{Method: http.MethodGet, Path: "/readyz"}, nil)
		return err == nil
	}, "postroad dev is ready")
	return api
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end and returns the exit code, -1 for a signal's.
func (c *child) wait(most time.Duration) int {
	c.t.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(most):
		c.t.Fatalf("postroad did not end within %s: %s", most, c.stderr.String())
		return -1
	}
}

// terminate sends SIGTERM, waits for the end and returns how long it took.
func (c *child) terminate() time.Duration {
	c.t.Helper()
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatalf("terminate postroad: %v", err)
	}
	if code := c.wait(stopMax); code != 0 {
		c.t.Errorf("terminated postroad ended with code %d: %s", code, c.stderr.String())
	}
	return time.Since(began)
}

// kill kills the process alone with SIGKILL; its PostgreSQL lives on.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// killTree kills the process and everything below it with SIGKILL. It stops
// them first, so that none starts another meanwhile.
func (c *child) killTree() {
	if c.ended() {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGSTOP)
	for _, pid := range descendants(c.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	c.kill()
}

// descendants are the processes below root, as /proc shows them.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		var pid, parent int
		text, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if _, scanErr := fmt.Sscan(entry.Name(), &pid); scanErr != nil || err != nil {
			continue
		}
		// The program's name stands in parentheses and may hold anything.
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
		if len(fields) > 1 {
			if _, err := fmt.Sscan(fields[1], &parent); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	var all []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		all = append(all, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return all
}
