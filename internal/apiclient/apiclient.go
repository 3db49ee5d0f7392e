// Package apiclient speaks Postroad's HTTP API for the command line and the
// benchmark: requests with the token, answers as JSON, refusals as errors that
// keep the server's problem document.
//
// It knows the protocol and no resource: what a route takes and gives is its
// caller's.
package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// answerBytesMax bounds the answers read into memory; a page of events has at
// most 4 MiB of them.
const answerBytesMax = 64 << 20

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	// URL is the server's, without a slash at the end.
	URL string
	// Token is sent as a bearer token; empty: none.
	Token string
	// HTTP does the requests; nil: a client without a timeout of its own, so
	// that calls are bounded by their context.
	HTTP *http.Client
	// UserAgent names the program.
	UserAgent string
}

// Request is one call. Body is sent as it is; In, where set, is encoded.
type Request struct {
	Method string
	// Path begins with a slash, with its query.
	Path string
	// In is sent as JSON.
	In any
	// Body and ContentType are sent in its place.
	Body        io.Reader
	ContentType string
	Header      http.Header
}

// Answer is a 2xx answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// UnreachableError says that no answer came.
type UnreachableError struct {
	URL string
	Err error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach Postroad at %s: %v", e.URL, e.Err)
}

// Unwrap returns the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Do makes a request and returns its answer if that is a 2xx, a *Problem if it
// is another one, and an *UnreachableError if there is none. out, unless nil,
// takes the answer's JSON.
func (c *Client) Do(ctx context.Context, r Request, out any) (*Answer, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, &UnreachableError{URL: c.URL, Err: fmt.Errorf("read answer: %w", err)}
	}
	answer := &Answer{Status: response.StatusCode, Header: response.Header, Body: body}
	if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			return nil, fmt.Errorf("read the answer of %s %s: %w", r.Method, r.Path, err)
		}
	}
	return answer, nil
}

// Open makes a request and returns the body of its answer, to be read as it comes
// and closed. Errors: those of Do.
func (c *Client) Open(ctx context.Context, r Request) (io.ReadCloser, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// send returns a 2xx answer, with its body still to be read.
func (c *Client) send(ctx context.Context, r Request) (*http.Response, error) {
	request, err := c.build(ctx, r)
	if err != nil {
		return nil, err
	}
	client := c.HTTP
	if client == nil {
		client = defaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, &UnreachableError{URL: c.URL, Err: unwrapURL(err)}
	}
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return response, nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, &UnreachableError{URL: c.URL, Err: fmt.Errorf("read answer: %w", err)}
	}
	return nil, problemOf(response, body)
}

// defaultClient never follows a redirect: the token is for the server named.
var defaultClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (c *Client) build(ctx context.Context, r Request) (*http.Request, error) {
	body, contentType := r.Body, r.ContentType
	if r.In != nil {
		text, err := json.Marshal(r.In)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
		if contentType == "" {
			contentType = "application/json"
		}
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, c.URL+r.Path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range r.Header {
		request.Header[name] = values
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.UserAgent != "" {
		request.Header.Set("User-Agent", c.UserAgent)
	}
	return request, nil
}

// unwrapURL drops net/http's repetition of method and URL.
func unwrapURL(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		return outer.Err
	}
	return err
}
