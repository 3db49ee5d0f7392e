package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
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
	})
	var err error
	d.worker, err = worker.New(worker.Config{
		Client: cfg.temporal, Namespace: cfg.namespace, AdoptCluster: cfg.adoptCluster, Log: cfg.backend.log, Store: cfg.backend.store,
		Activities: d.deliveries, DirectURL: cfg.backend.directURL, Slots: cfg.slots, Logger: cfg.logger,
	})
	if err != nil {
		return nil, err
	}
	d.deliveries.Start(ctx)
	if err := d.worker.Start(ctx); err != nil {
		d.deliveries.Close()
		return nil, err
	}
	registerWaker(cfg.backend.registry, d.worker.Waker().Counters())
	d.registerDeliveries(cfg.backend.registry)
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

// registerWaker shows the waker's counters as metrics.
func registerWaker(registry *prometheus.Registry, counters *worker.Counters) {
	gauge := func(name, help string, value *atomic.Int64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroad_waker_" + name, Help: help},
			func() float64 { return float64(value.Load()) }))
	}
	counter := func(name, help string, value *atomic.Int64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postroad_waker_" + name, Help: help},
			func() float64 { return float64(value.Load()) }))
	}
	gauge("active", "1 while this process's waker is the active one.", &counters.Active)
	gauge("parked", "Parked subscribers known at the last reload.", &counters.Parked)
	counter("match_attempts_total", "Parked subscribers tried with a new event: those that its index does not rule out.", &counters.MatchAttempts)
	counter("statements_total", "Queries about single parked subscribers or feeds.", &counters.Statements)
	counter("pages_total", "Reads of new events, each for all parked subscribers of a feed.", &counters.Pages)
	counter("sent_total", "Wakes sent for the first time.", &counters.Sent)
	counter("resent_total", "Wakes sent again.", &counters.Resent)
	counter("failed_total", "Wakes that could not be sent.", &counters.Failed)
	counter("moved_total", "Cursors of parked subscribers moved past what they do not match.", &counters.Moved)
	counter("swept_total", "Wakes for subscribers that nobody had looked at.", &counters.Swept)
}

// registerDeliveries shows what the deliveries count as metrics.
func (d *driver) registerDeliveries(registry *prometheus.Registry) {
	c := d.deliveries.Counters()
	for class, value := range map[string]*atomic.Int64{
		"success": &c.Succeeded, "gone": &c.Gone, "asked": &c.Asked,
		"endpoint": &c.EndpointFailed, "record": &c.RecordRefused, "canceled": &c.Canceled,
	} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "postroad_requests_total", Help: "Requests to consumers, by the class of the answer.",
			ConstLabels: prometheus.Labels{"class": class},
		}, func() float64 { return float64(value.Load()) }))
	}
	registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postroad_events_settled_total", Help: "Events that a subscriber's endpoint took."},
			func() float64 { return float64(c.Settled.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postroad_fenced_total", Help: "Runs that lost their lease to another."},
			func() float64 { return float64(c.Fenced.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroad_runs", Help: "Subscribers whose lease this process holds."},
			func() float64 { return float64(d.deliveries.Runs()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroad_attempts_queued", Help: "Attempts that are not written yet."},
			func() float64 { return float64(d.deliveries.QueuedAttempts()) }),
	)
}
