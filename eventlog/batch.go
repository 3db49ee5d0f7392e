package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// acquireTimeoutMin is how long even a request that waited long gets a
	// chance at a connection, so that a slow database is not taken for an absent
	// one.
	acquireTimeoutMin = 250 * time.Millisecond
	// acquirePause is between tries to connect to a PostgreSQL that is away.
	acquirePause = 50 * time.Millisecond
	// bytesPerSecondMin is what a database that works stores at least.
	bytesPerSecondMin = 4 << 20
)

// batch is one group on its way to the database.
type batch struct {
	key      groupKey
	requests []*request
	events   int
	bytes    int
	oldest   time.Time
}

func newBatch(key groupKey, requests []*request) *batch {
	b := &batch{key: key, requests: requests, oldest: requests[0].state.queuedAt}
	for _, r := range requests {
		b.events += len(r.events)
		b.bytes += r.bytes
	}
	return b
}

// store stores the batch and answers each of its requests. Where the data of
// one is refused, each is stored alone, so that none fails another.
func (b *batch) store(a *appender, args *arguments) {
	answers, err := b.run(a, args)
	if code, data := isData(err); data {
		if len(b.requests) > 1 {
			for _, r := range b.requests {
				newBatch(b.key, []*request{r}).store(a, args)
			}
			return
		}
		err = &DataError{code, err}
	}
	a.expect(b.key, len(b.requests))
	grew := false
	for i, r := range b.requests {
		if err != nil {
			r.answer <- answer{err: err}
			continue
		}
		grew = grew || answers[i].result.Accepted > 0
		r.answer <- answers[i]
	}
	if grew {
		a.stored(b.key.feed)
	}
}

// run makes the one call; its error is about the whole batch.
func (b *batch) run(a *appender, args *arguments) ([]answer, error) {
	args.encode(b, a.config.KeyRetention)
	for {
		conn, err := b.acquire(a)
		if err != nil {
			return nil, err
		}
		verdicts, err := b.call(a, conn, args)
		a.kept.put(conn, a.pool)
		switch _, data := isData(err); {
		case err == nil:
			return b.answers(verdicts)
		case data:
			return nil, err
		case pgconn.SafeToRetry(err) && time.Since(b.oldest) < a.config.AppendTimeout:
			continue // the connection was dead before anything was sent
		case pgconn.SafeToRetry(err):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case rolledBack(err):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		default:
			return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
	}
}

// acquire gets a connection, trying until the oldest request has waited for the
// append timeout.
func (b *batch) acquire(a *appender) (*keptConn, error) {
	if conn := a.kept.take(); conn != nil {
		return conn, nil
	}
	deadline := b.oldest.Add(a.config.AppendTimeout)
	if earliest := time.Now().Add(acquireTimeoutMin); deadline.Before(earliest) {
		deadline = earliest
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for {
		conn, err := a.pool.Acquire(ctx)
		if err == nil {
			return a.kept.keep(conn), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case <-time.After(acquirePause):
		}
	}
}

func (b *batch) call(a *appender, conn *keptConn, args *arguments) ([]verdict, error) {
	limit := a.config.AppendTimeout + time.Duration(b.bytes/bytesPerSecondMin)*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	defer func() {
		a.metrics.duration.Observe(time.Since(began).Seconds())
		a.metrics.groupEvents.Observe(float64(b.events))
	}()
	return callAppend(ctx, conn.Conn.Conn(), args.values())
}

// errVerdicts: something was stored, but what is not known.
var errVerdicts = fmt.Errorf("%w: append_events gave no verdict on some request", ErrUnknownOutcome)

// answers turns verdicts into one answer per request.
func (b *batch) answers(verdicts []verdict) ([]answer, error) {
	if len(verdicts) == 0 {
		return nil, errVerdicts
	}
	if v := verdicts[0]; v.request == 0 {
		switch v.kind {
		case "feed_gone":
			return nil, ErrNotFound
		case "feed_mode":
			return nil, ErrFeedChanged
		}
		return b.allStored(v.head), nil
	}
	if len(verdicts) != len(b.requests) {
		return nil, errVerdicts
	}
	answers := make([]answer, len(b.requests))
	for i, v := range verdicts {
		if v.kind != "stored" {
			answers[i].err = conflict(v, &b.requests[i].events[v.at])
			continue
		}
		answers[i].result = newResult(v.sequences, v.accepted)
	}
	return answers, nil
}

// allStored answers requests none of which repeated anything.
func (b *batch) allStored(head int64) []answer {
	answers := make([]answer, len(b.requests))
	for i, r := range b.requests {
		sequences := make([]int64, len(r.events))
		for j := range r.events {
			head++
			sequences[j] = head
			if b.key.supplied {
				sequences[j] = r.events[j].Sequence
			}
		}
		answers[i].result = newResult(sequences, len(sequences))
	}
	return answers
}
