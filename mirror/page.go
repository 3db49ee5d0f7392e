package mirror

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"postroad/event"
)

// page is one answer of the source.
type page struct {
	events []event.Event
	// next is the nextLink as it came; "": there is none.
	next string
}

// errOversized is an answer beyond the bound.
var errOversized = errors.New("the answer is too large")

// fetch reads one page. A 401 gets one more try where a new access token may
// help.
func (m *Mirror) fetch(ctx context.Context, address string) (page, error) {
	p, err := m.fetchOnce(ctx, address)
	var fault *Fault
	if errors.As(err, &fault) && fault.Status == http.StatusUnauthorized && m.auth.rejected() {
		return m.fetchOnce(ctx, address)
	}
	return p, err
}

func (m *Mirror) fetchOnce(ctx context.Context, address string) (page, error) {
	limited, cancel := context.WithTimeout(ctx, m.config.RequestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, address, nil)
	if err != nil {
		return page{}, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Accept-Encoding", "gzip")
	request.Header.Set("User-Agent", m.config.UserAgent)
	request.Header.Set("Prefer", "odata.maxpagesize="+strconv.Itoa(m.config.PageSize))
	if err := m.auth.authorize(ctx, request); err != nil {
		return page{}, err
	}
	response, err := m.config.HTTP.Do(request)
	if err != nil {
		return page{}, unreachable(ctx, address, "no answer", err)
	}
	defer response.Body.Close()
	body, err := m.readBody(response)
	switch {
	case errors.Is(err, errOversized):
		return page{}, &Fault{URL: address, Reason: fmt.Sprintf("the answer has more than %d bytes: ask for smaller pages", m.config.PageBytes)}
	case err != nil:
		return page{}, unreachable(ctx, address, "the answer was cut", err)
	case response.StatusCode != http.StatusOK:
		return page{}, m.config.refused(address, response, body, time.Now())
	}
	return decodePage(address, body)
}

func (m *Mirror) readBody(response *http.Response) ([]byte, error) {
	var reader io.Reader = response.Body
	if response.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(reader)
		if err != nil {
			return nil, err
		}
		reader = unzipped
	}
	body, err := io.ReadAll(io.LimitReader(reader, m.config.PageBytes+1))
	if err == nil && int64(len(body)) > m.config.PageBytes {
		err = errOversized
	}
	return body, err
}

// decodePage reads an answer as a whole: one that was cut off, or has a record
// that is none, gives nothing.
func decodePage(address string, body []byte) (page, error) {
	var document struct {
		Value *[]json.RawMessage `json:"value"`
		Next  string             `json:"@odata.nextLink"`
		Next2 string             `json:"@nextLink"` // OData 4.01
	}
	if err := json.Unmarshal(body, &document); err != nil {
		fault := &Fault{URL: address, Reason: "the answer is no OData document: " + err.Error() + " in " + excerpt(body)}
		if !json.Valid(body) {
			// A proxy's page, or a body that ended early without a word.
			return page{}, &TemporaryError{Err: fault}
		}
		return page{}, fault
	}
	if document.Value == nil {
		return page{}, &Fault{URL: address, Reason: "the answer has no value array: " + excerpt(body)}
	}
	p := page{next: document.Next}
	if p.next == "" {
		p.next = document.Next2
	}
	for i, text := range *document.Value {
		e, err := decodeRecord(text)
		if err != nil {
			return page{}, &Fault{URL: address, Record: place(i, e.Sequence), Reason: err.Error()}
		}
		p.events = append(p.events, e)
	}
	return p, nil
}

// place names a record of a page.
func place(i int, sequence int64) string {
	if sequence == 0 {
		return fmt.Sprintf("value[%d]", i)
	}
	return fmt.Sprintf("value[%d] (EntityEventSequence %d)", i, sequence)
}

// plain drops net/http's repetition of method and URL.
func plain(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		return outer.Err
	}
	return err
}
