package store_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"postroad/internal/testkit"
	"postroad/store"
)

// pooler gives each statement of its clients a session of its own choice. It
// speaks the simple protocol only.
type pooler struct {
	t      *testing.T
	mu     sync.Mutex
	free   []*pgconn.PgConn
	byTurn bool // else the one that was used last
}

// startPooler returns the URL of a pooler with that many sessions of url.
func startPooler(t *testing.T, target string, sessions int, byTurn bool) string {
	t.Helper()
	p := &pooler{t: t, byTurn: byTurn}
	for range sessions {
		conn, err := pgconn.Connect(t.Context(), target)
		check(t, err)
		t.Cleanup(func() { conn.Close(context.Background()) })
		p.free = append(p.free, conn)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	u, err := url.Parse(target)
	check(t, err)
	u.Host = listener.Addr().String()
	return u.String()
}

func (p *pooler) serve(client net.Conn) {
	defer client.Close()
	backend := pgproto3.NewBackend(client, client)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for backend.Flush() == nil {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return // it leaves
		}
		p.answer(backend, query.String)
	}
}

func (p *pooler) answer(backend *pgproto3.Backend, query string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.free[0]
	if p.byTurn {
		p.free = append(p.free[1:], conn)
	}
	results, err := conn.Exec(context.Background(), query).ReadAll()
	if err != nil || len(results) != 1 {
		p.t.Errorf("%s: %v", query, err)
	}
	backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("pid"), DataTypeOID: 23}}})
	for _, row := range results[0].Rows {
		backend.Send(&pgproto3.DataRow{Values: row})
	}
	backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
}

func TestTransactionPooler(t *testing.T) {
	t.Parallel()
	database := testkit.Database(t, nil)
	for name, c := range map[string]struct {
		url  string
		want bool
	}{
		"past it":      {database, false},
		"one session":  {startPooler(t, database, 1, false), true},
		"the last":     {startPooler(t, database, 3, false), true},
		"two in turn":  {startPooler(t, database, 2, true), true},
		"many in turn": {startPooler(t, database, 5, true), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 3 {
				got, err := store.TransactionPooler(t.Context(), c.url)
				if err != nil || got != c.want {
					t.Errorf("got %v, %v; want %v", got, err, c.want)
				}
			}
		})
	}
	if _, err := store.TransactionPooler(t.Context(), "postgres://nobody@127.0.0.1:1/none"); !store.Unavailable(err) {
		t.Errorf("nobody there: %v", err)
	}
}

// TestCheckPooled does what its error says, and finds nothing any more.
func TestCheckPooled(t *testing.T) {
	t.Parallel()
	database := testkit.Database(t, nil)
	conn, err := pgx.Connect(t.Context(), database)
	check(t, err)
	defer conn.Close(context.Background())
	u, err := url.Parse(database)
	check(t, err)
	name := pgx.Identifier{strings.TrimPrefix(u.Path, "/")}.Sanitize()
	for _, setting := range []string{"synchronous_commit = off", "default_transaction_isolation = 'serializable'", "jit = on"} {
		_, err := conn.Exec(t.Context(), "ALTER DATABASE "+name+" SET "+setting)
		check(t, err)
	}
	_, err = store.CheckPooled(t.Context(), database)
	var wrong *store.PooledSettingsError
	if !errors.As(err, &wrong) || strings.Join(wrong.Wrong, " ") != "default_transaction_isolation synchronous_commit" {
		t.Fatalf("unsafe settings: %v", err)
	}
	mend := func(e *store.PooledSettingsError) {
		t.Helper()
		for _, statement := range e.Statements() {
			_, err := conn.Exec(t.Context(), statement)
			check(t, err)
		}
	}
	mend(wrong)
	advised, err := store.CheckPooled(t.Context(), database)
	if err != nil || advised == nil || strings.Join(advised.Wrong, " ") != "enable_seqscan enable_bitmapscan jit" {
		t.Fatalf("slow settings: %+v, %v", advised, err)
	}
	mend(advised)
	if advised, err := store.CheckPooled(t.Context(), database); err != nil || advised != nil {
		t.Errorf("once mended: %+v, %v", advised, err)
	}
}
