package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"postroad/api"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/config"
	"postroad/store"
)

// serverFlags are what api and worker have in common.
type serverFlags struct {
	databaseURL, directURL string
	keyFile                string
	listen, metricsListen  string
	allowHTTPEndpoints     bool
	allowLoopback          bool
	allowedNetworks        []string
	log                    logFlags
}

// serverEnv names the flags that variables may stand for.
const serverEnv = "database-url database-direct-url key-file listen metrics-listen allow-http-endpoints allow-loopback-endpoints " +
	"allow-networks log-level log-format"

const temporalHelp = `

Where Temporal is comes from its own settings: TEMPORAL_ADDRESS,
TEMPORAL_NAMESPACE (default postroad), TEMPORAL_API_KEY, TEMPORAL_TLS... or its
configuration file. Each flag may be given as an environment variable too:
--database-url as POSTROAD_DATABASE_URL.`

func (f *serverFlags) add(flags *pflag.FlagSet, listen, metricsListen string) {
	flags.StringVar(&f.databaseURL, "database-url", "", "PostgreSQL, as a `URL`; may lead through a connection pooler")
	flags.StringVar(&f.directURL, "database-direct-url", "", "the same past the pooler, as a `URL` (default: --database-url)")
	flags.StringVar(&f.keyFile, "key-file", "", "the master key's `file`, the same for every process")
	flags.StringVar(&f.listen, "listen", listen, "`address` to serve on")
	flags.StringVar(&f.metricsListen, "metrics-listen", metricsListen, "`address` for /metrics; none if empty")
	flags.BoolVar(&f.allowHTTPEndpoints, "allow-http-endpoints", false, "allow endpoints without TLS")
	flags.BoolVar(&f.allowLoopback, "allow-loopback-endpoints", false, "allow endpoints on this machine")
	flags.StringSliceVar(&f.allowedNetworks, "allow-networks", nil, "allow endpoints in these private networks, as in `10.1.0.0/16`")
}

func (f *serverFlags) networks() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range f.allowedNetworks {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usagef("--allow-networks: %q is no network: write it as 10.1.0.0/16", text)
		}
		all = append(all, prefix)
	}
	return all, nil
}

func (f *serverFlags) validate() error {
	switch {
	case f.databaseURL == "":
		return usagef("--database-url is required (or %s)", config.FlagVariable("database-url"))
	case f.keyFile == "":
		return usagef("--key-file is required (or %s)", config.FlagVariable("key-file"))
	}
	return nil
}

func (f *serverFlags) settings(options client.Options) []slog.Attr {
	direct := f.directURL
	if direct == "" {
		direct = f.databaseURL
	}
	return []slog.Attr{
		slog.String("database", config.DatabaseURL(f.databaseURL)), slog.String("database_direct", config.DatabaseURL(direct)),
		slog.String("key_file", f.keyFile), slog.String("listen", f.listen), slog.String("metrics_listen", f.metricsListen),
		slog.Bool("allow_http_endpoints", f.allowHTTPEndpoints), slog.Bool("allow_loopback_endpoints", f.allowLoopback),
		slog.Any("allow_networks", f.allowedNetworks), slog.String("temporal_address", options.HostPort),
		slog.String("temporal_namespace", options.Namespace),
	}
}

// keyFlags say how long an idempotency key counts.
type keyFlags struct{ kept string }

func (k *keyFlags) add(command *cobra.Command) {
	command.Flags().StringVar(&k.kept, "idempotency-keep", "7d", "how long an idempotency key counts, as a `time`")
}

func (k *keyFlags) duration() (time.Duration, error) {
	kept, err := event.ParseDuration(k.kept)
	if err != nil || kept <= 0 {
		return 0, usagef("--idempotency-keep %s: want a time such as 12h or 7d", k.kept)
	}
	return kept.Std(), nil
}

// databaseMax is how long a server waits for a database that does not answer.
const databaseMax = time.Minute

