package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child of ours.
type process struct {
	name string
	cmd  *exec.Cmd
	out  io.ReadCloser
	done chan struct{} // closed when it has ended
	err  error         // valid then

	mu   sync.Mutex
	tail []string // the last lines it wrote to standard error
}

// tailLines is how much of a child's standard error a failure shows.
const tailLines = 30

func startProcess(name string, command, arguments, env []string) (*process, error) {
	argv := append(append([]string{}, command...), arguments...)
	p := &process{name: name, done: make(chan struct{})}
	// Not CommandContext: it would kill at once what has to stop in order.
	p.cmd = exec.Command(argv[0], argv[1:]...) //nolint:noctx // stopped by stop
	p.cmd.Env = env
	// A group of its own: Ctrl-C is for us, and we stop our children in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.out = out
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.keepTail(errs)
	}()
	go func() {
		<-read // Wait closes the pipe
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) keepTail(errs io.Reader) {
	lines := bufio.NewScanner(errs)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.tail = append(p.tail, lines.Text())
		p.tail = p.tail[max(0, len(p.tail)-tailLines):]
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, errs) // a line too long must not block it
}

// died is what to say of a process that ended unasked.
func (p *process) died() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := p.err
	if ended == nil {
		ended = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended: %w:\n%s", p.name, ended, strings.Join(p.tail, "\n"))
}

// stop asks the process to end and kills it when it has not within grace.
func (p *process) stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		var exit *exec.ExitError
		if errors.As(p.err, &exit) && !exit.Success() && exit.ExitCode() != -1 {
			return p.died()
		}
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within %s", p.name, grace)
	}
}

// firstOutput reads what a process says first on its standard output. What
// comes later is thrown away.
func firstOutput[T any](ctx context.Context, p *process, read func(io.Reader) (T, error)) (T, error) {
	type result struct {
		said T
		err  error
	}
	first := make(chan result, 1)
	go func() {
		said, err := read(p.out)
		first <- result{said, err}
		_, _ = io.Copy(io.Discard, p.out)
	}()
	var none T
	select {
	case r := <-first:
		if r.err == nil {
			return r.said, nil
		}
	case <-ctx.Done():
	}
	select {
	case <-p.done:
		return none, p.died()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// pid is the process's id.
func (p *process) pid() int { return p.cmd.Process.Pid }
