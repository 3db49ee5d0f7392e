package pglisten_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"postroad/internal/pglisten"
	"postroad/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

const soon = 20 * time.Second

// bundle is a listener on channels "a" and "B c" of a database of its own.
type bundle struct {
	t         *testing.T
	conn      *pgx.Conn
	heard     chan string
	connected chan struct{}
	stop      func()
}

func setup(t *testing.T, config pglisten.Config) *bundle {
	t.Helper()
	url := testkit.Database(t, nil)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	b := &bundle{t: t, conn: conn, heard: make(chan string, 100), connected: make(chan struct{}, 100)}
	config.URL, config.Logger, config.ReconnectDelay = url, slog.New(slog.DiscardHandler), time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- pglisten.Listen(ctx, config, map[string]func(string){
			"a":   func(payload string) { b.heard <- "a:" + payload },
			"B c": func(payload string) { b.heard <- "B c:" + payload },
		}, func() { b.connected <- struct{}{} })
	}()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Listen returned %v, want nil at its context's end", err)
		}
		ended <- nil
	}
	t.Cleanup(b.stop)
	return b
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.conn.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

func receive[T any](t *testing.T, c chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		t.Fatalf("not within %s: %s", soon, what)
		panic("unreachable")
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	b := setup(t, pglisten.Config{})
	receive(t, b.connected, "the listener is up")
	for i := range 10 {
		channel := []string{"a", "B c"}[i%2]
		b.exec(`SELECT pg_notify('other', 'x'), pg_notify($1, $2)`, channel, fmt.Sprint(i))
		if got, want := receive(t, b.heard, "notification"), fmt.Sprintf("%s:%d", channel, i); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
}

func TestListenReconnects(t *testing.T) {
	t.Parallel()
	b := setup(t, pglisten.Config{})
	for i := range 3 {
		receive(t, b.connected, "the listener is up")
		b.exec(`SELECT pg_notify('a', $1)`, fmt.Sprint(i))
		if got, want := receive(t, b.heard, "notification"), fmt.Sprint("a:", i); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
		b.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
}

// TestListenChecksSilence is silent for many check intervals: the connection
// stays, and hears what comes after.
func TestListenChecksSilence(t *testing.T) {
	t.Parallel()
	b := setup(t, pglisten.Config{CheckInterval: 5 * time.Millisecond})
	receive(t, b.connected, "the listener is up")
	// Each check is a statement of the listener's own.
	checked := func() bool {
		var last string
		err := b.conn.QueryRow(t.Context(), `SELECT query FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&last)
		return err == nil && last == "-- ping"
	}
	testkit.Eventually(t, soon, checked, "the connection is checked")
	b.exec(`SELECT pg_notify('a', 'still')`)
	if got := receive(t, b.heard, "notification"); got != "a:still" {
		t.Errorf("heard %q", got)
	}
	if n := len(b.connected); n != 0 {
		t.Errorf("the listener connected %d more times", n)
	}
}

// TestListenLeavesASilentServer meets a server that takes the connection and
// then says nothing more, as a host that vanishes at that moment.
func TestListenLeavesASilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close() // not before the test ends
			backend := pgproto3.NewBackend(conn, conn)
			if _, err := backend.ReceiveStartupMessage(); err != nil {
				continue // it asks to cancel what the last connection waits for
			}
			backend.Send(&pgproto3.AuthenticationOk{})
			backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if backend.Flush() == nil {
				taken <- struct{}{}
			}
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	config := pglisten.Config{
		URL: "postgres://someone@" + listener.Addr().String() + "/any?sslmode=disable", ConnectTimeout: 50 * time.Millisecond,
		ReconnectDelay: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	go func() { ended <- pglisten.Listen(ctx, config, map[string]func(string){"a": func(string) {}}, nil) }()
	for range 3 {
		receive(t, taken, "another connection is tried")
	}
	cancel()
	if err := receive(t, ended, "the end"); err != nil {
		t.Error(err)
	}
}

func TestListenRefusesABadURL(t *testing.T) {
	t.Parallel()
	err := pglisten.Listen(t.Context(), pglisten.Config{URL: "postgres://%zz"}, nil, nil)
	if err == nil {
		t.Error("a URL that cannot be read is accepted")
	}
}
