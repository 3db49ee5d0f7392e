// Package embedded runs all that Postroad needs beside itself in one process: a
// Temporal server with its UI and, unless a database is named, a private
// PostgreSQL. It owns the data directory they live in and knows nothing of what
// is stored in them.
//
// Built with the tag slim, the Temporal server is left out and Start refuses.
package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"
)

// ErrSlim is returned by Start in a program built with the tag slim.
var ErrSlim = errors.New("this build has no embedded Temporal server (build tag slim): connect to a Temporal server of your own")

// The default addresses are those of Temporal's own development server.
const (
	DefaultTemporalListen = "127.0.0.1:7233"
	DefaultUIListen       = "127.0.0.1:8233"
	DefaultNamespace      = "postroad"
)

// databaseName is the database made in a private PostgreSQL.
const databaseName = "postroad"

// Config says what to run and where.
type Config struct {
	// DataDir holds everything; required, made if need be. One stack at a time
	// may use it.
	DataDir string

	// DatabaseURL is a PostgreSQL of the user's own. Empty: a private one in DataDir.
	DatabaseURL string
	// WithoutDatabase runs Temporal alone: for tests that bring a database.
	WithoutDatabase bool
	// PostgresSettings are settings of the private PostgreSQL, as in postgresql.conf.
	PostgresSettings map[string]string

	// TemporalListen is the address of Temporal's frontend. The host is an IP address
	// or localhost; port 0 takes any free one. Default DefaultTemporalListen.
	TemporalListen string
	// UIListen is the address of Temporal's UI, in the same form. Default DefaultUIListen.
	UIListen string
	// WithoutUI leaves the UI out.
	WithoutUI bool

	// Namespace is registered in Temporal. Default DefaultNamespace.
	Namespace string
	// SearchAttributes are registered in the namespace: name to type (Keyword, Text,
	// Int, Double, Bool, Datetime, KeywordList).
	SearchAttributes map[string]string
	// Retention is how long closed workflow runs are kept. Default and least 24 h.
	Retention time.Duration

	// NoSync gives durability up for speed: tests only.
	NoSync bool
	// Logger tells of starts and stops. Default slog.Default. What Temporal itself
	// reports, warnings and worse, goes to DataDir/temporal.log.
	Logger *slog.Logger
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	if c.TemporalListen == "" {
		c.TemporalListen = DefaultTemporalListen
	}
	if c.UIListen == "" {
		c.UIListen = DefaultUIListen
	}
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	if c.Retention == 0 {
		c.Retention = 24 * time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c Config) validate() error {
	if c.DataDir == "" {
		return errors.New("embedded: DataDir is required")
	}
	if c.DatabaseURL != "" && c.WithoutDatabase {
		return errors.New("embedded: DatabaseURL and WithoutDatabase exclude each other")
	}
	if c.Retention < 24*time.Hour {
		return fmt.Errorf("embedded: Retention %s is below 24h", c.Retention)
	}
	if _, err := parseListen(c.TemporalListen); err != nil {
		return fmt.Errorf("embedded: TemporalListen: %w", err)
	}
	if _, err := parseListen(c.UIListen); err != nil && !c.WithoutUI {
		return fmt.Errorf("embedded: UIListen: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.SearchAttributes)) {
		if !slices.Contains(searchAttributeTypes, c.SearchAttributes[name]) {
			return fmt.Errorf("embedded: search attribute %s: type %q is none of %v", name, c.SearchAttributes[name], searchAttributeTypes)
		}
	}
	return nil
}

var searchAttributeTypes = []string{"Keyword", "Text", "Int", "Double", "Bool", "Datetime", "KeywordList"}

// parseListen reads an address whose host must be an IP address, as Temporal wants it.
func parseListen(address string) (*net.TCPAddr, error) {
	parsed, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if parsed.IP == nil {
		parsed.IP = net.IPv4zero
	}
	return parsed, nil
}
