// Package tracing makes OpenTelemetry spans and sends them by OTLP over HTTP. It
// is set up by OpenTelemetry's own variables; where they name no endpoint there
// is no tracer and nothing is made.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Variables of the OpenTelemetry specification that are read here. The exporter
// reads its headers, certificates and time-outs by itself.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envSampler        = "OTEL_TRACES_SAMPLER"
	envSamplerArg     = "OTEL_TRACES_SAMPLER_ARG"
	envServiceName    = "OTEL_SERVICE_NAME"
)

// scope names who makes the spans.
const scope = "postroad"

// Config says who is traced.
type Config struct {
	// Env holds the variables of the process.
	Env map[string]string
	// Service is the process's name, unless a variable has another; Version is
	// Postroad's.
	Service, Version string
	// Logger is told what cannot be sent.
	Logger *slog.Logger
}

// Tracing is what makes and sends the spans of a process. Its zero value makes
// none.
type Tracing struct{ provider *sdktrace.TracerProvider }

// Open sets tracing up. It does not wait for the collector; what cannot be sent
// is dropped, so that nothing ever waits for it.
func Open(ctx context.Context, cfg Config) (Tracing, error) {
	endpoint := endpointOf(cfg.Env)
	if endpoint == "" {
		return Tracing{}, nil
	}
	sampler, err := samplerOf(cfg.Env)
	if err != nil {
		return Tracing{}, err
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return Tracing{}, fmt.Errorf("make trace exporter: %w", err)
	}
	service := cfg.Env[envServiceName]
	if service == "" {
		service = cfg.Service
	}
	described, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", cfg.Version)))
	if err != nil {
		return Tracing{}, fmt.Errorf("describe process for traces: %w", err)
	}
	// The SDK has one place for its errors in a process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { cfg.Logger.Warn("traces not sent", "error", err) }))
	return Tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), sdktrace.WithSampler(sampler), sdktrace.WithResource(described),
	)}, nil
}

// Tracer makes spans; nil: there is nobody to send them to.
func (t Tracing) Tracer() trace.Tracer {
	if t.provider == nil {
		return nil
	}
	return t.provider.Tracer(scope)
}

// closeMax bounds the sending of the last spans.
const closeMax = 3 * time.Second

// Close sends what is left, within 3 s.
func (t Tracing) Close(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMax)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send last traces: %w", err)
	}
	return nil
}

// endpointOf returns where traces go to; empty: nowhere.
func endpointOf(env map[string]string) string {
	if strings.EqualFold(env[envDisabled], "true") || env[envExporter] != "" && env[envExporter] != "otlp" {
		return ""
	}
	if endpoint := env[envTracesEndpoint]; endpoint != "" {
		return endpoint
	}
	if endpoint := env[envEndpoint]; endpoint != "" {
		return strings.TrimSuffix(endpoint, "/") + "/v1/traces"
	}
	return ""
}

// samplerOf reads the sampler. The default records what arrives in a sampled
// trace and begins none: at thousands of events a second nobody wants all.
func samplerOf(env map[string]string) (sdktrace.Sampler, error) {
	name := env[envSampler]
	part := 1.0
	if text := env[envSamplerArg]; text != "" && strings.HasSuffix(name, "traceidratio") {
		var err error
		if part, err = strconv.ParseFloat(text, 64); err != nil || part < 0 || part > 1 {
			return nil, fmt.Errorf("%s must be a number from 0 to 1, not %q", envSamplerArg, text)
		}
	}
	switch name {
	case "", "parentbased_always_off":
		return linked{sdktrace.ParentBased(sdktrace.NeverSample())}, nil
	case "parentbased_always_on":
		return linked{sdktrace.ParentBased(sdktrace.AlwaysSample())}, nil
	case "parentbased_traceidratio":
		return linked{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(part))}, nil
	case "always_on":
		return sdktrace.AlwaysSample(), nil
	case "always_off":
		return sdktrace.NeverSample(), nil
	case "traceidratio":
		return sdktrace.TraceIDRatioBased(part), nil
	}
	return nil, fmt.Errorf("%s: %q is no sampler of the OpenTelemetry specification that is supported here", envSampler, name)
}

// linked goes by the parent, and where there is none but links by those: the
// request that carries events of several traces begins a trace of its own.
type linked struct{ sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (s linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, link := range p.Links {
		if link.SpanContext.IsSampled() {
			return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
		}
	}
	return s.Sampler.ShouldSample(p)
}
