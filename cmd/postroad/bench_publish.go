package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"postroad/api"
	"postroad/bench"
	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/config"
	"postroad/store"
)

func (p *program) benchPublisherCommand() *cobra.Command {
	var load bench.Load
	command := &cobra.Command{
		Use:    "bench-publisher",
		Short:  "The publisher of the benchmark",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			load.Token = p.env[config.EnvToken]
			report, err := load.Run(ctx)
			if err != nil {
				return err
			}
			return json.NewEncoder(p.stdout).Encode(report)
		}),
	}
	flags := command.Flags()
	flags.StringVar(&load.URL, "url", "", "the server's `URL`")
	flags.StringVar(&load.Feed, "feed", "default", "`feed` to publish to")
	flags.IntVar(&load.Clients, "clients", 1, "how `many` publish at once")
	flags.IntVar(&load.Events, "events", 1000, "how `many` events they publish in all")
	flags.IntVar(&load.Array, "array", 1, "how `many` events make one request")
	return command
}

// benchRouteCommand is the floor of publishing: the API as it is, but for a log
// that stores nothing and answers at once.
func (p *program) benchRouteCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "bench-route",
		Short:  "The API without a database, for the benchmark",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: p.action(func(ctx context.Context, _ []string) error {
			return p.benchRoute(ctx)
		}),
	}
}

func (p *program) benchRoute(ctx context.Context) error {
	logger := slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	// A pool connects when it is first asked to, which nobody does here.
	pool, err := pgxpool.New(ctx, "postgres://127.0.0.1:1/none")
	if err != nil {
		return fmt.Errorf("make a pool: %w", err)
	}
	defer pool.Close()
	var key [store.KeyBytes]byte
	_, _ = rand.Read(key[:]) // it never fails
	sealer, err := store.NewSealer(key)
	if err != nil {
		return fmt.Errorf("make a master key: %w", err)
	}
	server, err := api.New(api.Config{ //nolint:contextcheck // it lives until Close
		Store: store.New(pool, sealer), Log: eventlog.New(pool, eventlog.Config{Logger: logger}), Publishing: &forgetfulLog{},
		AdminToken: p.env[config.EnvAdminToken], Logger: logger,
	})
	if err != nil {
		return err
	}
	defer server.Close()
	listener, err := listenHTTP(ctx, "the route", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, listener.url())
	stop := context.AfterFunc(ctx, func() { _ = listener.listener.Close() })
	defer stop()
	if err := api.NewHTTPServer(server.Handler()).Serve(listener.listener); ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// forgetfulLog numbers events and keeps none.
type forgetfulLog struct{ head atomic.Int64 }

// Feed implements api.PublishingLog: there is one by every name.
func (l *forgetfulLog) Feed(_ context.Context, name string) (eventlog.Feed, error) {
	return eventlog.Feed{ID: 1, Name: name, Sequences: eventlog.SequencesAssigned, Epoch: 1}, nil
}

// Append implements api.PublishingLog.
func (l *forgetfulLog) Append(_ context.Context, _ eventlog.Feed, events []event.Event) (eventlog.Result, error) {
	n := int64(len(events))
	last := l.head.Add(n)
	sequences := make([]int64, n)
	for i := range sequences {
		sequences[i] = last - n + 1 + int64(i)
	}
	return eventlog.Result{First: sequences[0], Last: last, Accepted: len(events), Sequences: sequences}, nil
}
