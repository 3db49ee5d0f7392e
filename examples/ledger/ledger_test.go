package ledger_test

import (
	"context"
	"database/sql"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx

	"postroad/delivery"
	"postroad/event"
	"postroad/examples/ledger"
	"postroad/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// bundle is a ledger and a Postroad that sends to it.
type bundle struct {
	t      *testing.T
	db     *sql.DB
	client *delivery.Client
	url    string
}

func setup(t *testing.T) *bundle {
	t.Helper()
	db, err := sql.Open("pgx", testkit.Database(t, nil))
	check(t, err)
	t.Cleanup(func() { _ = db.Close() })
	_, err = db.ExecContext(t.Context(), ledger.Schema)
	check(t, err)
	handler, err := ledger.NewHandler(db, "acme", secret)
	check(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client := delivery.NewClient(delivery.Config{Guard: delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}})
	t.Cleanup(client.Close)
	return &bundle{t: t, db: db, client: client, url: server.URL}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send delivers the events first to last of an epoch in one request. Event n is
// of the record n modulo 3.
func (b *bundle) send(epoch int, previous, first, last int64) delivery.Answer {
	b.t.Helper()
	target, err := b.client.NewTarget(delivery.TargetConfig{
		Subscriber: event.Subscriber{ID: "acme", Feed: "default", BatchSize: 10, Endpoint: event.Endpoint{URL: b.url}},
		Secrets:    event.Secrets{Signing: []event.SigningSecret{{Secret: secret}}}, FeedEpoch: epoch,
	})
	check(b.t, err)
	var events []*event.Event
	for n := first; n <= last; n++ {
		events = append(events, &event.Event{Sequence: n, ResourceName: "Property", ResourceRecordKey: strconv.FormatInt(n%3, 10)})
	}
	return b.client.Do(context.Background(), target, delivery.Request{Events: events, Attempt: 1, Previous: previous})
}

// wants compares an answer's status and the position saved after it.
func (b *bundle) wants(status int, position int64, answer delivery.Answer) {
	b.t.Helper()
	var at int64
	check(b.t, b.db.QueryRowContext(b.t.Context(), `SELECT coalesce(max(sequence), 0) FROM positions`).Scan(&at))
	if answer.Status != status || at != position {
		b.t.Errorf("answered %d at position %d, want %d at %d", answer.Status, at, status, position)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Each write of a record is counted, so that a repeat shows.
	_, err := b.db.ExecContext(t.Context(), `
		CREATE TABLE writes (sequence bigint);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO writes VALUES (new.sequence); RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT OR UPDATE ON records FOR EACH ROW EXECUTE FUNCTION note()`)
	check(t, err)

	b.wants(200, 4, b.send(1, 0, 1, 4))
	b.wants(200, 4, b.send(1, 0, 1, 4))  // the answer was lost
	b.wants(200, 6, b.send(1, 0, 3, 6))  // partly known, as after a crash
	b.wants(500, 6, b.send(1, 8, 9, 10)) // 7 and 8 never came
	b.wants(200, 9, b.send(1, 6, 7, 9))

	// Two processes get the same request.
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { b.send(1, 9, 10, 12) })
	}
	both.Wait()
	b.wants(200, 12, b.send(1, 9, 10, 12))
	b.wants(200, 20, b.send(2, 0, 20, 20)) // a new life of the feed
	b.wants(409, 20, b.send(1, 12, 13, 13))

	var writes, different int
	check(t, b.db.QueryRowContext(t.Context(), `
		SELECT count(*), (SELECT count(*) FROM records) FROM writes`).Scan(&writes, &different))
	if writes != 13 || different != 3 {
		t.Errorf("%d writes of %d records, want 13 of 3", writes, different)
	}
}

// TestLedgerOvertaken lets a request be stuck in one process while others apply
// its events and more: it must not take the position back, behind which the
// next request would find a gap.
func TestLedgerOvertaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.wants(200, 4, b.send(1, 0, 1, 4))
	other, err := b.db.BeginTx(t.Context(), nil)
	check(t, err)
	_, err = other.ExecContext(t.Context(), `UPDATE positions SET sequence = 9`)
	check(t, err)
	stuck := make(chan delivery.Answer, 1)
	go func() { stuck <- b.send(1, 4, 5, 6) }()
	testkit.Eventually(t, 10*time.Second, func() bool {
		var waiting int
		check(t, b.db.QueryRowContext(t.Context(), `
			SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting))
		return waiting > 0
	}, "the request waits for the position")
	check(t, other.Commit())
	b.wants(200, 9, <-stuck)
	b.wants(200, 11, b.send(1, 9, 10, 11))
}

// TestLedgerUndone breaks the transaction after the events were applied.
func TestLedgerUndone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.db.ExecContext(t.Context(), `ALTER TABLE positions ADD CHECK (sequence <> 3)`)
	check(t, err)
	b.wants(500, 0, b.send(1, 0, 1, 3))
	var records int
	check(t, b.db.QueryRowContext(t.Context(), `SELECT count(*) FROM records`).Scan(&records))
	if records != 0 {
		t.Errorf("%d records were kept without their position", records)
	}
	b.wants(200, 4, b.send(1, 0, 1, 4))
}
