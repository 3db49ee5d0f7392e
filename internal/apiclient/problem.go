package apiclient

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Problem is a refusal (RFC 9457). Members the server did not send are zero.
type Problem struct {
	Type   string  `json:"type"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail"`
	Errors []Fault `json:"errors"`

	RequestID    string `json:"requestId"`
	Line         int64  `json:"line"`
	Accepted     *int64 `json:"accepted"`
	LastSequence *int64 `json:"lastSequence"`

	// RetryAfter is the header of that name.
	RetryAfter string `json:"-"`
	// Raw is the document as it came.
	Raw json.RawMessage `json:"-"`
}

// Fault names one thing that is wrong: by a JSON Pointer into the body, or by a
// parameter's or header's name.
type Fault struct {
	Pointer   *string `json:"pointer"`
	Parameter string  `json:"parameter"`
	Header    string  `json:"header"`
	Detail    string  `json:"detail"`
}

// Where names the place.
func (f Fault) Where() string {
	switch {
	case f.Pointer != nil && *f.Pointer != "":
		return *f.Pointer
	case f.Parameter != "":
		return f.Parameter
	case f.Header != "":
		return f.Header
	}
	return "body"
}

// Code is the last part of the problem's type, "" where the answer was none of
// ours.
func (p *Problem) Code() string {
	_, code, _ := strings.Cut(p.Type, "/problems/")
	return code
}

// Error says what is wrong in one line per fault, the first being the whole.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Status == http.StatusNotFound && len(p.Errors) == 1 {
		return p.Errors[0].Detail // it names what is not there
	}
	fmt.Fprintf(&b, "%s (%d", p.Title, p.Status)
	if code := p.Code(); code != "" {
		fmt.Fprintf(&b, " %s", code)
	}
	b.WriteByte(')')
	if p.Detail != "" && len(p.Errors) != 1 {
		b.WriteString(": " + p.Detail)
	}
	for _, fault := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", fault.Where(), fault.Detail)
	}
	if p.Line > 0 && p.Accepted != nil {
		fmt.Fprintf(&b, "\n  line %d is the first that was not taken; %d events before it were stored", p.Line, *p.Accepted)
	}
	if p.RetryAfter != "" {
		fmt.Fprintf(&b, "\n  try again in %s s", p.RetryAfter)
	}
	return b.String()
}

// problemOf reads a refusal. What is no problem document, a proxy's page say,
// becomes one.
func problemOf(response *http.Response, body []byte) *Problem {
	p := &Problem{}
	if json.Unmarshal(body, p) != nil || p.Title == "" {
		p = &Problem{Title: "the server answered " + response.Status}
		body, _ = json.Marshal(map[string]any{"title": p.Title, "status": response.StatusCode})
	}
	p.Status = response.StatusCode
	p.RetryAfter = response.Header.Get("Retry-After")
	p.Raw = body
	return p
}
