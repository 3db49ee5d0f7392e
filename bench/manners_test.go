package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/apiclient"
)

// TestWall: two of three requests are refused, and one that comes too early is
// noticed, before the gate is open and after.
func TestWall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		receiver := NewReceiver()
		ask := func() int {
			recorder := httptest.NewRecorder()
			request := httptest.NewRequest(http.MethodPost, "/in/w/0?gate=g&wall=2", strings.NewReader("body"))
			request.Header.Set(headerSequence, "1")
			receiver.ServeHTTP(recorder, request)
			if after := recorder.Header().Get("Retry-After"); (recorder.Code == http.StatusTooManyRequests) != (after == "2") {
				t.Errorf("answered %d, Retry-After %q", recorder.Code, after)
			}
			return recorder.Code
		}
		for i, step := range []struct {
			wait  time.Duration
			code  int
			early int64
		}{
			{0, 429, 0}, {2 * time.Second, 429, 0}, {2 * time.Second, 204, 0}, {0, 429, 0}, {1999 * time.Millisecond, 429, 1},
		} {
			<-time.After(step.wait)
			if code := ask(); code != step.code || receiver.lane("w/0").read().Early != step.early {
				t.Errorf("request %d answered %d, book %+v, want %+v", i, code, receiver.lane("w/0").read(), step)
			}
		}
		receiver.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/gate/g", nil))
		if code := ask(); code != http.StatusNoContent {
			t.Errorf("answered %d with the gate open", code)
		}
		if got := receiver.lane("w/0").read(); got.Refused != 4 || got.Requests != 2 || got.Early != 2 {
			t.Errorf("book %+v", got)
		}
	})
}

// TestSlowUntilTheGate: the answer comes after the delay, or when the gate opens.
func TestSlowUntilTheGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		receiver := NewReceiver()
		took := func() time.Duration {
			started, recorder := time.Now(), httptest.NewRecorder()
			receiver.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/in/s/0?gate=g&delay=5s", strings.NewReader("body")))
			if recorder.Code != http.StatusNoContent {
				t.Errorf("answered %d", recorder.Code)
			}
			return time.Since(started)
		}
		if got := took(); got != 5*time.Second {
			t.Errorf("it took %s", got)
		}
		time.AfterFunc(2*time.Second, func() {
			receiver.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/gate/g", nil))
		})
		if got := took(); got != 2*time.Second {
			t.Errorf("it took %s, though the gate was opened", got)
		}
		if got := took(); got != 0 {
			t.Errorf("it took %s with the gate open", got)
		}
	})
}

// TestDrips: the body, or the headers, come bit by bit and do not end by
// themselves.
func TestDrips(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(NewReceiver())
	t.Cleanup(server.Close)
	open := func(gate string) {
		if _, err := (&apiclient.Client{URL: server.URL}).Do(t.Context(), apiclient.Request{Method: http.MethodPost, Path: "/gate/" + gate}, nil); err != nil {
			t.Error(err)
		}
	}
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		response, err := http.Post(server.URL+"/in/d/0?gate=body&drip=body", "application/json", strings.NewReader("x"))
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("answered %v, %v", response, err)
		}
		defer response.Body.Close()
		some := make([]byte, 3)
		if _, err := io.ReadFull(response.Body, some); err != nil || string(some) != "..." {
			t.Fatalf("read %q, %v", some, err)
		}
		open("body")
		if _, err := io.ReadAll(response.Body); err != nil {
			t.Errorf("the body did not end in order: %v", err)
		}
	})
	t.Run("headers", func(t *testing.T) {
		t.Parallel()
		opened := make(chan struct{})
		time.AfterFunc(200*time.Millisecond, func() {
			defer close(opened)
			open("headers")
		})
		response, err := http.Post(server.URL+"/in/d/1?gate=headers&drip=headers", "application/json", strings.NewReader("x"))
		if err == nil {
			t.Errorf("answered %s", response.Status)
			response.Body.Close()
		}
		<-opened
	})
}

// TestLatencies: what says when it was sent is timed, and read once.
func TestLatencies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		receiver := NewReceiver()
		for i := range 100 {
			event := fmt.Sprintf(`{"sentAt":%d,"fill":""}`, time.Now().UnixNano())
			if i == 50 {
				event = string(eventData(1))
			}
			<-time.After(time.Duration(i) * time.Millisecond)
			receiver.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, fmt.Sprintf("/in/t/%d?timed=1", i%2), strings.NewReader(event)))
		}
		recorder := httptest.NewRecorder()
		receiver.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/latencies/t/0/2", nil))
		var got latencies
		decode(t, recorder, &got)
		if len(got) != 99 || got.at(99) != 99 || got.at(50) != 49 || got.at(0) != 0 || got.at(100) != 99 {
			t.Errorf("%d latencies, p99 %g, p50 %g", len(got), got.at(99), got.at(50))
		}
		recorder = httptest.NewRecorder()
		receiver.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/latencies/t/0/2", nil))
		if decode(t, recorder, &got); len(got) != 0 || got.at(99) != 0 {
			t.Errorf("%d latencies the second time", len(got))
		}
	})
	if event := timedEvent(1); !strings.Contains(event, `"data":{"sentAt":`) {
		t.Errorf("event %s", event)
	}
}

func decode(t *testing.T, recorder *httptest.ResponseRecorder, out any) {
	t.Helper()
	if err := json.Unmarshal(recorder.Body.Bytes(), out); err != nil {
		t.Fatal(err)
	}
}
