package worker

import (
	"log/slog"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/trace"

	"postroad/activities"
	"postroad/eventlog"
	"postroad/store"
)

// DeliveriesConfig says how a worker's activities reach the database and
// consumers.
type DeliveriesConfig struct {
	Log   *eventlog.Log
	Store *store.Store
	// DirectURL is a connection to PostgreSQL past any pooler.
	DirectURL string
	// SearchAttributes reports that the Temporal namespace has ours.
	SearchAttributes bool
	// Slots is how many Delivers run at once, as in Config. Default
	// SlotsDefault().
	Slots int
	// AllowHTTPEndpoints admits endpoints without TLS, AllowLoopback those on
	// this host, AllowedPrefixes those on the operator's own networks.
	AllowHTTPEndpoints bool
	AllowLoopback      bool
	AllowedPrefixes    []netip.Prefix
	// Tracer makes the spans of requests whose events are in a recorded trace;
	// nil: none.
	Tracer trace.Tracer
	// LogAttempts is one of LogAttempts: which attempts have a line in the log.
	// Default failures.
	LogAttempts string
	// Linger is how long a run that has nothing to send stays before it parks.
	// Default 30 s.
	Linger time.Duration
	// Version is sent to consumers in User-Agent.
	Version string
	Logger  *slog.Logger
}

// LogAttempts is what DeliveriesConfig.LogAttempts may be: every attempt, those
// that failed, or none.
var LogAttempts = []string{activities.LogAllAttempts, activities.LogFailedAttempts, activities.LogNoAttempts}

// Deliveries are the activities of a worker, for whoever starts, closes and
// watches them.
type Deliveries = activities.Activities

// NewDeliveries makes the activities for Config.Activities. The caller starts
// them before the worker and closes them after it.
func NewDeliveries(config DeliveriesConfig) *Deliveries {
	if config.Slots == 0 {
		config.Slots = SlotsDefault()
	}
	return activities.New(activities.Config{
		Log: config.Log, Store: config.Store, ListenURL: config.DirectURL,
		SearchAttributes: config.SearchAttributes, Slots: config.Slots, Logger: config.Logger, Tracer: config.Tracer, LogAttempts: config.LogAttempts,
		Linger: config.Linger,
		Client: activities.NewClient(activities.ClientConfig{
			AllowHTTPEndpoints: config.AllowHTTPEndpoints, AllowLoopback: config.AllowLoopback,
			AllowedPrefixes: config.AllowedPrefixes, Version: config.Version,
		}),
	})
}
