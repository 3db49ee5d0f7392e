package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts by what has few values: routes, never paths, feeds or ids.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	problems  *prometheus.CounterVec
	stored    prometheus.Counter
	repeated  prometheus.Counter

	streams      *prometheus.GaugeVec
	streamEvents prometheus.Counter
	streamsEnded *prometheus.CounterVec
}

func newMetrics(registry *prometheus.Registry, polling func() int64) (*metrics, error) {
	published := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postroad_published_events_total", Help: "Events answered with success, by result: stored or duplicate.",
	}, []string{"result"})
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroad_http_requests_total", Help: "Requests answered, by route, method and class of status.",
		}, []string{"route", "method", "class"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postroad_http_request_duration_seconds", Help: "Time from a request's header to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route", "method", "class"}),
		problems: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroad_http_problems_total", Help: "Problems answered, by code.",
		}, []string{"code"}),
		stored: published.WithLabelValues("stored"), repeated: published.WithLabelValues("duplicate"),
	}
	streams := m.addStreams()
	for _, code := range []Code{CodeBusy, CodeUnavailable, CodeOutcomeUnknown} {
		m.problems.WithLabelValues(string(code)) // so that a rate sees the first one
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postroad_http_long_polls", Help: "Long polls that wait for an event.",
	}, func() float64 { return float64(polling()) })
	var errs []error
	for _, collector := range append(streams, m.requests, m.durations, m.problems, published, waiting) {
		errs = append(errs, registry.Register(collector))
	}
	return m, errors.Join(errs...)
}

// addStreams makes the metrics of streams.
func (m *metrics) addStreams() []prometheus.Collector {
	m.streams = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "postroad_streams", Help: "Streams that are open, by format.",
	}, []string{"format"})
	m.streamEvents = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postroad_stream_events_total", Help: "Events sent over streams.",
	})
	m.streamsEnded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postroad_streams_ended_total", Help: "Streams that ended, by reason.",
	}, []string{"reason"})
	for _, format := range []string{formatSSE, formatNDJSON, formatWebSocket} {
		m.streams.WithLabelValues(format)
	}
	for _, reason := range []string{endDraining, endRevoked, endDeleted, endChanged, endBelowFloor, endError, endSlow, endGone} {
		m.streamsEnded.WithLabelValues(reason)
	}
	return []prometheus.Collector{m.streams, m.streamEvents, m.streamsEnded}
}

var statusClasses = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

func (m *metrics) observe(method, route string, status int, took time.Duration) {
	class := "other"
	if i := status/100 - 1; i >= 0 && i < len(statusClasses) {
		class = statusClasses[i]
	}
	if route == "unknown" {
		method = "any" // whatever the client made up
	}
	m.requests.WithLabelValues(route, method, class).Inc()
	m.durations.WithLabelValues(route, method, class).Observe(took.Seconds())
}

// MetricsHandler serves the registry for Prometheus. It belongs on a listener
// of its own: it asks for no token.
func (s *Server) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(s.config.Registry, promhttp.HandlerOpts{
		Registry: s.config.Registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
		ErrorLog: metricsLog{s},
	})
}

// metricsLog hands promhttp's complaints to the server's logger.
type metricsLog struct{ s *Server }

// Println implements promhttp.Logger.
func (l metricsLog) Println(v ...any) {
	texts := make([]string, 0, len(v))
	for _, part := range v {
		if err, ok := part.(error); ok {
			texts = append(texts, err.Error())
		} else if text, ok := part.(string); ok {
			texts = append(texts, strconv.Quote(text))
		}
	}
	l.s.config.Logger.Warn("serving metrics", "errors", texts)
}
