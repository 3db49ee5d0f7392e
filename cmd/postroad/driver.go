package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/trace"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"postroad/contract"
	"postroad/worker"
)

// driverConfig says how deliveries are driven.
type driverConfig struct {
	backend            *backend
	temporal           client.Client
	namespace          string
	adoptCluster       bool
	searchAttributes   bool
	slots              int
	allowHTTPEndpoints bool
	allowLoopback      bool
	allowedPrefixes    []netip.Prefix
	tracer             trace.Tracer // nil: nothing is traced
	attempts           attemptFlags
	linger             time.Duration // 0: the default
	logger             *slog.Logger
}

// driver is the worker with its activities.
type driver struct {
	worker     *worker.Worker
	deliveries *worker.Deliveries
	temporal   client.Client
}

func startDriver(ctx context.Context, cfg driverConfig) (*driver, error) {
	d := &driver{temporal: cfg.temporal}
	d.deliveries = worker.NewDeliveries(worker.DeliveriesConfig{
		Log: cfg.backend.log, Store: cfg.backend.store, DirectURL: cfg.backend.directURL,
		SearchAttributes: cfg.searchAttributes, Slots: cfg.slots, AllowHTTPEndpoints: cfg.allowHTTPEndpoints,
		AllowLoopback: cfg.allowLoopback, AllowedPrefixes: cfg.allowedPrefixes, Version: version(), Logger: cfg.logger,
		Tracer: cfg.tracer, LogAttempts: cfg.attempts.log, Linger: cfg.linger,
	})
	var err error
	d.worker, err = worker.New(worker.Config{
		Client: cfg.temporal, Namespace: cfg.namespace, AdoptCluster: cfg.adoptCluster, Log: cfg.backend.log, Store: cfg.backend.store,
		Activities: d.deliveries, DirectURL: cfg.backend.directURL, Slots: cfg.slots, Logger: cfg.logger,
		Waker: worker.WakerConfig{
			AttemptsDays: cfg.attempts.days,
			Sources:      worker.SourcesConfig{HTTP: d.deliveries.Outbound(), UserAgent: "Postroad/" + version()},
		},
	})
	if err != nil {
		return nil, err
	}
	d.deliveries.Start(ctx)
	if err := d.worker.Start(ctx); err != nil {
		d.deliveries.Close()
		return nil, err
	}
	registerWaker(cfg.backend.registry, d.worker.Waker())
	registerDeliveries(cfg.backend.registry, d.deliveries)
	return d, nil
}

// stop closes the gate, lets what is in flight end and writes what is left; it
// reports whether all that was done before ctx ended.
func (d *driver) stop(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.worker.Stop()
		d.deliveries.Close()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// ready asks Temporal whether anybody polls the queue of deliveries.
func (d *driver) ready(ctx context.Context) error {
	queue, err := d.temporal.DescribeTaskQueue(ctx, contract.TaskQueue, enumspb.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return fmt.Errorf("ask for pollers: %w", err)
	}
	if len(queue.GetPollers()) == 0 {
		return errors.New("nobody polls the task queue " + contract.TaskQueue)
	}
	return nil
}
