package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
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

const appendSQL = `SELECT * FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`

// batch is one group on its way to the database.
type batch struct {
	key      groupKey
	requests []*request
	bytes    int
	oldest   time.Time
}

func newBatch(key groupKey, requests []*request) *batch {
	b := &batch{key: key, requests: requests, oldest: requests[0].state.queuedAt}
	for _, r := range requests {
		b.bytes += r.bytes
	}
	return b
}

// store stores the batch and answers each of its requests. Where the data of
// one is refused, each is stored alone, so that none fails another.
func (b *batch) store(a *appender) {
	answers, err := b.run(a)
	if code, data := isData(err); data {
		if len(b.requests) > 1 {
			for _, r := range b.requests {
				newBatch(b.key, []*request{r}).store(a)
			}
			return
		}
		err = &DataError{code, err}
	}
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
func (b *batch) run(a *appender) ([]answer, error) {
	for {
		conn, err := b.acquire(a)
		if err != nil {
			return nil, err
		}
		verdicts, err := b.call(a, conn)
		conn.Release()
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
func (b *batch) acquire(a *appender) (*pgxpool.Conn, error) {
	deadline := b.oldest.Add(a.config.AppendTimeout)
	if earliest := time.Now().Add(acquireTimeoutMin); deadline.Before(earliest) {
		deadline = earliest
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for {
		conn, err := a.pool.Acquire(ctx)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case <-time.After(acquirePause):
		}
	}
}

func (b *batch) call(a *appender, conn *pgxpool.Conn) ([]verdict, error) {
	limit := a.config.AppendTimeout + time.Duration(b.bytes/bytesPerSecondMin)*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := b.columns()
	began := time.Now()
	defer func() {
		a.metrics.duration.Observe(time.Since(began).Seconds())
		a.metrics.groupEvents.Observe(float64(len(c.names)))
	}()
	rows, err := conn.Query(ctx, appendSQL, b.key.feed, b.key.supplied, a.config.KeyRetention,
		c.counts, c.sequences, c.keys, c.hashes, c.names, c.recordKeys, c.urls, c.types, c.occurred, c.extras, c.data)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (verdict, error) {
		var v verdict
		err := row.Scan(&v.request, &v.kind, &v.at, &v.head, &v.accepted, &v.sequences)
		return v, err
	})
}

// columns are the arguments of append_events: one array per member over the
// events of all requests. An array stays nil where every event lacks the member.
type columns struct {
	counts                              []int32
	sequences                           []int64
	keys                                []*string
	hashes                              [][]byte
	names, recordKeys                   []string
	urls, types, occurred, extras, data []*string
}

func (b *batch) columns() *columns {
	total := 0
	for _, r := range b.requests {
		total += len(r.events)
	}
	c := &columns{
		counts: make([]int32, 0, len(b.requests)),
		names:  make([]string, 0, total), recordKeys: make([]string, 0, total),
	}
	n := 0
	for _, r := range b.requests {
		c.counts = append(c.counts, int32(len(r.events)))
		for i := range r.events {
			e := &r.events[i]
			c.names = append(c.names, e.ResourceName)
			c.recordKeys = append(c.recordKeys, e.ResourceRecordKey)
			if b.key.supplied {
				c.sequences = append(c.sequences, e.Sequence)
			}
			if e.IdempotencyKey != "" {
				put(&c.keys, total, n, &e.IdempotencyKey)
				if c.hashes == nil {
					c.hashes = make([][]byte, total)
				}
				c.hashes[n] = r.hashes[i]
			}
			putText(&c.urls, total, n, &e.ResourceRecordURL)
			putText(&c.types, total, n, &e.EventType)
			putText(&c.occurred, total, n, &e.OccurredAt)
			if r.extras != nil && r.extras[i] != nil {
				put(&c.extras, total, n, r.extras[i])
			}
			if e.Data != nil {
				data := string(e.Data)
				put(&c.data, total, n, &data)
			}
			n++
		}
	}
	return c
}

func put(column *[]*string, total, at int, s *string) {
	if *column == nil {
		*column = make([]*string, total)
	}
	(*column)[at] = s
}

func putText(column *[]*string, total, at int, s *string) {
	if *s != "" {
		put(column, total, at, s)
	}
}

// verdict is one row of append_events.
type verdict struct {
	request   int
	kind      string
	at        int
	head      int64
	accepted  int
	sequences []int64
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
