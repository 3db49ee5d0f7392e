package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

// temporalMetrics takes from all that Temporal's SDK measures how its calls of
// the server fare, by operation.
type temporalMetrics struct {
	client.MetricsHandler // does nothing
	requests, failures    *prometheus.CounterVec
	operation             string
}

// newTemporalMetrics returns the handler for the one client of a process.
func newTemporalMetrics(registry *prometheus.Registry) client.MetricsHandler {
	m := temporalMetrics{
		MetricsHandler: client.MetricsNopHandler,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroad_temporal_requests_total", Help: "Calls of Temporal but for long polls, by operation.",
		}, []string{"operation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroad_temporal_request_failures_total", Help: "Calls of Temporal, long polls among them, that failed, by operation.",
		}, []string{"operation"}),
	}
	registry.MustRegister(m.requests, m.failures)
	m.failures.WithLabelValues("SignalWithStartWorkflowExecution") // so that there is a series before the first failure
	return m
}

// WithTags implements client.MetricsHandler.
func (m temporalMetrics) WithTags(tags map[string]string) client.MetricsHandler {
	if operation := tags["operation"]; operation != "" {
		m.operation = operation
	}
	return m
}

// Counter implements client.MetricsHandler.
func (m temporalMetrics) Counter(name string) client.MetricsCounter {
	if m.operation == "" {
		return m.MetricsHandler.Counter(name)
	}
	switch name {
	case "temporal_request":
		return added{m.requests.WithLabelValues(m.operation)}
	case "temporal_request_failure", "temporal_long_request_failure":
		return added{m.failures.WithLabelValues(m.operation)}
	}
	return m.MetricsHandler.Counter(name)
}

// added is a counter of Prometheus as Temporal's SDK wants it.
type added struct{ to prometheus.Counter }

// Inc implements client.MetricsCounter.
func (c added) Inc(n int64) { c.to.Add(float64(n)) }
