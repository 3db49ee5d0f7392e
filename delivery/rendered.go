package delivery

import (
	"slices"
	"time"
)

// Rendered is a request as Client.Do would make it, without where it goes.
type Rendered struct {
	// Header has a value for each name, in the form net/http keeps them.
	Header map[string]string
	Body   []byte
}

// Render renders and signs a request without making it. Its headers are all that
// the target was made with: whoever shows them to others makes it without what
// they must not see.
func (t *Target) Render(r Request) Rendered {
	x, ok := t.exchanges.Get().(*exchange)
	if !ok {
		x = newExchange(t)
	}
	defer t.exchanges.Put(x) // net/http has never seen it
	x.prepare(r, time.Now())
	x.fillHeader()
	rendered := Rendered{Header: make(map[string]string, len(x.request.Header)), Body: slices.Clone(x.body)}
	for name, values := range x.request.Header {
		rendered.Header[name] = values[0]
	}
	return rendered
}
