package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"postroad/api"
	"postroad/contract"
	"postroad/embedded"
	"postroad/internal/config"
	"postroad/internal/tracing"
	"postroad/store"
)

const (
	// stopMax bounds a stack's stop; workersMax what of it deliveries get: 18 s
	// for requests, the last checkpoint, the last attempts.
	stopMax    = 29 * time.Second
	workersMax = 24 * time.Second
)

// stackConfig says what to run in one process.
type stackConfig struct {
	dataDir                                         string
	listen, temporalListen, uiListen, metricsListen string
	profileListen                                   string
	databaseURL, directURL, keyFile                 string
	allowHTTPEndpoints                              bool
	// adminToken is used at the first start of a data directory.
	adminToken string
	tracing    tracing.Tracing
	attempts   attemptFlags  // the zero value: the defaults
	keysKept   time.Duration // 0: the default
	linger     time.Duration // 0: the default
	logger     *slog.Logger
}

// stack is the whole of Postroad in one process.
type stack struct {
	cfg      stackConfig
	token    string
	http     *httpServer
	metrics  *httpServer
	profile  *httpServer
	embedded *embedded.Stack
	backend  *backend
	temporal client.Client
	driver   *driver
	api      *api.Server

	failed  chan error    // of capacity 1
	stopped chan struct{} // closed by stop
}

// searchAttributes are those of ours, as Temporal registers them.
var searchAttributes = map[string]string{contract.AttributeFeed: "Keyword", contract.AttributeState: "Keyword"}

// startStack starts everything and returns when all of it serves. ctx bounds
// the start only.
func startStack(ctx context.Context, cfg stackConfig) (*stack, error) {
	s := &stack{cfg: cfg, failed: make(chan error, 1), stopped: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopMax)
		defer cancel()
		s.stop(stopping)
		return nil, err
	}
	return s, nil
}

func (s *stack) start(ctx context.Context) error {
	var err error
	if s.http, err = listenHTTP(ctx, "the API", s.cfg.listen); err != nil {
		return err
	}
	if s.metrics, err = listenHTTP(ctx, "metrics", s.cfg.metricsListen); err != nil {
		return err
	}
	if s.profile, err = listenProfile(ctx, s.cfg.profileListen); err != nil {
		return err
	}
	s.embedded, err = embedded.Start(ctx, embedded.Config{
		DataDir: s.cfg.dataDir, DatabaseURL: s.cfg.databaseURL,
		TemporalListen: s.cfg.temporalListen, UIListen: s.cfg.uiListen, Namespace: contract.Namespace,
		SearchAttributes: searchAttributes, Logger: s.cfg.logger,
	})
	if err != nil {
		return err
	}
	// From here on the data directory is ours.
	token, kept, err := config.AdminToken(s.cfg.dataDir, s.cfg.adminToken)
	if err != nil {
		return err
	}
	if s.token = token; kept {
		s.cfg.logger.Warn("another admin token was made at the first start and stays in force", "variable", config.EnvAdminToken, "file", config.TokenFile(s.cfg.dataDir))
	}
	if s.cfg.directURL == "" {
		s.cfg.directURL = s.embedded.DatabaseURL
	}
	if err := store.Migrate(ctx, s.cfg.directURL); err != nil {
		return err
	}
	s.backend, err = openBackend(ctx, backendConfig{
		databaseURL: s.embedded.DatabaseURL, directURL: s.cfg.directURL, keyFile: s.cfg.keyFile, mayMakeKey: true,
		keysKept: s.cfg.keysKept, connectMax: 10 * time.Second, logger: s.cfg.logger,
	})
	if err != nil {
		return err
	}
	if err := s.startServices(ctx); err != nil {
		return err
	}
	if err := config.WriteAddress(s.cfg.dataDir, s.http.url()); err != nil {
		return err
	}
	return nil
}

