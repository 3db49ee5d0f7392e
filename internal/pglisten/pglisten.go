// Package pglisten hears PostgreSQL notifications on one direct connection that
// it makes again for as long as it takes.
//
// Notifications sent while the connection is down are lost, as PostgreSQL keeps
// none: whoever listens looks again when told that the connection is up.
package pglisten

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Config says where to listen. The zero value of each field but URL means its
// default.
type Config struct {
	// URL is a direct connection, not through a transaction pooler; required
	// unless ConnConfig is set.
	URL string
	// ConnConfig, where set, is used in place of URL.
	ConnConfig *pgx.ConnConfig
	// ReconnectDelay is the pause before the second try in a row; it doubles up
	// to 50 times that. Default 100 ms.
	ReconnectDelay time.Duration
	// ConnectTimeout bounds the making of a connection, up to where the channels
	// are heard, and each check of it. Default 10 s.
	ConnectTimeout time.Duration
	// CheckInterval is how long the connection may be silent before it is
	// checked, so that a vanished host is noticed. Default 10 s.
	CheckInterval time.Duration
	// Logger tells of lost and found connections. Default: slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.ReconnectDelay == 0 {
		c.ReconnectDelay = 100 * time.Millisecond
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.CheckInterval == 0 {
		c.CheckInterval = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Listen hears the channels that handlers names until ctx ends; it returns nil
// then, and an error only where the URL cannot be read. Each payload goes to
// its channel's handler. onConnect (nil: none) is called after every connect,
// the first included, once the channels are being heard. Handlers and onConnect
// run on Listen's goroutine, one at a time, and must not block.
func Listen(ctx context.Context, config Config, handlers map[string]func(payload string), onConnect func()) error {
	config = config.withDefaults()
	conn := config.ConnConfig
	if conn == nil {
		parsed, err := pgx.ParseConfig(config.URL)
		if err != nil {
			return fmt.Errorf("read database URL: %w", err)
		}
		conn = parsed
	}
	delay := config.ReconnectDelay
	for {
		started := time.Now()
		heard, err := listenOnce(ctx, config, conn, handlers, onConnect)
		if ctx.Err() != nil {
			return nil
		}
		if heard && time.Since(started) > delay {
			delay = config.ReconnectDelay
			config.Logger.Warn("notification connection lost", "error", err)
			continue // a restarted server is often back at once
		}
		config.Logger.Warn("notification connection not made or lost at once", "error", err, "retry_in", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, 50*config.ReconnectDelay)
	}
}

// listenOnce hears one connection until it breaks. heard says that it was up.
func listenOnce(ctx context.Context, config Config, connConfig *pgx.ConnConfig, handlers map[string]func(string), onConnect func()) (heard bool, err error) {
	conn, err := connect(ctx, config.ConnectTimeout, connConfig, handlers)
	if err != nil {
		return false, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if onConnect != nil {
		onConnect()
	}
	for {
		notification, err := next(ctx, conn, config)
		if err != nil {
			return true, err
		}
		if notification == nil {
			continue
		}
		if handler := handlers[notification.Channel]; handler != nil {
			handler(notification.Payload)
		}
	}
}

// connect makes a connection on which the channels are heard.
func connect(ctx context.Context, timeout time.Duration, config *pgx.ConnConfig, handlers map[string]func(string)) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	for channel := range handlers {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			_ = conn.Close(ctx)
			return nil, fmt.Errorf("listen to %s: %w", channel, err)
		}
	}
	return conn, nil
}

// next waits for a notification; after a silence it checks the connection and
// returns nil.
func next(ctx context.Context, conn *pgx.Conn, config Config) (*pgconn.Notification, error) {
	waiting, cancel := context.WithTimeout(ctx, config.CheckInterval)
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	if err == nil {
		return n, nil
	}
	var netErr net.Error
	timedOut := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
	if ctx.Err() != nil || !timedOut || conn.IsClosed() {
		return nil, fmt.Errorf("wait for notification: %w", err)
	}
	checking, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
	defer cancel()
	if err := conn.Ping(checking); err != nil {
		return nil, fmt.Errorf("check connection: %w", err)
	}
	return nil, nil
}
