package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"postroad/api/odata"
	"postroad/contract"
	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// PublishingLog is what publishing needs of an *eventlog.Log, with its errors.
type PublishingLog interface {
	Feed(ctx context.Context, name string) (eventlog.Feed, error)
	Append(ctx context.Context, feed eventlog.Feed, events []event.Event) (eventlog.Result, error)
}

// Config is what a Server works with. The zero value of each optional field
// means its default.
type Config struct {
	// Store and Log are the database. Required.
	Store *store.Store
	Log   *eventlog.Log
	// Publishing is the part of the log that takes events. Default: Log.
	Publishing PublishingLog
	// Client makes test requests and knows which endpoints may be called.
	// Default: one of the API's own, made from AllowHTTPEndpoints,
	// AllowLoopback, AllowedPrefixes and Version.
	Client *delivery.Client
	// AllowLoopback admits endpoints on this host, and AllowedPrefixes those on
	// the operator's own networks. Default: neither.
	AllowLoopback   bool
	AllowedPrefixes []netip.Prefix
	// Waker tells Temporal of subscribers that have something to do. nil: nobody
	// is told, and the sweep finds them.
	Waker Waker
	// AdminToken is the bearer token that needs no row: with it the others are
	// made. Required.
	AdminToken string
	// TokenFresh is how long what was read of a token is used as it is. A token
	// that was revoked is refused after twice this at most, and a long poll or an
	// upload under way after three times this. Default 1.5 s.
	TokenFresh time.Duration
	// AccessTokenLasts is how long what POST /oauth/token gives out is valid, if
	// the token behind it is. Default 1 h.
	AccessTokenLasts time.Duration
	// TokenUsePeriod is how often it is written which tokens were used. Default
	// 1 minute.
	TokenUsePeriod time.Duration
	// Version is Postroad's own, shown in the API's description. Default "dev".
	Version string
	// AllowHTTPEndpoints admits endpoints without TLS. Default false.
	AllowHTTPEndpoints bool
	// TemporalUIURL is where the Temporal UI is, and TemporalNamespace what is
	// looked at there (default contract.Namespace); without the former, status
	// shows no link.
	TemporalUIURL     string
	TemporalNamespace string
	// Ready are the checks behind /readyz, by name; each must end with its
	// context.
	Ready map[string]func(context.Context) error
	// Registry takes the API's metrics and is what MetricsHandler serves.
	// Default: a new one.
	Registry *prometheus.Registry
	// ForceWait bounds the wait for a control to be in force before the answer
	// is 202. Default 5 s.
	ForceWait time.Duration
	// DatabaseMax bounds a request's work in the database, other than
	// publishing and long polls. Default 5 s.
	DatabaseMax time.Duration
	// EntityQueryMax bounds a query of an OData client, which waits for its turn for
	// what is left of DatabaseMax. Default 4/5 of that.
	EntityQueryMax time.Duration
	// UploadBytes bounds the published bodies held in memory at once. Default
	// 256 MiB.
	UploadBytes int64
	// BodyIdle ends a request whose body brings nothing for so long. Default
	// 30 s.
	BodyIdle time.Duration
	// StreamsMax bounds the streams that are open at once. Default 10,000.
	StreamsMax int
	// StreamWriteMax is how long a stream's reader may take for one piece of up to
	// 64 KiB, or one message; one that takes longer is ended. Default 30 s.
	StreamWriteMax time.Duration
	// StreamHeartbeat is after how long without an event a stream shows that it
	// lives. Default 15 s.
	StreamHeartbeat time.Duration
	// StreamCheck is how often the feeds and subscribers of open streams are looked
	// at. Default 2 s.
	StreamCheck time.Duration
	// Tracer makes the spans of publications whose trace is recorded. nil: none;
	// the publisher's own trace context is passed on to the consumer.
	Tracer trace.Tracer
	// Logger takes what the server has to say. Default slog.Default().
	Logger *slog.Logger
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	setDefault(&c.Version, "dev")
	setDefault(&c.TemporalNamespace, contract.Namespace)
	setDefault(&c.TokenFresh, 1500*time.Millisecond)
	setDefault(&c.AccessTokenLasts, time.Hour)
	setDefault(&c.TokenUsePeriod, time.Minute)
	setDefault(&c.ForceWait, 5*time.Second)
	setDefault(&c.DatabaseMax, 5*time.Second)
	setDefault(&c.EntityQueryMax, c.DatabaseMax*4/5)
	setDefault(&c.UploadBytes, uploadBytesDefault)
	setDefault(&c.BodyIdle, 30*time.Second)
	setDefault(&c.StreamsMax, 10_000)
	setDefault(&c.StreamWriteMax, 30*time.Second)
	setDefault(&c.StreamHeartbeat, 15*time.Second)
	setDefault(&c.StreamCheck, 2*time.Second)
	if c.Publishing == nil && c.Log != nil {
		c.Publishing = c.Log
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	switch {
	case c.Store == nil:
		return errors.New("field Store is required")
	case c.Log == nil:
		return errors.New("field Log is required")
	case c.AdminToken == "":
		return errors.New("field AdminToken is required")
	case c.UploadBytes < publishBytesMax:
		return fmt.Errorf("field UploadBytes must be at least %d", publishBytesMax)
	}
	return nil
}

// Server is the HTTP API. It is safe for concurrent use.
type Server struct {
	config      Config
	engine      *gin.Engine
	metrics     *metrics
	tokenDigest [sha256.Size]byte // of the token that needs no row
	tokens      *tokenCache
	feeds       feedCache
	uploads     *semaphore.Weighted
	decoders    sync.Pool
	wakes       *wakeQueue
	starts      *rate.Limiter // of workflows of new subscribers, before there is an event
	document    *document
	client      *delivery.Client
	polling     atomic.Int64 // long polls that wait
	pulls       pullWatch
	// pages are the tokens of OData's next links.
	pages         func() (*odata.Tokens, error)
	entityQueries *semaphore.Weighted
	streams       *streams

	// draining ends when the server drains: long polls and streams end with it.
	draining context.Context //nolint:containedctx // it is a signal, not a call's context
	drain    context.CancelFunc
}

// New makes a server. Close it when no request is under way any more.
func New(config Config) (*Server, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure API: %w", err)
	}
	document, err := loadDocument(config.Version)
	if err != nil {
		return nil, fmt.Errorf("read API description: %w", err)
	}
	accessKey, err := config.Store.DeriveKey(accessTokenPurpose)
	if err != nil {
		return nil, fmt.Errorf("make access tokens: %w", err)
	}
	s := &Server{
		config: config, document: document,
		tokenDigest:   sha256.Sum256([]byte(config.AdminToken)),
		uploads:       semaphore.NewWeighted(config.UploadBytes),
		entityQueries: semaphore.NewWeighted(entityQueriesMax),
		decoders:      sync.Pool{New: func() any { return new(eventDecoder) }},
	}
	s.pages = sync.OnceValues(func() (*odata.Tokens, error) {
		key, err := config.Store.DeriveKey(odataTokens)
		return odata.NewTokens(key), err
	})
	if s.metrics, err = newMetrics(config.Registry, s.polling.Load); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if s.client = config.Client; s.client == nil {
		s.client = delivery.NewClient(delivery.Config{
			Version: config.Version,
			Guard: delivery.GuardConfig{
				AllowHTTP: config.AllowHTTPEndpoints, AllowLoopback: config.AllowLoopback, AllowedPrefixes: config.AllowedPrefixes,
			},
		})
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	if s.engine, err = s.routes(); err != nil {
		return nil, fmt.Errorf("make routes: %w", err)
	}
	s.wakes = newWakeQueue(config.Waker, config.Logger)
	s.starts = rate.NewLimiter(startsPerSecond, startsBurst)
	access := accessTokens{key: accessKey, lasts: config.AccessTokenLasts}
	s.tokens = newTokenCache(config.Store, access, config.TokenFresh, config.TokenUsePeriod, config.Logger)
	s.streams = newStreams(s)
	return s, nil
}

// Handler serves the API.
func (s *Server) Handler() http.Handler { return s.engine }

// Drain ends long polls and streams at once and makes the server not ready; other requests
// are served as before, and their connections closed after it. Call it before http.Server.Shutdown.
func (s *Server) Drain() { s.drain() }

// Close waits for streams to end and stops what runs in the background. It does not wait for Temporal.
func (s *Server) Close() {
	s.drain()
	s.streams.close()
	s.wakes.close()
	s.tokens.close()
	if s.config.Client == nil {
		s.client.Close()
	}
}

// NewHTTPServer returns a server for handler with the API's timeouts. Bodies
// and answers have deadlines of their own, set by the handlers: an upload may
// take long as long as it goes on.
func NewHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}
