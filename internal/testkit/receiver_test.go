package testkit_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postroad/internal/testkit"
)

const waitMax = 20 * time.Second

func post(ctx context.Context, client *http.Client, url, body string) (status int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func TestReceiver(t *testing.T) {
	t.Parallel()

	t.Run("records requests and answers by script", func(t *testing.T) {
		t.Parallel()
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{TLS: true, Script: func(n int, r *testkit.Request) testkit.Answer {
			if n == 2 {
				return testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "again: " + string(r.Body)}
			}
			return testkit.Answer{}
		}})
		for i, want := range []struct {
			status int
			body   string
		}{{200, ""}, {429, "again: b"}, {200, ""}} {
			status, body, err := post(t.Context(), r.Client(), r.URL()+"/in?x=1", string(rune('a'+i)))
			if err != nil || status != want.status || body != want.body {
				t.Errorf("request %d: %d %q %v, want %+v", i+1, status, body, err, want)
			}
		}
		got := r.WaitAnswered(t, 3, waitMax)
		second := got[1]
		if second.N != 2 || second.Method != "POST" || second.Path != "/in?x=1" || string(second.Body) != "b" || second.Took == 0 {
			t.Errorf("recorded %+v", second)
		}
		if got[0].Remote != got[2].Remote {
			t.Error("the connection was not reused")
		}
	})

	t.Run("breaks connections", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			answer testkit.Answer
			want   func(status int, err error) bool
		}{
			"drop":  {testkit.Answer{Drop: true}, func(_ int, err error) bool { return errors.Is(err, io.EOF) }},
			"reset": {testkit.Answer{Reset: true}, func(_ int, err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
			"cut": {testkit.Answer{DropAfterHeaders: true, Body: "ab"}, func(status int, err error) bool {
				return status == 200 && errors.Is(err, io.ErrUnexpectedEOF)
			}},
			"raw": {testkit.Answer{Raw: "HTTP/9 what\r\n\r\n"}, func(status int, err error) bool { return status == 0 && err != nil }},
		} {
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return c.answer }})
			if status, _, err := post(t.Context(), r.Client(), r.URL(), ""); !c.want(status, err) {
				t.Errorf("%s: status %d, error %v", name, status, err)
			}
			r.WaitAnswered(t, 1, waitMax)
		}
	})

	t.Run("holds answers and counts what is in flight", func(t *testing.T) {
		t.Parallel()
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
			return testkit.Answer{Hang: testkit.Forever}
		}})
		var clients sync.WaitGroup
		for range 3 {
			clients.Go(func() {
				if status, _, err := post(t.Context(), r.Client(), r.URL(), ""); status != 200 {
					t.Errorf("status %d, error %v", status, err)
				}
			})
		}
		r.WaitFor(t, 3, waitMax)
		if n := r.InFlight(); n != 3 {
			t.Errorf("%d in flight, want 3", n)
		}
		r.Release()
		clients.Wait()
		r.WaitAnswered(t, 3, waitMax)
		if n, most := r.InFlight(), r.MaxInFlight(); n != 0 || most != 3 {
			t.Errorf("%d in flight and %d at most, want 0 and 3", n, most)
		}
	})

	t.Run("notices a client that goes away", func(t *testing.T) {
		t.Parallel()
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
			return testkit.Answer{Hang: testkit.Forever}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, _, err := post(ctx, r.Client(), r.URL(), "")
			failed <- err
		}()
		r.WaitFor(t, 1, waitMax)
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		r.WaitAnswered(t, 1, waitMax)
	})
}

func BenchmarkReceiver(b *testing.B) {
	r := testkit.NewReceiver(b, testkit.ReceiverOptions{})
	for b.Loop() {
		if status, _, err := post(b.Context(), r.Client(), r.URL(), "body"); status != 200 {
			b.Fatal(status, err)
		}
	}
}
