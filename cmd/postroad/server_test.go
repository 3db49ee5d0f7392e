package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestStopWithin(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // why it stops

	t.Run("in order", func(t *testing.T) {
		t.Parallel()
		err := stopWithin(ended, nil, time.Minute, func(ctx context.Context) {
			if ctx.Err() != nil {
				t.Error("stopping had no time")
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("a second signal", func(t *testing.T) {
		t.Parallel()
		force, hurried := make(chan struct{}), make(chan struct{})
		err := stopWithin(ended, force, time.Minute, func(ctx context.Context) {
			close(force)
			<-ctx.Done()
			close(hurried)
		})
		if !errors.Is(err, errForced) {
			t.Errorf("error %v", err)
		}
		<-hurried
	})
	t.Run("out of time", func(t *testing.T) {
		t.Parallel()
		err := stopWithin(ended, nil, time.Millisecond, func(ctx context.Context) { <-ctx.Done() })
		if err != nil {
			t.Error(err)
		}
	})
}
