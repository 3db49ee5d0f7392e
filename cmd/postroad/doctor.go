package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"postroad/api"
	"postroad/contract"
	"postroad/internal/config"
	"postroad/store"
)

const doctorLong = `Look at the database and at Temporal, with the settings of a worker, and say
what is wrong and what to do about it. Nothing is changed.

--rebuild ID gives a subscriber whose workflow is stuck a new one: the old one is
terminated and another started from the subscriber's row. No event is lost; what
was in flight may be sent again.

Exit codes: 0 nothing is broken (there may be warnings), 1 something is.`

// doctorMax bounds one part of the examination.
const doctorMax = 20 * time.Second

// Levels of a diagnosis.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "fail"
)

// diagnosis is what one check found.
type diagnosis struct {
	Check string `json:"check"`
	Level string `json:"level"`
	// Text is one sentence, Do says what to do about it.
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
}

// doctor examines one installation.
type doctor struct {
	databaseURL, directURL string
	keyFile                string
	options                client.Options
	longTransaction        time.Duration
	neglected              time.Duration

	pool     *pgxpool.Pool
	store    *store.Store
	temporal client.Client
	findings []diagnosis
}

func (d *doctor) ok(check, text string, args ...any) {
	d.findings = append(d.findings, diagnosis{Check: check, Level: levelOK, Text: fmt.Sprintf(text, args...)})
}

func (d *doctor) warn(check, do, text string, args ...any) {
	d.findings = append(d.findings, diagnosis{check, levelWarn, fmt.Sprintf(text, args...), do})
}

func (d *doctor) fail(check, do, text string, args ...any) {
	d.findings = append(d.findings, diagnosis{check, levelFail, fmt.Sprintf(text, args...), do})
}

func (p *program) doctorCommand() *cobra.Command {
	d := &doctor{}
	var rebuild string
	command := &cobra.Command{
		Use:         "doctor",
		Short:       "Say what is wrong with the database and Temporal, and what to do",
		Long:        doctorLong + temporalHelp,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{envFlags: "database-url database-direct-url key-file"},
		RunE:        p.action(func(ctx context.Context, _ []string) error { return p.doctor(ctx, d, rebuild) }),
	}
	flags := command.Flags()
	flags.StringVar(&d.databaseURL, "database-url", "", "PostgreSQL, as a `URL`; may lead through a connection pooler")
	flags.StringVar(&d.directURL, "database-direct-url", "", "the same past the pooler, as a `URL` (default: --database-url)")
	flags.StringVar(&d.keyFile, "key-file", "", "the master key's `file`; not looked at if empty")
	flags.DurationVar(&d.longTransaction, "long-transaction", 5*time.Minute, "warn of transactions that are open for longer")
	flags.DurationVar(&d.neglected, "neglected", 3*time.Minute, "report subscribers that nobody has looked at for that long")
	flags.StringVar(&rebuild, "rebuild", "", "give the subscriber with this `ID` a new workflow")
	return command
}

func (p *program) doctor(ctx context.Context, d *doctor, rebuild string) error {
	if d.databaseURL == "" {
		return usagef("--database-url is required (or %s)", config.FlagVariable("database-url"))
	}
	var err error
	if d.options, err = p.temporalOptions(slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	defer d.close()
	if rebuild != "" {
		return p.rebuild(ctx, d, rebuild)
	}
	if d.openDatabase(ctx) {
		d.examineDatabase(ctx)
	}
	if d.openTemporal(ctx) {
		d.examineTemporal(ctx)
	}
	return p.tellFindings(d.findings)
}

func (p *program) tellFindings(findings []diagnosis) error {
	failed := false
	for _, f := range findings {
		failed = failed || f.Level == levelFail
		if p.json {
			continue
		}
		p.printf("%-4s  %s: %s\n", f.Level, f.Check, printable(f.Text))
		if f.Do != "" {
			p.printf("      → %s\n", printable(f.Do))
		}
	}
	if p.json {
		if err := p.encode(map[string]any{"findings": findings, "ok": !failed}); err != nil {
			return err
		}
	}
	if failed {
		return silentError{exitError}
	}
	return nil
}

func (d *doctor) close() {
	if d.pool != nil {
		d.pool.Close()
	}
	if d.temporal != nil {
		d.temporal.Close()
	}
}

// openDatabase reports whether there is a database with our schema.
func (d *doctor) openDatabase(ctx context.Context) bool {
	const check = "database"
	ctx, cancel := context.WithTimeout(ctx, doctorMax)
	defer cancel()
	cfg, err := store.PoolConfig(d.databaseURL)
	if err != nil {
		d.fail(check, "Mend --database-url.", "%v.", err)
		return false
	}
	logger := slog.New(slog.DiscardHandler)
	err = checkPoolers(ctx, backendConfig{databaseURL: d.databaseURL, directURL: d.directURL, logger: logger}, cfg)
	if err != nil {
		d.fail(check, "Servers with these settings do not start.", "%v.", err)
		return false
	}
	if d.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		d.fail(check, "Mend --database-url.", "%v.", err)
		return false
	}
	d.store = store.New(d.pool, nil, store.WithLogger(logger))
	if err := store.CheckSchema(ctx, d.pool); err != nil {
		d.fail("schema", "Run `postroad migrate` with this release.", "%v.", err)
		return false
	}
	d.ok("schema", "The schema is at least this release's.")
	return true
}

// openTemporal reports whether there is a Temporal with our namespace.
func (d *doctor) openTemporal(ctx context.Context) bool {
	const check = "temporal"
	ctx, cancel := context.WithTimeout(ctx, doctorMax)
	defer cancel()
	var err error
	if d.temporal, err = client.DialContext(ctx, d.options); err != nil {
		d.fail(check, "Check TEMPORAL_ADDRESS, TEMPORAL_TLS..., TEMPORAL_API_KEY and the way there.", "Temporal at %s does not answer: %v.", d.options.HostPort, err)
		return false
	}
	return d.checkNamespace(ctx)
}

// rebuild gives a subscriber a new run.
func (p *program) rebuild(ctx context.Context, d *doctor, id string) error {
	if !d.openDatabase(ctx) || !d.openTemporal(ctx) {
		return p.tellFindings(d.findings)
	}
	ctx, cancel := context.WithTimeout(ctx, doctorMax)
	defer cancel()
	switch run, err := d.store.Run(ctx, id); {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("there is no subscriber %s", id)
	case err != nil:
		return err
	case run.Deleted:
		return fmt.Errorf("subscriber %s is deleted: its workflow ends by itself", id)
	}
	workflowID := contract.SubscriberWorkflowID(id)
	described, err := d.temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
	case err != nil:
		return fmt.Errorf("describe workflow of %s: %w", id, err)
	case described.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		old := described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
		err := d.temporal.TerminateWorkflow(ctx, workflowID, old, "postroad doctor --rebuild: rebuilt from the subscriber's row")
		if err != nil && !errors.As(err, &missing) { // it closed meanwhile
			return fmt.Errorf("terminate workflow of %s: %w", id, err)
		}
	}
	if err := (api.TemporalWaker{Client: d.temporal}).Wake(ctx, id); err != nil {
		return err
	}
	return p.done("the workflow of "+id+" is rebuilt from its row", map[string]string{"subscriber": id, "workflowId": workflowID})
}
