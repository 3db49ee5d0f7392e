package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Rate is how fast a stream of requests went.
type Rate struct {
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
	// PerSecond is Requests over Seconds.
	PerSecond float64 `json:"perSecond"`
	// CPUSecondsPer1000 is the CPU time per 1,000 requests of everything that
	// sent them; 0: not measured on this system.
	CPUSecondsPer1000 float64 `json:"cpuSecondsPer1000,omitempty"`
}

func rateOf(requests int, seconds float64, cpu time.Duration) Rate {
	r := Rate{Requests: requests, Seconds: seconds}
	if seconds > 0 {
		r.PerSecond = float64(requests) / seconds
	}
	if requests > 0 {
		r.CPUSecondsPer1000 = cpu.Seconds() * 1000 / float64(requests)
	}
	return r
}

// floor sends the bodies of the first n events in one loop over one keep-alive
// connection: what any sender in order would have to do at least.
func floor(ctx context.Context, url string, n int) (Rate, error) {
	bodies := make([][]byte, min(n, floorBodiesMax))
	for i := range bodies {
		bodies[i] = eventData(i)
	}
	rate, err := loop(ctx, url, n, bodies)
	if err != nil {
		return Rate{}, fmt.Errorf("measure the floor: %w", err)
	}
	return rate, nil
}

// loop sends n requests with these bodies, from the first again where they are
// fewer, one after the other over one connection.
func loop(ctx context.Context, url string, n int, bodies [][]byte) (Rate, error) {
	transport := &http.Transport{MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	cpu, started := ownCPU(), time.Now()
	for i := range n {
		if err := post(ctx, client, url, int64(i+1), bodies[i%len(bodies)]); err != nil {
			return Rate{}, err
		}
	}
	return rateOf(n, time.Since(started).Seconds(), ownCPU()-cpu), nil
}

// floorBodiesMax bounds the bodies made before the clock starts.
const floorBodiesMax = 20_000

func post(ctx context.Context, client *http.Client, url string, sequence int64, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header["Content-Type"] = []string{"application/json"}
	request.Header[headerSequence] = []string{strconv.FormatInt(sequence, 10)}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the receiver answered %s", response.Status)
	}
	return nil
}
