// Command consumer is a whole consumer in one file: it verifies, drops repeats
// and remembers its position in a file. A real one keeps the position in its
// database and saves it in the transaction that applies the events.
//
//	postroad subscriber create example --file examples/subscriber.json
//	SECRET=whsec_... go run ./examples/consumer
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"postroad/consumer"
)

func main() {
	if err := run(os.Getenv("SECRET"), "127.0.0.1:9000", "position.json"); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(secret, listen, file string) error {
	store := positionFile(file)
	handler, err := consumer.New(consumer.Config{
		Secrets: []string{secret},
		Store:   store,
		Handle: func(_ context.Context, b consumer.Batch) error {
			if b.Gap != nil {
				return fmt.Errorf("events after %d through %d are missing", b.Gap.After, b.Gap.Through)
			}
			for _, e := range b.Events {
				slog.Info("event", "sequence", e.Sequence, "resource", e.ResourceName, "key", e.ResourceRecordKey, "type", e.EventType)
			}
			return store.save(b.Position())
		},
	})
	if err != nil {
		return err
	}
	server := &http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	slog.Info("listening", "url", "http://"+listen+"/")
	return server.ListenAndServe()
}

// positionFile remembers a position in a file of this name.
type positionFile string

// LastSequence implements consumer.Store.
func (f positionFile) LastSequence(context.Context) (consumer.Position, error) {
	var at consumer.Position
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err != nil {
		return at, err
	}
	return at, json.Unmarshal(text, &at)
}

// save replaces the file in one step: half a position would be another one.
func (f positionFile) save(at consumer.Position) error {
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	if err := os.WriteFile(string(f)+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(string(f)+".new", string(f))
}
