package api_test

import (
	"bufio"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postroad/api"
)

// TestStream_thousand: a thousand open streams take less than 200 MiB, their readers'
// share included, and cost one reading of the log.
//
//nolint:paralleltest // memory is the process's
func TestStream_thousand(t *testing.T) {
	const streams, publications, each = 1000, 20, 5
	registry := prometheus.NewRegistry()
	b := setup(t, options{api: func(c *api.Config) { c.Registry = registry }})
	registry.MustRegister(b.log.Collectors()...)
	b.publish(one("0")).want(201, nil)
	before := memoryUsed()
	readers := make([]func() int64, streams)
	for i := range readers {
		switch i % 4 {
		case 0:
			conn := b.dial(streamPath + "?after=1")
			readers[i] = func() int64 { return message(t, conn).Sequence }
		case 1:
			o := b.open(streamPath+"?after=1", "Accept-Encoding", "gzip")
			o.body = nil // its header comes with the first bytes
			readers[i] = func() int64 {
				if o.body == nil {
					o.body = bufio.NewReader(gunzipping(t, o.response.Body))
				}
				return o.must1().Sequence
			}
		default:
			o := b.open(fmt.Sprintf("%s?after=1&format=%s", streamPath, []string{"sse", "ndjson"}[i%2]))
			readers[i] = func() int64 { return o.must1().Sequence }
		}
	}
	b.awaitStreams(streams)
	tail, behind := b.metric(`postroad_log_reads_total{by="tail"}`), b.metric(`postroad_log_reads_total{by="behind"}`)
	// The second half of what is published finds streams that have sent before.
	for half := range int64(2) {
		for n := range publications / 2 {
			b.publishLines(lines(int(half)*1000+n*each, each)).want(201, nil)
		}
		var reading sync.WaitGroup
		for _, next := range readers {
			reading.Go(func() {
				for n := range int64(publications * each / 2) {
					if got, want := next(), 2+half*publications*each/2+n; got != want {
						t.Errorf("event %d, want %d", got, want)
						return
					}
				}
			})
		}
		reading.Wait()
	}
	used := memoryUsed()
	t.Logf("%d streams and their readers: %.0f MiB of %.0f MiB in all", streams, (used-before)/(1<<20), used/(1<<20))
	if used > 200<<20 {
		t.Errorf("the process uses %.0f MiB", used/(1<<20))
	}
	tail, behind = b.metric(`postroad_log_reads_total{by="tail"}`)-tail, b.metric(`postroad_log_reads_total{by="behind"}`)-behind
	t.Logf("%d publications were read by %.0f queries of the tail and %.0f of streams", publications, tail, behind)
	if tail > 3*publications || behind > 0 {
		t.Errorf("the log was read %.0f times by the tail and %.0f times by streams", tail, behind)
	}
}

// memoryUsed is what the process holds in heap and stacks, in bytes.
func memoryUsed() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}
