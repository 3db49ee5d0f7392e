package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
)

const (
	contentTypeNDJSON = "application/x-ndjson"
	// feedLookupMax bounds the one look-up before the events are taken.
	feedLookupMax = 4 * time.Second
)

// publish takes events: one, an array, or a stream of lines.
func (s *Server) publish(c *gin.Context) error {
	began := time.Now()
	p := publication{server: s, trace: s.beginTrace(c.Request)}
	err := p.take(c)
	p.trace.end(c.Writer.Status(), err)
	if err == nil {
		p.logPublished(c.Request.Context(), c.Request.ContentLength, grantOf(c).tokenID(), time.Since(began))
	}
	return err
}

func (p *publication) take(c *gin.Context) error {
	values, err := query(c, "sequences")
	if err != nil {
		return err
	}
	if p.withSequences, err = flag(values, "sequences"); err != nil {
		return err
	}
	if p.name, err = feedName(c); err != nil {
		return err
	}
	if p.name == event.SystemFeed {
		return &Problem{
			Code: CodeMethodNotAllowed, Header: map[string]string{"Allow": http.MethodGet},
			Detail: "Only Postroad itself publishes to the feed " + event.SystemFeed + ".",
		}
	}
	if p.key, err = idempotencyKey(c.Request); err != nil {
		return err
	}
	media, err := mediaType(c.Request)
	if err != nil {
		return err
	}
	switch media {
	case contentTypeJSON:
		return p.whole(c)
	case contentTypeNDJSON:
		return p.stream(c)
	}
	problem := unsupportedMedia("must be " + contentTypeJSON + " or " + contentTypeNDJSON)
	problem.Header = map[string]string{"Accept-Post": contentTypeJSON + ", " + contentTypeNDJSON}
	return problem
}

// publication is one request to publish.
type publication struct {
	server *Server
	name   string
	// key is the Idempotency-Key header; "": none.
	key           string
	withSequences bool
	trace         publishTrace
	published     published
}

// feed looks the feed up; cached reports that it may be out of date.
func (p *publication) feed(ctx context.Context) (feed eventlog.Feed, cached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, feedLookupMax)
	defer cancel()
	feed, cached, err = p.server.feeds.get(ctx, p.server.config.Publishing, p.name)
	if err == nil && feed.Source != nil {
		return feed, cached, &Problem{Code: CodeHasSource, Detail: "Only the feed's source publishes to it. Remove source from the feed first."}
	}
	return feed, cached, feedError(p.name, err)
}

// whole takes a body that is one event or an array: all or nothing.
func (p *publication) whole(c *gin.Context) error {
	reader, err := p.server.openBody(c)
	if err != nil {
		return err
	}
	text, release, err := readWhole(reader, c.Request.ContentLength, publishBytesMax, p.server.uploads)
	if err != nil {
		return err
	}
	defer release()
	result, err := p.storeWhole(c.Request.Context(), text)
	if err != nil {
		return err
	}
	p.server.metrics.stored.Add(float64(result.Accepted))
	p.server.metrics.repeated.Add(float64(result.Duplicates))
	p.answer(c, published{
		first: result.First, last: result.Last, accepted: int64(result.Accepted), duplicates: int64(result.Duplicates), sequences: result.Sequences,
	})
	return nil
}

// storeWhole decodes and appends. Where the feed was remembered and turns out
// to have been deleted or made again, it looks and tries once more: nothing
// was stored then.
func (p *publication) storeWhole(ctx context.Context, text []byte) (eventlog.Result, error) {
	for {
		feed, cached, err := p.feed(ctx)
		if err != nil {
			return eventlog.Result{}, err
		}
		result, err := p.try(ctx, feed, text)
		if err == nil || !cached || !feedMayHaveChanged(err) {
			return result, err
		}
		p.server.feeds.forget(p.name)
	}
}

// feedMayHaveChanged reports an error that another state of the feed could
// explain: whether sequences are wanted is the feed's affair.
func feedMayHaveChanged(err error) bool {
	var faults event.FieldErrors
	return errors.Is(err, eventlog.ErrFeedChanged) || errors.Is(err, eventlog.ErrNotFound) || errors.As(err, &faults)
}

