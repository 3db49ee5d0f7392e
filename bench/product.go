package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/internal/apiclient"
)

// run is one run of the scenarios: on the stage, with a product, and with what
// was measured so far that is a floor for others.
type run struct {
	*stage
	product  *process // nil: none runs
	receiver *process // started with it
	beside   *process // what delivers in its place; nil: nothing does
	sink     *apiclient.Client
	home     string // its data directory
	ready    readyDocument
	api      *apiclient.Client
	database *pgx.Conn // to its database
	// countsStatements says that the database does.
	countsStatements bool

	fanoutRate float64 // 0: not measured yet
}

// readyDocument is what `postroad dev --json` says once it serves.
type readyDocument struct {
	URL        string `json:"url"`
	UIURL      string `json:"temporalUiUrl"`
	ProfileURL string `json:"profileUrl"`
	TokenFile  string `json:"tokenFile"`
	// TemporalAddress is that of its Temporal's frontend.
	TemporalAddress string `json:"temporalAddress"`
}

// startProduct starts Postroad with a database and a receiver of its own.
func (r *run) startProduct(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StartMax, fmt.Errorf("not ready within %s", r.cfg.StartMax))
	defer cancel()
	r.products++
	name := fmt.Sprintf("bench_%d", r.products)
	r.home = filepath.Join(r.dir, name)
	if err := r.startReceiver(ctx); err != nil {
		return err
	}
	if err := r.openDatabase(ctx, name); err != nil {
		return err
	}
	r.say("starting Temporal and Postroad")
	started := time.Now()
	arguments := []string{
		"dev", "--json", "--data-dir", r.home, "--listen", "127.0.0.1:0", "--temporal-listen", "127.0.0.1:0",
		"--ui-listen", "127.0.0.1:0", "--profile-listen", "127.0.0.1:0", "--log-level", "warn",
	}
	if r.cfg.Quick {
		arguments = append(arguments, "--linger", "3s") // nobody waits for subscribers to park
	}
	var err error
	r.product, err = startProcess("postroad dev", r.cfg.Command, arguments, append(r.cfg.Env[:len(r.cfg.Env):len(r.cfg.Env)], "POSTROAD_DATABASE_URL="+r.cluster.URL(name)))
	if err != nil {
		return err
	}
	r.ready, err = firstOutput(ctx, r.product, func(out io.Reader) (d readyDocument, err error) {
		return d, json.NewDecoder(out).Decode(&d)
	})
	if err != nil {
		return fmt.Errorf("start the product: %w", err)
	}
	token, err := os.ReadFile(r.ready.TokenFile)
	if err != nil {
		return fmt.Errorf("read the product's token: %w", err)
	}
	r.api = &apiclient.Client{URL: r.ready.URL, Token: strings.TrimSpace(string(token)), HTTP: manyConnections()}
	if err := r.awaitReady(ctx); err != nil {
		return fmt.Errorf("start the product: %w", err)
	}
	r.say("ready after %.1f s", time.Since(started).Seconds())
	return nil
}

// manyConnections is a client whose connections are all used again: net/http keeps
// two of them, and the others would be made anew for each request.
func manyConnections() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // nobody replaces it
	transport.MaxIdleConnsPerHost = manyClients
	return &http.Client{Transport: transport}
}

func (r *run) startReceiver(ctx context.Context) error {
	var err error
	if r.receiver, err = startProcess("the receiver", r.cfg.Command, []string{"bench-receiver"}, r.cfg.Env); err != nil {
		return err
	}
	address, err := firstOutput(ctx, r.receiver, func(out io.Reader) (line string, err error) {
		_, err = fmt.Fscanln(out, &line)
		return line, err
	})
	r.sink = &apiclient.Client{URL: "http://" + address}
	return err
}

func (r *run) openDatabase(ctx context.Context, name string) error {
	if err := r.cluster.CreateDatabase(ctx, name); err != nil {
		return err
	}
	var err error
	if r.database, err = pgx.Connect(ctx, r.cluster.URL(name)); err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	// Where the server has no such extension, statements are not counted.
	_, err = r.database.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	r.countsStatements = err == nil
	return nil
}

// awaitReady waits until the product says that all of it serves.
func (r *run) awaitReady(ctx context.Context) error {
	for {
		_, err := r.api.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: "/readyz"}, nil)
		if err == nil {
			return nil
		}
		if waitErr := r.pause(ctx, pollEvery); waitErr != nil {
			return errors.Join(waitErr, err)
		}
	}
}

// pause waits, unless the product dies meanwhile.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.product.done:
		return r.product.died()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopProduct ends the product, if one runs, and gives up its data.
func (r *run) stopProduct(ctx context.Context) error {
	var errs []error
	if r.product != nil {
		errs = append(errs, r.product.stop(r.cfg.StopMax), removeAll(r.home))
	}
	if r.receiver != nil {
		errs = append(errs, r.receiver.stop(5*time.Second))
	}
	if r.database != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.StopMax)
		defer cancel()
		name := r.database.Config().Database
		errs = append(errs, r.database.Close(ctx), r.dropDatabase(ctx, name))
	}
	r.product, r.receiver, r.database = nil, nil, nil
	return errors.Join(errs...)
}

func (r *run) dropDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, r.cluster.URL("postgres"))
	if err == nil {
		_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("drop the database: %w", err)
	}
	return nil
}

func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove data: %w", err)
	}
	return nil
}

// book reads a book of the receiver.
func book[T any](ctx context.Context, r *run, path string) (report T, err error) {
	answer, err := r.sink.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path}, nil)
	if err == nil {
		err = json.Unmarshal(answer.Body, &report)
	}
	if err != nil {
		return report, fmt.Errorf("read the receiver's book: %w", err)
	}
	return report, nil
}
