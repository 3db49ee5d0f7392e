package activities

import (
	"log/slog"

	"postroad/delivery"
	"postroad/internal/tracing"
	"postroad/store"
)

// What Config.LogAttempts may say.
const (
	LogAllAttempts    = "all"      // every attempt
	LogFailedAttempts = "failures" // those without a 2xx; the others when debugging
	LogNoAttempts     = "none"     // none
)

// logAttempt writes the one line of an attempt. It holds no path of a URL, no
// secret, and nothing of a body in either direction. There are no more lines
// than requests: failures come at the pace of the schedule.
func (r *run) logAttempt(a *store.Attempt, answer *delivery.Answer) {
	level := slog.LevelInfo
	switch {
	case r.a.cfg.LogAttempts == LogNoAttempts:
		return
	case r.a.cfg.LogAttempts != LogAllAttempts && answer.Class == delivery.ClassSuccess:
		level = slog.LevelDebug
	}
	if !r.log.Enabled(r.ctx, level) {
		return
	}
	r.log.LogAttrs(r.ctx, level, "attempt",
		slog.Int64("first_sequence", a.FirstSequence), slog.Int64("last_sequence", a.LastSequence), slog.Int("count", a.EventCount),
		slog.Int("attempt", a.Attempt), slog.String("class", a.Class), slog.Int("status", answer.Status),
		slog.Float64("duration_ms", float64(a.Duration.Microseconds())/1000), slog.Int("bytes", a.RequestBytes),
		slog.String("retry_after", a.RetryAfter), slog.String("error_class", string(answer.Fault.Code)), slog.String("error", a.Error),
		slog.String("trace_id", tracing.TraceID(answer.Traceparent)))
}
