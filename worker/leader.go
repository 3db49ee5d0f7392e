package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// wakerLock is the advisory lock of the active waker, one per database.
const wakerLock = 0x706f7374726f6164 // "postroad"

const lockConnectTimeout = 10 * time.Second

// leader lets one process per database act: the one whose session holds an
// advisory lock. The session is ended by PostgreSQL when it is silent for
// timeout, so that a host that vanished does not hold it; whoever loses the
// session stops acting. Two that act for a moment are harmless, as every row
// guards itself.
type leader struct {
	url     string
	poll    time.Duration // between tries for the lock, and between signs of life
	timeout time.Duration // of the session's silence
	logger  *slog.Logger
}

// errYielded says that act returned before its time.
var errYielded = errors.New("another one is let lead")

// yieldPolls is for how many polls one that yielded keeps away from the lock.
const yieldPolls = 3

// run calls act, with a context that ends with the lock, each time the lock is
// won, until ctx ends. It returns when act has returned. Where act returns by
// itself, others get a chance first.
func (l leader) run(ctx context.Context, act func(context.Context)) {
	for ctx.Err() == nil {
		err := l.session(ctx, act)
		if err != nil && ctx.Err() == nil {
			l.logger.Warn("waker session ended", "error", err)
		}
		if errors.Is(err, errYielded) {
			pause(ctx, yieldPolls*l.poll)
		}
		pause(ctx, l.poll)
	}
}

func (l leader) session(ctx context.Context, act func(context.Context)) error {
	connecting, cancel := context.WithTimeout(ctx, lockConnectTimeout)
	defer cancel()
	conn, err := pgx.Connect(connecting, l.url)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it gives the lock back, and PostgreSQL does so without
	}()
	if _, err := conn.Exec(connecting, fmt.Sprintf("SET idle_session_timeout = %d", l.timeout.Milliseconds())); err != nil {
		return fmt.Errorf("bound silence of session: %w", err)
	}
	for {
		var won bool
		if err := l.ask(ctx, conn, "SELECT pg_try_advisory_lock($1)", &won, wakerLock); err != nil {
			return fmt.Errorf("try waker lock: %w", err)
		}
		if won {
			return l.lead(ctx, conn, act)
		}
		if !pause(ctx, l.poll) {
			return nil
		}
	}
}

// lead runs act until it returns, the session is lost or ctx ends.
func (l leader) lead(ctx context.Context, conn *pgx.Conn, act func(context.Context)) error {
	acting, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		act(acting)
	}()
	defer func() {
		stop()
		<-done
	}()
	poll := time.NewTicker(l.poll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			return errYielded
		case <-poll.C:
		}
		var one int
		if err := l.ask(ctx, conn, "SELECT 1", &one); err != nil {
			return fmt.Errorf("keep waker lock: %w", err)
		}
	}
}

// ask queries one value; an answer that takes half the session's timeout is
// none, so that acting stops before PostgreSQL lets another one lead.
func (l leader) ask(ctx context.Context, conn *pgx.Conn, query string, value any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout/2)
	defer cancel()
	return conn.QueryRow(ctx, query, args...).Scan(value)
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// WakerActive reports whether some process holds the lock of the active waker.
func WakerActive(ctx context.Context, pool *pgxpool.Pool) (active bool, err error) {
	err = pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted
		AND l.classid::bigint = $1::bigint >> 32 AND l.objid::bigint = $1::bigint & 4294967295)`, int64(wakerLock)).Scan(&active)
	if err != nil {
		return false, fmt.Errorf("look for the waker: %w", err)
	}
	return active, nil
}