// open opens the database; keysKept is the API's affair.
func (f *serverFlags) open(ctx context.Context, mayMakeKey bool, keysKept time.Duration, logger *slog.Logger) (*backend, error) {
	return openBackend(ctx, backendConfig{
		databaseURL: f.databaseURL, directURL: f.directURL, keyFile: f.keyFile, mayMakeKey: mayMakeKey, keysKept: keysKept,
		connectMax: databaseMax, logger: logger,
	})
}

// envLookup hands Temporal's configuration our environment.
type envLookup struct{ env config.Env }

// Environ implements envconfig.EnvLookup.
func (e envLookup) Environ() []string { return e.env.Environ() }

// LookupEnv implements envconfig.EnvLookup.
func (e envLookup) LookupEnv(name string) (string, bool) {
	value, ok := e.env[name]
	return value, ok
}

func (p *program) temporalOptions(logger *slog.Logger) (client.Options, error) {
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{EnvLookup: envLookup{p.env}})
	if err != nil {
		return client.Options{}, fmt.Errorf("read Temporal's settings: %w", err)
	}
	if options.Namespace == "" || options.Namespace == client.DefaultNamespace && p.env["TEMPORAL_NAMESPACE"] == "" {
		options.Namespace = contract.Namespace
	}
	if options.HostPort == "" {
		options.HostPort = client.DefaultHostPort
	}
	options.Logger = sdkLogger(logger)
	return options, nil
}

func (p *program) apiCommand() *cobra.Command {
	f := &serverFlags{}
	var uiURL, tokenFile string
	var keys keyFlags
	var drain drainFlag
	command := &cobra.Command{
		Use:         "api",
		Short:       "Run the HTTP API against a PostgreSQL and a Temporal of your own",
		Long:        "Run the HTTP API. It needs PostgreSQL; without Temporal it goes on taking events." + temporalHelp,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{envFlags: serverEnv + " temporal-ui-url admin-token-file idempotency-keep drain-delay"},
		RunE:        p.action(func(ctx context.Context, _ []string) error { return p.api(ctx, f, keys, drain, uiURL, tokenFile) }),
	}
	f.add(command.Flags(), "127.0.0.1:8080", "127.0.0.1:9464")
	command.Flags().StringVar(&uiURL, "temporal-ui-url", "", "where Temporal's UI is, for links in the status")
	command.Flags().StringVar(&tokenFile, "admin-token-file", "", "`file` with the admin token, where POSTROAD_ADMIN_TOKEN is not set")
	keys.add(command)
	drain.add(command)
	f.log.add(command)
	return command
}

func (p *program) api(ctx context.Context, f *serverFlags, keys keyFlags, drain drainFlag, uiURL, tokenFile string) error {
	logger, err := f.log.logger(p.stderr)
	if err != nil {
		return err
	}
	networks, err := f.networks()
	if err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return err
	}
	if err := drain.validate(); err != nil {
		return err
	}
	keysKept, err := keys.duration()
	if err != nil {
		return err
	}
	token, err := config.ReadAdminToken(p.env[config.EnvAdminToken], tokenFile)
	if err != nil {
		return usageError{err}
	}
	options, err := p.temporalOptions(logger)
	if err != nil {
		return err
	}
	logConfiguration(ctx, logger, append(f.settings(options), slog.Any("admin_token", config.Secret(token)), slog.String("temporal_ui_url", uiURL),
		slog.Duration("idempotency_keep", keysKept), slog.Duration("drain_delay", drain.delay))...)
	servers, err := listenBoth(ctx, "the API", f)
	if err != nil {
		return err
	}
	defer servers.close(ctx)
	b, err := f.open(ctx, true, keysKept, logger)
	if err != nil {
		return err
	}
	defer b.close()
	traces, err := p.openTracing(ctx, "postroad-api", logger)
	if err != nil {
		return err
	}
	defer closeTracing(ctx, traces, logger)
	options.MetricsHandler = newTemporalMetrics(b.registry)
	go giveBackMemory(ctx)
	// Lazy: a Temporal that is away must not keep the API from starting.
	temporal, err := client.NewLazyClient(options)
	if err != nil {
		return fmt.Errorf("make Temporal client: %w", err)
	}
	defer temporal.Close()
	server, err := api.New(api.Config{ //nolint:contextcheck // it lives until Close, not until a start is over
		Store: b.store, Log: b.log, Waker: api.TemporalWaker{Client: temporal}, AdminToken: token, Version: version(),
		AllowHTTPEndpoints: f.allowHTTPEndpoints, AllowLoopback: f.allowLoopback, AllowedPrefixes: networks,
		TemporalUIURL: uiURL, TemporalNamespace: options.Namespace, Registry: b.registry, Logger: logger, Tracer: traces.Tracer(),
		Ready: map[string]func(context.Context) error{"database": b.ready},
	})
	if err != nil {
		return err
	}
	defer server.Close()
	servers.main.serve(server.Handler(), logger)
	servers.metrics.serve(metricsMux(server.MetricsHandler()), logger)
	logger.Info("the API is running", "url", servers.main.url())
	failed := servers.wait(ctx, nil)
	return errors.Join(failed, stopWithin(ctx, p.force, stopMax, func(ctx context.Context) {
		server.Drain()
		drain.wait(ctx)
		servers.stop(ctx)
	}))
}