// startServices starts what is ours: the worker before the API, so that what
// is published finds somebody to deliver it.
func (s *stack) startServices(ctx context.Context) error {
	var err error
	s.temporal, err = client.DialContext(ctx, client.Options{
		HostPort: s.embedded.TemporalAddress, Namespace: s.embedded.Namespace, Logger: sdkLogger(s.cfg.logger),
		MetricsHandler: newTemporalMetrics(s.backend.registry),
		// It is in this process: what is small already would be packed and unpacked in vain.
		ConnectionOptions: client.ConnectionOptions{GrpcCompression: &client.GrpcCompressionNone{}},
	})
	if err != nil {
		return fmt.Errorf("connect to Temporal: %w", err)
	}
	s.driver, err = startDriver(ctx, driverConfig{
		backend: s.backend, temporal: s.temporal, namespace: s.embedded.Namespace, searchAttributes: true,
		allowHTTPEndpoints: s.cfg.allowHTTPEndpoints, allowLoopback: true, logger: s.cfg.logger,
		tracer: s.cfg.tracing.Tracer(), attempts: s.cfg.attempts, linger: s.cfg.linger,
	})
	if err != nil {
		return err
	}
	s.api, err = api.New(api.Config{ //nolint:contextcheck // it lives until Close, not until a start is over
		Store: s.backend.store, Log: s.backend.log, Waker: api.TemporalWaker{Client: s.temporal}, AdminToken: s.token, Version: version(),
		AllowHTTPEndpoints: s.cfg.allowHTTPEndpoints, AllowLoopback: true, TemporalUIURL: s.embedded.UIURL, TemporalNamespace: s.embedded.Namespace,
		Registry: s.backend.registry, Logger: s.cfg.logger, Tracer: s.cfg.tracing.Tracer(),
		Ready: map[string]func(context.Context) error{
			"database": s.backend.ready, "temporal": temporalReady(s.temporal), "worker": s.driver.ready,
		},
	})
	if err != nil {
		return err
	}
	s.http.serve(s.api.Handler(), s.cfg.logger)
	s.metrics.serve(metricsMux(s.api.MetricsHandler()), s.cfg.logger)
	s.profile.serve(profileMux(), s.cfg.logger)
	s.collectFailures()
	return nil
}

// failures yields what makes going on senseless.
func (s *stack) failures() <-chan error { return s.failed }

// wait returns when ctx ends, or with an error that makes going on senseless.
func (s *stack) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// collectFailures lets one channel tell of all of them.
func (s *stack) collectFailures() {
	for _, source := range []<-chan error{s.http.failed, s.metrics.failed, s.profile.failed, s.driver.worker.Fatal()} {
		go func() {
			select {
			case err := <-source:
				select {
				case s.failed <- fmt.Errorf("run: %w", err):
				default:
				}
			case <-s.stopped:
			}
		}()
	}
}

// stop stops in order: long polls and the gate of deliveries at once, then what
// is in flight, then what it ran on. When ctx ends, what is left is stopped the
// quick way; what was settled stays so.
func (s *stack) stop(ctx context.Context) {
	logger := s.cfg.logger
	close(s.stopped)
	if s.embedded != nil {
		if err := config.RemoveAddress(s.cfg.dataDir); err != nil {
			logger.Warn("address not taken back", "error", err)
		}
	}
	if s.api != nil {
		s.api.Drain()
	}
	clean := true
	var stopping sync.WaitGroup
	stopping.Go(func() {
		requests, cancel := context.WithTimeout(ctx, requestsMax)
		defer cancel()
		for _, server := range []*httpServer{s.http, s.metrics, s.profile} {
			if server != nil {
				server.stop(requests)
			}
		}
	})
	if s.driver != nil {
		workers, cancel := context.WithTimeout(ctx, workersMax)
		clean = s.driver.stop(workers)
		cancel()
	}
	stopping.Wait()
	if s.api != nil {
		s.api.Close()
	}
	if s.temporal != nil {
		s.temporal.Close()
	}
	if s.backend != nil && clean {
		s.backend.close()
	}
	if s.embedded != nil {
		if err := s.embedded.Stop(ctx); err != nil {
			logger.Error("stack not stopped in order", "error", err)
		}
	}
	if !clean {
		logger.Warn("deliveries did not stop in time; what was in flight may be sent again")
	}
}

// temporalReady asks whether Temporal serves.
func temporalReady(c client.Client) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := c.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
			return fmt.Errorf("check Temporal: %w", err)
		}
		return nil
	}
}

// sdkLogger hands the SDK's lines on. They speak of its own workings: what they
// call information is for whoever debugs.
func sdkLogger(logger *slog.Logger) sdklog.Logger {
	return sdklog.NewStructuredLogger(slog.New(quietHandler{logger.Handler()}))
}

// quietHandler lowers information to debugging.
type quietHandler struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, quiet(level))
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = quiet(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}

func quiet(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

// healthMux answers for a process that serves no API.
func healthMux(ready map[string]func(context.Context) error, logger *slog.Logger) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, `{"status":"ok"}`)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		var failed []error
		for name, check := range ready {
			if err := check(ctx); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", name, err))
			}
		}
		if err := errors.Join(failed...); err != nil {
			logger.Warn("readiness check failed", "error", err)
			writeHealth(w, http.StatusServiceUnavailable, `{"status":"not ready"}`)
			return
		}
		writeHealth(w, http.StatusOK, `{"status":"ready"}`)
	})
	return mux
}

func writeHealth(w http.ResponseWriter, status int, document string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, document)
}
