package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// NaiveConfig is what a worker of the naive design needs.
type NaiveConfig struct {
	// Temporal is the address of a frontend, Namespace one of its namespaces.
	Temporal, Namespace string
	// Database is the database in which Postroad keeps the events.
	Database string
	// Endpoint is where events go: with the number of the subscriber, from 0, at
	// its end.
	Endpoint string
}

const (
	naiveQueue    = "naive"
	naiveWorkflow = "NaiveSubscriber"
	naiveActivity = "NaiveDeliver"
)

// naiveInput is where a naive subscriber stands.
type naiveInput struct {
	Subscriber    int
	FeedID        int64
	Next, Through int64
}

// ServeNaive runs a worker of the obvious design until ctx ends: a workflow for
// each subscriber, which runs an activity for each event, one after the other.
// That reads the event, posts it and records the position. It writes a line to out
// as soon as it works.
func ServeNaive(ctx context.Context, cfg NaiveConfig, out io.Writer) error {
	pool, err := pgxpool.New(ctx, cfg.Database)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer pool.Close()
	const table = "CREATE TABLE IF NOT EXISTS naive_positions (subscriber integer PRIMARY KEY, position bigint NOT NULL)"
	if _, err := pool.Exec(ctx, table); err != nil {
		return fmt.Errorf("make the table of positions: %w", err)
	}
	temporal, err := dialNaive(ctx, cfg.Temporal, cfg.Namespace)
	if err != nil {
		return err
	}
	defer temporal.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	defer transport.CloseIdleConnections()
	n := &naive{pool: pool, client: &http.Client{Transport: transport, Timeout: 15 * time.Second}, endpoint: cfg.Endpoint}
	w := worker.New(temporal, naiveQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(naiveSubscriber, workflow.RegisterOptions{Name: naiveWorkflow})
	w.RegisterActivityWithOptions(n.deliver, activity.RegisterOptions{Name: naiveActivity})
	if err := w.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	defer w.Stop()
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return fmt.Errorf("tell that it is ready: %w", err)
	}
	<-ctx.Done()
	return nil
}

func dialNaive(ctx context.Context, address, namespace string) (client.Client, error) {
	temporal, err := client.DialContext(ctx, client.Options{HostPort: address, Namespace: namespace, Logger: quietLogger{}})
	if err != nil {
		return nil, fmt.Errorf("connect to Temporal: %w", err)
	}
	return temporal, nil
}

func naiveSubscriber(ctx workflow.Context, in naiveInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 30 * time.Second})
	for ; in.Next <= in.Through; in.Next++ {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, naiveWorkflow, in)
		}
		if err := workflow.ExecuteActivity(ctx, naiveActivity, in).Get(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// naive is what its activities work with.
type naive struct {
	pool     *pgxpool.Pool
	client   *http.Client
	endpoint string
}

func (n *naive) deliver(ctx context.Context, in naiveInput) error {
	var data []byte
	if err := n.pool.QueryRow(ctx, "SELECT data FROM events WHERE feed_id = $1 AND sequence = $2", in.FeedID, in.Next).Scan(&data); err != nil {
		return fmt.Errorf("read event %d: %w", in.Next, err)
	}
	if err := post(ctx, n.client, n.endpoint+strconv.Itoa(in.Subscriber), in.Next, data); err != nil {
		return err
	}
	_, err := n.pool.Exec(ctx, `INSERT INTO naive_positions (subscriber, position) VALUES ($1, $2)
		ON CONFLICT (subscriber) DO UPDATE SET position = excluded.position`, in.Subscriber, in.Next)
	if err != nil {
		return fmt.Errorf("record position %d: %w", in.Next, err)
	}
	return nil
}

// quietLogger says nothing: what goes wrong is in the errors.
type quietLogger struct{}

var _ log.Logger = quietLogger{}

func (quietLogger) Debug(string, ...any) {}
func (quietLogger) Info(string, ...any)  {}
func (quietLogger) Warn(string, ...any)  {}
func (quietLogger) Error(string, ...any) {}
