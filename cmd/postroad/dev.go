package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"postroad/embedded"
	"postroad/internal/config"
)

// devFlags are the flags of a stack in one process.
type devFlags struct {
	stackConfig
	dataDir string
	log     logFlags
	keys    keyFlags
}

func (p *program) devCommand() *cobra.Command {
	f := &devFlags{}
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process: PostgreSQL, Temporal with its UI, API, worker",
		Long: `Run everything in one process: a private PostgreSQL, a Temporal server with its
UI, the API and a worker. What it stores lies in the data directory and is there
again at the next start.

Each flag may be given as an environment variable too: --data-dir as
POSTROAD_DATA_DIR. The admin token is POSTROAD_ADMIN_TOKEN where that is set at
the first start, else generated; it is kept in <data-dir>/admin-token.`,
		Args: cobra.NoArgs,
		Annotations: map[string]string{envFlags: "data-dir listen temporal-listen ui-listen metrics-listen database-url " +
			"database-direct-url key-file allow-http-endpoints log-level log-format log-attempts attempts-keep idempotency-keep"},
		RunE: p.action(func(ctx context.Context, _ []string) error { return p.dev(ctx, f) }),
	}
	flags := command.Flags()
	flags.StringVar(&f.dataDir, "data-dir", ".postroad", "the `directory` that holds everything")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`address` of the API; port 0 takes a free one, here and below")
	flags.StringVar(&f.temporalListen, "temporal-listen", embedded.DefaultTemporalListen, "`address` of Temporal's frontend")
	flags.StringVar(&f.uiListen, "ui-listen", embedded.DefaultUIListen, "`address` of Temporal's UI")
	flags.StringVar(&f.metricsListen, "metrics-listen", "", "`address` for /metrics; none if empty")
	flags.StringVar(&f.profileListen, "profile-listen", "", "`address` on loopback for Go's profiles; none if empty")
	flags.DurationVar(&f.linger, "linger", 0, "how `long` a subscriber with nothing to do stays before it parks (default 30s)")
	for _, name := range []string{"profile-listen", "linger"} {
		_ = flags.MarkHidden(name) // for the benchmark and for who works on Postroad
	}
	flags.StringVar(&f.databaseURL, "database-url", "", "a PostgreSQL of your own, as a `URL`, in place of the private one")
	flags.StringVar(&f.directURL, "database-direct-url", "", "the same past a connection pooler, as a `URL`")
	flags.StringVar(&f.keyFile, "key-file", "", "the master key's `file` (default <data-dir>/key)")
	flags.BoolVar(&f.allowHTTPEndpoints, "allow-http-endpoints", false, "deliver to http:// endpoints beyond this machine too")
	f.log.add(command)
	f.attempts.add(command)
	f.keys.add(command)
	return command
}

func (p *program) dev(ctx context.Context, f *devFlags) error {
	logger, err := f.log.logger(p.stderr)
	if err != nil {
		return err
	}
	if err := f.attempts.validate(); err != nil {
		return err
	}
	cfg := f.stackConfig
	if cfg.keysKept, err = f.keys.duration(); err != nil {
		return err
	}
	if cfg.dataDir, err = p.path(f.dataDir); err != nil {
		return err
	}
	if cfg.keyFile == "" {
		cfg.keyFile = config.KeyFile(cfg.dataDir)
	}
	cfg.adminToken, cfg.logger = p.env[config.EnvAdminToken], logger
	logConfiguration(ctx, logger, cfg.settings()...)
	if cfg.tracing, err = p.openTracing(ctx, "postroad", logger); err != nil {
		return err
	}
	defer closeTracing(ctx, cfg.tracing, logger)
	started := time.Now()
	s, err := startStack(ctx, cfg)
	if err != nil {
		if errors.Is(err, embedded.ErrSlim) {
			return fmt.Errorf("%w: `postroad dev` needs a build without the tag slim; this one runs `postroad api` and `postroad worker`", err)
		}
		return err
	}
	go giveBackMemory(ctx)
	p.printReady(s, f.dataDir, time.Since(started))
	failed := s.wait(ctx)
	p.tell("stopping: requests in flight are finished first")
	stopped := stopWithin(ctx, p.force, stopMax, s.stop)
	if stopped == nil {
		p.tell("stopped")
	}
	return errors.Join(failed, stopped)
}

func (p *program) printReady(s *stack, dataDir string, took time.Duration) {
	if p.json {
		_ = p.encode(map[string]any{
			"url": s.http.url(), "temporalAddress": s.embedded.TemporalAddress, "temporalUiUrl": s.embedded.UIURL,
			"metricsUrl": s.metrics.url(), "profileUrl": s.profile.url(), "dataDir": s.cfg.dataDir, "tokenFile": config.TokenFile(s.cfg.dataDir),
		})
		return
	}
	p.printf("Postroad %s is ready after %.1f s; Ctrl-C stops it\n", version(), took.Seconds())
	t := p.table()
	t.row("  API", s.http.url())
	t.row("  token", filepath.Join(dataDir, filepath.Base(config.TokenFile(s.cfg.dataDir))))
	t.row("  Temporal UI", s.embedded.UIURL)
	t.row("  Temporal", s.embedded.TemporalAddress+", namespace "+s.embedded.Namespace)
	if s.metrics.url() != "" {
		t.row("  metrics", s.metrics.url()+"/metrics")
	}
	_ = t.flush()
}

// settings are shown once at the start: secrets as set or unset, URLs without
// credentials.
func (c stackConfig) settings() []slog.Attr {
	database := "private, in the data directory"
	if c.databaseURL != "" {
		database = config.DatabaseURL(c.databaseURL)
	}
	return []slog.Attr{
		slog.String("data_dir", c.dataDir), slog.String("listen", c.listen), slog.String("temporal_listen", c.temporalListen),
		slog.String("ui_listen", c.uiListen), slog.String("metrics_listen", c.metricsListen), slog.String("database", database),
		slog.String("database_direct", config.DatabaseURL(c.directURL)), slog.String("key_file", c.keyFile),
		slog.Bool("allow_http_endpoints", c.allowHTTPEndpoints), slog.Any("admin_token", config.Secret(c.adminToken)),
	}
}

func logConfiguration(ctx context.Context, logger *slog.Logger, settings ...slog.Attr) {
	logger.LogAttrs(ctx, slog.LevelInfo, "configuration", append([]slog.Attr{slog.String("version", version())}, settings...)...)
}
