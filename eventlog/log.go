package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says how much a Log may hold and how often it looks. The zero value
// of each field means its default.
type Config struct {
	// ListenURL is a direct connection to PostgreSQL (not through a pooler) for
	// LISTEN. Default: the pool's own configuration.
	ListenURL string
	// QueueEvents and QueueBytes bound what waits to be stored or is being
	// stored. A single request always fits an empty queue. Default 50,000 and
	// 128 MiB.
	QueueEvents int
	QueueBytes  int
	// GroupEvents and GroupBytes bound what is stored in one transaction; a
	// single request is never divided. Default 2,000 and 4 MiB.
	GroupEvents int
	GroupBytes  int
	// GatherMax bounds how long the publishers that were just answered are waited
	// for, so that their next events are stored together. Default 1 ms.
	GatherMax time.Duration
	// Writers is how many groups, each of another feed, are stored at once.
	// Default 4.
	Writers int
	// AppendTimeout bounds how long a request waits for a connection before
	// PostgreSQL counts as unavailable, and, plus one second per 4 MiB, how long
	// a group may be in flight before its outcome counts as unknown. Default 5 s.
	AppendTimeout time.Duration
	// KeyRetention is how long an idempotency key counts. Default 7 days.
	KeyRetention time.Duration
	// PollInterval is how often the tail looks without having been told.
	// Default 250 ms.
	PollInterval time.Duration
	// RingEvents and RingBytes bound the newest events kept in memory per
	// followed feed; RingBytesTotal bounds those of all feeds together. Default
	// 4,096, 8 MiB and 128 MiB.
	RingEvents     int
	RingBytes      int
	RingBytesTotal int
	// PageRows and PageBytes bound what one query brings; one event always
	// fits. Default 1,000 and 4 MiB.
	PageRows  int
	PageBytes int
	// ScanRows is how many events a filtered read looks at per query. Default
	// 10,000.
	ScanRows int
	// Logger tells of lost and found connections. Default: slog.Default().
	Logger *slog.Logger
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	setDefault(&c.QueueEvents, 50_000)
	setDefault(&c.QueueBytes, 128<<20)
	setDefault(&c.GroupEvents, 2_000)
	setDefault(&c.GroupBytes, 4<<20)
	setDefault(&c.GatherMax, time.Millisecond)
	setDefault(&c.Writers, 4)
	setDefault(&c.AppendTimeout, 5*time.Second)
	setDefault(&c.KeyRetention, 7*24*time.Hour)
	setDefault(&c.PollInterval, 250*time.Millisecond)
	setDefault(&c.RingEvents, 4_096)
	setDefault(&c.RingBytes, 8<<20)
	setDefault(&c.RingBytesTotal, 128<<20)
	setDefault(&c.PageRows, 1_000)
	setDefault(&c.PageBytes, 4<<20)
	setDefault(&c.ScanRows, 10_000)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Log is the log of one database. Reads work as soon as it is made; Append,
// Wait, Follow and OnChange need Start.
type Log struct {
	pool     *pgxpool.Pool
	config   Config
	appender *appender
	notifier *notifier
	tail     *tail

	reads          readCounts
	readsCollector prometheus.Collector

	mu     sync.Mutex
	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// New makes a log over a pool made by store.PoolConfig: a session must be read
// committed and durable, and keep to indexes whatever statistics say.
func New(pool *pgxpool.Pool, config Config) *Log {
	config = config.WithDefaults()
	l := &Log{pool: pool, config: config}
	l.reads, l.readsCollector = newReadCounts()
	l.tail = newTail(pool, config, l.reads.tail)
	l.notifier = newNotifier(pool, config, l.tail)
	l.appender = newAppender(pool, config, l.notifier.note)
	return l
}

// Start runs the appender, the notifier and the tail until Close. It does not
// wait for PostgreSQL. The end of ctx ends them too, without waiting for what
// is queued.
func (l *Log) Start(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		return errors.New("start log: started before")
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.appender.start()
	for _, loop := range []func(context.Context){l.notifier.run, l.tail.run, l.tail.listen} {
		l.loops.Go(func() { loop(ctx) })
	}
	context.AfterFunc(ctx, func() { l.appender.close(); l.tail.close() })
	return nil
}

// Close stops taking events, stores what is queued, ends every Wait with
// ErrClosed and stops the loops. It may be called more than once.
func (l *Log) Close() {
	l.tail.close()
	l.appender.close()
	l.appender.wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	l.loops.Wait()
}