func (p *program) workerCommand() *cobra.Command {
	f := &serverFlags{}
	var slots int
	var adopt bool
	var attempts attemptFlags
	command := &cobra.Command{
		Use:   "worker",
		Short: "Run a worker against a PostgreSQL and a Temporal of your own",
		Long: "Run a worker: it delivers. Several may run; each subscriber is delivered to by one of them.\n" +
			"It serves /healthz and /readyz." + temporalHelp,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{envFlags: serverEnv + " slots log-attempts attempts-keep"},
		RunE:        p.action(func(ctx context.Context, _ []string) error { return p.worker(ctx, f, attempts, slots, adopt) }),
	}
	f.add(command.Flags(), "127.0.0.1:8081", "127.0.0.1:9465")
	command.Flags().IntVar(&slots, "slots", 0, "the most `subscribers` delivered to at once (default: what memory allows, up to 20,000)")
	attempts.add(command)
	command.Flags().BoolVar(&adopt, "adopt-cluster", false, "let this Temporal cluster and namespace drive the database, whichever did before")
	f.log.add(command)
	return command
}

func (p *program) worker(ctx context.Context, f *serverFlags, attempts attemptFlags, slots int, adopt bool) error {
	logger, err := f.log.logger(p.stderr)
	if err != nil {
		return err
	}
	networks, err := f.networks()
	if err != nil {
		return err
	}
	if err := f.validate(); err != nil {
		return err
	}
	if err := attempts.validate(); err != nil {
		return err
	}
	options, err := p.temporalOptions(logger)
	if err != nil {
		return err
	}
	logConfiguration(ctx, logger, append(f.settings(options), slog.Int("slots", slots), slog.Bool("adopt_cluster", adopt), slog.String("log_attempts", attempts.log),
		slog.Int("attempts_keep_days", attempts.days))...)
	servers, err := listenBoth(ctx, "health checks", f)
	if err != nil {
		return err
	}
	defer servers.close(ctx)
	b, err := f.open(ctx, false, 0, logger)
	if err != nil {
		return err
	}
	traces, err := p.openTracing(ctx, "postroad-worker", logger)
	if err != nil {
		b.close()
		return err
	}
	defer closeTracing(ctx, traces, logger)
	options.MetricsHandler = newTemporalMetrics(b.registry)
	go giveBackMemory(ctx)
	temporal, err := dialTemporal(ctx, options, logger)
	if err != nil {
		b.close()
		return err
	}
	defer temporal.Close()
	d, err := startDriver(ctx, driverConfig{
		backend: b, temporal: temporal, namespace: options.Namespace, adoptCluster: adopt,
		searchAttributes: registerSearchAttributes(ctx, temporal, options.Namespace, logger), slots: slots,
		allowHTTPEndpoints: f.allowHTTPEndpoints, allowLoopback: f.allowLoopback, allowedPrefixes: networks, logger: logger,
		tracer: traces.Tracer(), attempts: attempts,
	})
	if err != nil {
		b.close()
		return err
	}
	ready := map[string]func(context.Context) error{"database": b.ready, "temporal": temporalReady(temporal), "pollers": d.ready}
	servers.main.serve(healthMux(ready, logger), logger)
	servers.metrics.serve(metricsMux(promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{Registry: b.registry})), logger)
	logger.Info("the worker is running", "health_url", servers.main.url())
	failed := servers.wait(ctx, d.worker.Fatal())
	return errors.Join(failed, stopWithin(ctx, p.force, stopMax, func(ctx context.Context) {
		workers, cancel := context.WithTimeout(ctx, workersMax)
		defer cancel()
		if d.stop(workers) {
			b.close()
		} else {
			logger.Warn("deliveries did not stop in time; what was in flight may be sent again")
		}
		servers.stop(ctx)
	}))
}

