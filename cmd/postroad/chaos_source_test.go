//go:build chaos

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/apiclient"
)

// answerMax is how long a publish may wait for its answer: 5 s for PostgreSQL,
// and the way there.
const answerMax = 6 * time.Second

// front is where publishers find an API: the instance behind it changes.
type front struct {
	atomic.Pointer[apiclient.Client]
}

func newFront(i *instance) *front {
	f := &front{}
	f.Store(i.api)
	return f
}

// pooled keeps as many connections as there are publishers, as a client that
// publishes does.
var pooled = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}

// source is a publisher that publishes requests of so many events at a pace, each
// with a key of its own, to one API or the other, and again until it is stored.
type source struct {
	road   *road
	name   string
	fronts []*front
	batch  int           // events a request
	every  time.Duration // from one request to the next
	// tries is how many a request may need; 0: as many as it takes.
	tries int

	stop    context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	requests  int             // that were stored
	last      []int64         // the last sequence of each
	took      []time.Duration // by each try that was answered
	storedAt  time.Time       // of the last one
	refused   int             // tries that were answered 503
	unreached int             // tries without an answer
}

// start publishes until finish.
func (s *source) start(t *testing.T) *source {
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	s.running.Go(func() {
		pace := time.NewTicker(s.every)
		defer pace.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			if !s.publish(t, n) {
				return
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	})
	return s
}

// publish publishes the n-th request, from 0, until it is stored.
func (s *source) publish(t *testing.T, n int) bool {
	var body bytes.Buffer
	for i := range s.batch {
		fmt.Fprintf(&body, `%s{"resourceName":"%s","resourceRecordKey":"%d"}`, []string{"[", ","}[min(i, 1)], s.name, n*s.batch+i+1)
	}
	body.WriteString("]")
	for try := 0; ; try++ {
		err := s.try(t, n, s.fronts[(n+try)%len(s.fronts)], body.Bytes())
		switch {
		case err == nil:
			return true
		case t.Context().Err() != nil:
			return false
		case s.tries > 0 && try+1 >= s.tries:
			t.Errorf("publish request %d of %s, try %d: %v", n, s.name, try+1, err)
			return false
		case s.tries == 0:
			<-time.After(100 * time.Millisecond)
		}
	}
}

// try sends a request once. Its body cannot be read again, so that net/http does
// not send it a second time by itself.
func (s *source) try(t *testing.T, n int, way *front, body []byte) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	api := *way.Load()
	api.HTTP = pooled
	began := time.Now()
	var answer struct{ LastSequence int64 }
	_, err := api.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + s.road.name + "/events", ContentType: "application/json",
		Body: struct{ io.Reader }{bytes.NewReader(body)}, Header: http.Header{"Idempotency-Key": {fmt.Sprintf("%s-%d", s.name, n)}},
	}, &answer)
	took := time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	var problem *apiclient.Problem
	var unreachable *apiclient.UnreachableError
	switch {
	case err == nil:
		s.requests++
		s.last, s.storedAt, s.took = append(s.last, answer.LastSequence), time.Now(), append(s.took, took)
	case errors.As(err, &problem) && problem.Status == http.StatusServiceUnavailable:
		s.refused++
		s.took = append(s.took, took)
	case errors.As(err, &unreachable):
		s.unreached++
		if t.Context().Err() == nil && ctx.Err() != nil {
			t.Errorf("publish request %d of %s: no answer within a minute", n, s.name)
		}
	default:
		t.Errorf("publish was answered neither 2xx nor 503: %v", err)
	}
	return err
}

// storedSince says when the last publish was stored, if that was since a moment.
func (s *source) storedSince(moment time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.storedAt.After(moment)
}

// figures are what publishers of one test saw together.
type figures struct {
	stored, refused, unreached int
	p99, slowest               time.Duration
}

// finish stops publishers and says what they saw.
func finish(t *testing.T, sources ...*source) (f figures) {
	t.Helper()
	var took []time.Duration
	for _, s := range sources {
		s.stop()
		s.running.Wait()
		f.stored, f.refused, f.unreached = f.stored+s.requests, f.refused+s.refused, f.unreached+s.unreached
		took = append(took, s.took...)
	}
	slices.Sort(took)
	f.p99, f.slowest = took[len(took)*99/100], took[len(took)-1]
	t.Logf("%d publishes were stored; %d tries were answered 503, %d not at all; p50 %d ms, p99 %d ms, the slowest answer %.2f s", f.stored, f.refused,
		f.unreached, took[len(took)/2].Milliseconds(), f.p99.Milliseconds(), f.slowest.Seconds())
	if f.slowest > answerMax {
		t.Errorf("a publish was answered after %s", f.slowest)
	}
	return f
}

// checkLog looks for what the road's publishers were answered: each event is
// there once, in its publisher's order, under the number that was told. It
// returns the head.
func (r *road) checkLog(sources ...*source) (head int) {
	r.t.Helper()
	by, seen := map[string]*source{}, map[string]int{}
	for _, s := range sources {
		if s.road == r {
			by[s.name] = s
		}
	}
	for after := int64(0); ; {
		var page struct {
			Events []struct {
				Sequence                        int64
				ResourceName, ResourceRecordKey string
			}
		}
		r.call(http.MethodGet, "/v1/feeds/"+r.name+"/events?limit=1000&after="+strconv.FormatInt(after, 10), nil, &page)
		for _, e := range page.Events {
			if e.Sequence != after+1 {
				r.t.Fatalf("%s: after event %d comes %d", r.name, after, e.Sequence)
			}
			after = e.Sequence
			s := by[e.ResourceName]
			if s == nil {
				continue
			}
			if seen[s.name]++; e.ResourceRecordKey != strconv.Itoa(seen[s.name]) {
				r.t.Fatalf("%s: event %s of %s stands as its %d. one", r.name, e.ResourceRecordKey, s.name, seen[s.name])
			}
			if n := seen[s.name]; n%s.batch == 0 && n/s.batch <= len(s.last) && s.last[n/s.batch-1] != e.Sequence {
				r.t.Errorf("%s: event %d of %s was answered as %d and stands as %d", r.name, n, s.name, s.last[n/s.batch-1], e.Sequence)
			}
		}
		if len(page.Events) == 0 {
			head = int(after)
			break
		}
	}
	for name, s := range by {
		if seen[name] != s.requests*s.batch {
			r.t.Errorf("%s: %d events of %s are there, %d were stored", r.name, seen[name], name, s.requests*s.batch)
		}
	}
	return head
}
