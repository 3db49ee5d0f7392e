package delivery

import (
	"errors"
	"fmt"
	"net/http"
)

// Outbound makes requests that are no deliveries under the same guard: to the
// servers that feeds follow. It follows no redirect and bounds nothing but the
// connection's making; the request's context and the reader of the answer do.
type Outbound struct{ client *Client }

// Outbound returns the way to servers that are no consumers.
func (c *Client) Outbound() Outbound { return Outbound{c} }

// Do makes a request. A refusal's text does not tell the address that was
// refused.
func (o Outbound) Do(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" && !o.client.guard.allowsPlain(request.URL) {
		return nil, refuse("plain http is not allowed on this server")
	}
	response, err := o.client.transport.RoundTrip(request)
	if blocked := (*BlockedError)(nil); errors.As(err, &blocked) {
		return nil, fmt.Errorf("connect: %w", blocked) // net/http's text names the address
	}
	return response, err
}
