package delivery_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"postroad/delivery"
	"postroad/internal/testkit"
)

// TestOutbound: requests that are no deliveries pass the same guard, follow no
// redirect, and a refusal does not tell the address.
func TestOutbound(t *testing.T) {
	t.Parallel()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
		return testkit.Answer{Status: 302, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}}
	}})
	get := func(t *testing.T, guard delivery.GuardConfig, address string) (int, error) {
		t.Helper()
		c := newTestClient(t, func(cfg *delivery.Config) { cfg.Guard = guard })
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := c.Outbound().Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		return response.StatusCode, nil
	}
	if status, err := get(t, delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}, receiver.URL()); status != 302 || err != nil {
		t.Errorf("where it may: %d, %v", status, err)
	}
	local := netip.MustParsePrefix("127.0.0.0/8")
	for name, guard := range map[string]delivery.GuardConfig{
		"address": {AllowHTTP: true},
		"no TLS":  {AllowedPrefixes: []netip.Prefix{local}},
	} {
		_, err := get(t, guard, receiver.URL())
		var blocked *delivery.BlockedError
		if !errors.As(err, &blocked) || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := receiver.Count(); n != 1 {
		t.Errorf("%d requests arrived, want the one that may", n)
	}
}
