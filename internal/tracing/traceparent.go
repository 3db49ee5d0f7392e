package tracing

import (
	"go.opentelemetry.io/otel/trace"
)

// The parts of a traceparent of version 00 (W3C Trace Context, 3.2).
const (
	traceparentLen = len("00-") + 32 + len("-") + 16 + len("-01")
	traceIDAt      = len("00-")
	spanIDAt       = traceIDAt + 32 + len("-")
	flagsAt        = spanIDAt + 16 + len("-")
)

// Parse reads a traceparent of version 00. The tracestate that may come with it
// is not kept.
func Parse(s string) (trace.SpanContext, bool) {
	if len(s) != traceparentLen || s[:traceIDAt] != "00-" || s[spanIDAt-1] != '-' || s[flagsAt-1] != '-' {
		return trace.SpanContext{}, false
	}
	traceID, err := trace.TraceIDFromHex(s[traceIDAt : spanIDAt-1])
	if err != nil {
		return trace.SpanContext{}, false
	}
	spanID, err := trace.SpanIDFromHex(s[spanIDAt : flagsAt-1])
	if err != nil {
		return trace.SpanContext{}, false
	}
	high, low := unhex(s[flagsAt]), unhex(s[flagsAt+1])
	if high > 0xf || low > 0xf {
		return trace.SpanContext{}, false
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(high<<4 | low), Remote: true,
	}), true
}

// unhex returns the value of a lower-case digit, above 15 for anything else.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// Sampled returns a traceparent if it is a valid one that says that its trace is
// recorded, else nothing.
func Sampled(s string) string {
	if sc, ok := Parse(s); ok && sc.IsSampled() {
		return Traceparent(sc)
	}
	return ""
}

// Traceparent writes a span's context as a traceparent; empty: it is in no trace.
func Traceparent(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	if sc.IsSampled() {
		return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-01"
	}
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-00"
}

// TraceID is the trace of a traceparent, for log lines; empty: it names none.
func TraceID(traceparent string) string {
	if len(traceparent) != traceparentLen {
		return ""
	}
	return traceparent[traceIDAt : spanIDAt-1]
}
