package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postroad/api"
	"postroad/internal/tracing"
	"postroad/store"
	"postroad/worker"
)

// requestsMax is how long requests to our own HTTP servers may go on once they
// stop; an upload can be longer than that.
const requestsMax = 10 * time.Second

// logFlags say what a server logs.
type logFlags struct{ level, format string }

func (l *logFlags) add(command *cobra.Command) {
	command.Flags().StringVar(&l.level, "log-level", "info", "debug, `info`, warn or error")
	command.Flags().StringVar(&l.format, "log-format", "text", "`text` or json")
}

// drainDelayMax leaves time for requests within what a stop may take.
const drainDelayMax = 15 * time.Second

// drainFlag says how long an API that stops serves on while it is not ready.
type drainFlag struct{ delay time.Duration }

func (d *drainFlag) add(command *cobra.Command) {
	command.Flags().DurationVar(&d.delay, "drain-delay", 0,
		"how `long` to serve on after SIGTERM while /readyz says no, for balancers that look at it; at most "+drainDelayMax.String())
}

func (d *drainFlag) validate() error {
	if d.delay < 0 || d.delay > drainDelayMax {
		return usagef("--drain-delay must be between 0s and %s", drainDelayMax)
	}
	return nil
}

func (d *drainFlag) wait(ctx context.Context) {
	timer := time.NewTimer(d.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// attemptFlags say which attempts have a line in the log, and how long all are
// kept in the database.
type attemptFlags struct {
	log  string
	days int
}

func (a *attemptFlags) add(command *cobra.Command) {
	command.Flags().IntVar(&a.days, "attempts-keep", store.AttemptDaysKept, "how many whole `days` attempts are kept")
	command.Flags().StringVar(&a.log, "log-attempts", "failures", "which attempts have a line in the log: all, `failures` or none")
}

func (a *attemptFlags) validate() error {
	if !slices.Contains(worker.LogAttempts, a.log) {
		return usagef("--log-attempts %q is none of %s", a.log, strings.Join(worker.LogAttempts, ", "))
	}
	if a.days < 1 {
		return usagef("--attempts-keep %d: want 1 day or more", a.days)
	}
	return nil
}

// openTracing sets traces up, as OpenTelemetry's variables say.
func (p *program) openTracing(ctx context.Context, service string, logger *slog.Logger) (tracing.Tracing, error) {
	t, err := tracing.Open(ctx, tracing.Config{Env: p.env, Service: service, Version: version(), Logger: logger})
	if err != nil {
		return t, usageError{err}
	}
	return t, nil
}

func closeTracing(ctx context.Context, t tracing.Tracing, logger *slog.Logger) {
	if err := t.Close(ctx); err != nil {
		logger.Warn("last traces not sent", "error", err)
	}
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usagef("--log-level %q is none of debug, info, warn and error", l.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format %q is neither text nor json", l.format)
}

// httpServer is a listener with what serves it. The listener is there before
// anything slow starts: a taken address is the usual fault.
type httpServer struct {
	name     string
	listener net.Listener
	server   *http.Server
	failed   chan error // gets what ended Serve unasked
	serving  sync.WaitGroup
}

// listenHTTP takes an address; "" gives a server that does nothing.
func listenHTTP(ctx context.Context, name, address string) (*httpServer, error) {
	s := &httpServer{name: name, failed: make(chan error, 1)}
	if address == "" {
		return s, nil
	}
	var err error
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return s, nil
}

// url is where the server is reached from this machine; "" if it is none.
func (s *httpServer) url() string {
	if s.listener == nil {
		return ""
	}
	address, ok := s.listener.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(address.Port))
}

func (s *httpServer) serve(handler http.Handler, logger *slog.Logger) {
	if s.listener == nil {
		return
	}
	s.server = api.NewHTTPServer(handler)
	s.server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	s.serving.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serve %s: %w", s.name, err)
		}
	})
}

// stop lets requests end within ctx and then breaks them off.
func (s *httpServer) stop(ctx context.Context) {
	switch {
	case s.listener == nil:
		return
	case s.server == nil:
		_ = s.listener.Close()
		return
	}
	if err := s.server.Shutdown(ctx); err != nil {
		_ = s.server.Close()
	}
	s.serving.Wait()
}

// metricsMux serves a handler at /metrics.
func metricsMux(handler http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler)
	return mux
}

// stopWithin calls what stops a server with a context that ends after within, or
// when force says to hurry.
func stopWithin(ctx context.Context, force <-chan struct{}, within time.Duration, stop func(context.Context)) error {
	// What ctx ended for is why we stop: stopping itself must not end with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop(ctx)
	}()
	select {
	case <-done:
		return nil
	case <-force:
		cancel()
	}
	timer := time.NewTimer(forcedMax)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	return errForced
}

// forcedMax is how long a forced stop may still take: PostgreSQL is worth it.
const forcedMax = 8 * time.Second