func (p *publication) try(ctx context.Context, feed eventlog.Feed, text []byte) (eventlog.Result, error) {
	decoder, _ := p.server.decoders.Get().(*eventDecoder)
	events, err := decoder.decodeBody(text, feed.Sequences == eventlog.SequencesSupplied)
	single := decoder.single
	decoder.reset(nil, false) // the pool must not hold the body
	p.server.decoders.Put(decoder)
	if err != nil {
		return eventlog.Result{}, err
	}
	place := func(i int) string {
		if single {
			return ""
		}
		return "/" + strconv.Itoa(i)
	}
	for i := range events {
		if err := p.setKey(&events[i], int64(i), place); err != nil {
			return eventlog.Result{}, err
		}
	}
	result, err := p.trace.append(ctx, p.server.config.Publishing, feed, events)
	if conflict := (*eventlog.ConflictError)(nil); errors.As(err, &conflict) {
		return result, conflictProblem(conflict, place(conflict.Index))
	}
	return result, feedError(p.name, err)
}

// setKey gives the i-th event of the request its key from the header.
func (p *publication) setKey(ev *event.Event, i int64, place func(int) string) error {
	if p.key == "" {
		return nil
	}
	if ev.IdempotencyKey != "" {
		return invalidAt(place(int(i))+"/idempotencyKey", "must not be given together with the header Idempotency-Key")
	}
	ev.IdempotencyKey = p.key + "/" + strconv.FormatInt(i, 10)
	if len(ev.IdempotencyKey) > event.NameCharactersMax {
		return invalidHeader("Idempotency-Key", fmt.Sprintf("must not be longer than %d bytes together with the suffix of each event, as in /%d", event.NameCharactersMax, i))
	}
	return nil
}

// published is what became of a publication.
type published struct {
	first, last          int64
	accepted, duplicates int64
	sequences            []int64
}

func (p *publication) answer(c *gin.Context, r published) {
	p.published = r
	status := http.StatusCreated
	if r.accepted == 0 {
		status = http.StatusOK // all of it was there before
	}
	const fixed, perSequence = 128, 12
	b := make([]byte, 0, fixed)
	if r.duplicates == 0 && !p.withSequences {
		r.sequences = nil
	} else {
		b = make([]byte, 0, fixed+perSequence*len(r.sequences))
	}
	b = strconv.AppendInt(append(b, `{"firstSequence":`...), r.first, 10)
	b = strconv.AppendInt(append(b, `,"lastSequence":`...), r.last, 10)
	b = strconv.AppendInt(append(b, `,"accepted":`...), r.accepted, 10)
	b = strconv.AppendInt(append(b, `,"duplicates":`...), r.duplicates, 10)
	for i, sequence := range r.sequences {
		if i == 0 {
			b = append(b, `,"sequences":[`...)
		} else {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, sequence, 10)
	}
	if len(r.sequences) > 0 {
		b = append(b, ']')
	}
	write(c, status, contentTypeJSON, append(b, '}', '\n'))
}

// idempotencyKey reads the header Idempotency-Key: a quoted string as the
// draft standard has it, or the bare word that many clients send. Printable
// ASCII without a space outside of quotes.
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	const detail = `must be one string of printable ASCII, quoted or bare, of 1-255 bytes`
	if len(values) > 1 {
		return "", invalidHeader("Idempotency-Key", detail)
	}
	key, ok := unquoteHeader(values[0])
	if !ok || key == "" || len(key) > event.NameCharactersMax {
		return "", invalidHeader("Idempotency-Key", detail)
	}
	return key, nil
}

// unquoteHeader reads a string of RFC 8941 §3.3.3, or a bare word.
func unquoteHeader(s string) (string, bool) {
	quoted := len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"'
	if quoted {
		s = s[1 : len(s)-1]
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch > '~' || ch < ' ' || ch == ' ' && !quoted || ch == '"' || ch == ',' && !quoted:
			return "", false
		case ch == '\\' && quoted:
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			b = append(b, s[i])
		default:
			b = append(b, ch)
		}
	}
	return string(b), true
}