// serverPair is a process's two HTTP servers.
type serverPair struct{ main, metrics *httpServer }

func listenBoth(ctx context.Context, name string, f *serverFlags) (*serverPair, error) {
	main, err := listenHTTP(ctx, name, f.listen)
	if err != nil {
		return nil, err
	}
	metrics, err := listenHTTP(ctx, "metrics", f.metricsListen)
	if err != nil {
		main.stop(ctx)
		return nil, err
	}
	return &serverPair{main, metrics}, nil
}

func (s *serverPair) wait(ctx context.Context, fatal <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.main.failed:
		return err
	case err := <-s.metrics.failed:
		return err
	case err := <-fatal:
		return fmt.Errorf("run worker: %w", err)
	}
}

func (s *serverPair) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestsMax)
	defer cancel()
	s.main.stop(ctx)
	s.metrics.stop(ctx)
}

// close gives the addresses up where serving did not come to a proper end.
func (s *serverPair) close(ctx context.Context) {
	done, cancel := context.WithCancel(ctx)
	cancel()
	s.main.stop(done)
	s.metrics.stop(done)
}

// dialTemporal waits for Temporal as long as it takes: a worker that starts
// before it, or while it is away, is no fault.
func dialTemporal(ctx context.Context, options client.Options, logger *slog.Logger) (client.Client, error) {
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		c, err := client.DialContext(ctx, options)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to Temporal: %w", err)
		}
		logger.Warn("waiting for Temporal", "address", options.HostPort, "retry_in", pause, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("connect to Temporal: %w", err)
		}
	}
}

// registerSearchAttributes adds ours to the namespace where they are missing. A
// cluster that does not let us runs without them.
func registerSearchAttributes(ctx context.Context, c client.Client, namespace string, logger *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	there, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err == nil {
		missing := map[string]enums.IndexedValueType{}
		for name := range searchAttributes {
			if _, ok := there.GetCustomAttributes()[name]; !ok {
				missing[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
			}
		}
		if len(missing) == 0 {
			return true
		}
		_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	}
	if err != nil {
		logger.Warn("running without search attributes: they could not be registered", "error", err)
		return false
	}
	return true
}

func (p *program) migrateCommand() *cobra.Command {
	var databaseURL string
	command := &cobra.Command{
		Use:         "migrate",
		Short:       "Bring a database's schema to this version",
		Args:        cobra.NoArgs,
		Annotations: map[string]string{envFlags: "database-url"},
		RunE: p.action(func(ctx context.Context, _ []string) error {
			if databaseURL == "" {
				return usagef("--database-url is required (or %s)", config.FlagVariable("database-url"))
			}
			if err := migrate(ctx, databaseURL); err != nil {
				if store.Unavailable(err) {
					err = unavailableError{err}
				}
				return err
			}
			return p.done("the schema of "+config.DatabaseURL(databaseURL)+" is up to date", map[string]string{"database": config.DatabaseURL(databaseURL)})
		}),
	}
	command.Flags().StringVar(&databaseURL, "database-url", "", "PostgreSQL, as a `URL`, past any pooler")
	return command
}

// migrate migrates, one process at a time: the lock is a session's.
func migrate(ctx context.Context, databaseURL string) error {
	pooled, err := store.TransactionPooler(ctx, databaseURL)
	if err != nil {
		return err
	}
	if pooled {
		return usagef("--database-url: %w: give one past it", store.ErrTransactionPooler)
	}
	return store.Migrate(ctx, databaseURL)
}
