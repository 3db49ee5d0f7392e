package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/api/odata"
	"postroad/event"
	"postroad/eventlog"
)

// The resource EntityEvent (RCP-27) and the records that events speak of, as an
// OData service for each feed. Package odata knows what a request means; here it
// meets HTTP and the log.

const (
	odataPrefix = "/odata/"
	// entityPageUsual and entityPageMax are the events of a page, without a
	// preference and at most.
	entityPageUsual = 1000
	entityPageMax   = 5000
	// entityQueriesMax is how many queries run at once in a process: what strangers
	// ask for may take long, and must leave connections to the others.
	entityQueriesMax = 8
	// odataTokens is the purpose of the key that authenticates links to next pages.
	odataTokens = "odata page tokens"
)

// entityRequest is one request to the OData service of a feed.
type entityRequest struct {
	*odata.Request
	feed eventlog.Feed
	// root is the service root as the client called it, with a slash at its end.
	root string
}

// serveOData answers everything below the service root of a feed.
func (s *Server) serveOData(c *gin.Context) error {
	name, err := feedName(c)
	if err != nil {
		return err
	}
	feed, err := s.config.Log.Feed(c.Request.Context(), name)
	if err != nil {
		return feedError(name, err)
	}
	entity := odata.EntityEvent()
	parsed, err := odata.ParseRequest(entity, belowServiceRoot(c.Request.URL), c.Request.URL.RawQuery, c.Request.Header)
	if err != nil {
		return err
	}
	r := &entityRequest{parsed, feed, serviceRoot(c.Request, name)}
	switch r.Resource.Kind {
	case odata.ServiceRoot:
		return writeOData(c, r, odata.ServiceDocument(entity, r.root, r.Format))
	case odata.Metadata:
		return writeOData(c, r, odata.MetadataDocument(entity, r.Version))
	case odata.EntitySet:
		return s.listEntities(c, r)
	case odata.EntityCount:
		return s.countEntities(c, r)
	case odata.Entity:
		return s.getEntity(c, r)
	default:
		return s.getRecord(c, r)
	}
}

// belowServiceRoot is what follows the feed in a path, as it came.
func belowServiceRoot(u *url.URL) string {
	_, rest, found := strings.Cut(strings.TrimPrefix(u.EscapedPath(), odataPrefix), "/")
	if !found {
		return ""
	}
	return "/" + rest
}

// serviceRoot is the root of a feed's service under the name the client has for
// this host. A proxy in front that ends TLS says so, and leaves Host as it is. Both
// headers may be a client's invention: what is made of them is for that client
// alone, and no cache keeps it.
func serviceRoot(r *http.Request, feed string) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	// A host in the request line may have any bytes, and PostgreSQL is asked with it.
	return scheme + "://" + strings.ToValidUTF8(r.Host, "\uFFFD") + odataPrefix + feed + "/"
}

// isOData reports whether the answer to a request is OData's, refusals included.
func isOData(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, odataPrefix) }

// odataVersion is the version of a refusal.
func odataVersion(r *http.Request) odata.Version {
	version, err := odata.NegotiateVersion(r.Header)
	if err != nil {
		return odata.V401
	}
	return version
}

// odataHeaders are on every answer of the service (OData-Protocol 8.1.5, 8.3.8).
func odataHeaders(h http.Header, version odata.Version) {
	h.Set("OData-Version", string(version))
	h.Set("Vary", odata.Vary)
}

func writeOData(c *gin.Context, r *entityRequest, body []byte) error {
	odataHeaders(c.Writer.Header(), r.Version)
	write(c, http.StatusOK, r.Format.ContentType(), body)
	return nil
}

// odataRefusal is the body of an OData answer that is a problem elsewhere
// (OData-Protocol 9.4).
func odataRefusal(p *Problem) []byte {
	var code strings.Builder // not-found is NotFound here
	for word := range strings.SplitSeq(string(p.Code), "-") {
		code.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return odata.ErrorBody(p, code.String(), p.Detail)
}

// listEntities answers with a page of the entity set.
func (s *Server) listEntities(c *gin.Context, r *entityRequest) error {
	scope := fmt.Sprintf("%d/%d", r.feed.ID, r.feed.Epoch)
	page := odata.FirstPage(r.feed.Head, r.PageSize, entityPageUsual, entityPageMax)
	tokens, err := s.pages()
	if err != nil {
		return err
	}
	if r.Query.Token != "" {
		if page, err = tokens.Page(r.Query, scope); err != nil {
			return err
		}
	}
	q, err := r.query(page)
	if err != nil {
		return err
	}
	found, more, total, err := s.readEntities(c, q)
	if err != nil {
		return err
	}
	if q.Count {
		page.Total = total
	}
	link := ""
	if more {
		last := r.row(&found[len(found)-1])
		if next, ok := page.Next(r.Query, len(found), r.Query.Order.Values(last)); ok {
			link = r.Query.NextLink(r.root, odata.EntityEvent(), tokens.Make(r.Query, scope, next))
		}
	}
	render := r.renderer()
	body := render.AppendHead(make([]byte, 0, 512+len(found)*400), page.Total)
	for i := range found {
		body = render.AppendRow(body, r.row(&found[i]), i == 0)
	}
	if r.PageSize > 0 && page.Size == r.PageSize {
		c.Header("Preference-Applied", odata.PreferenceApplied(r.Version, page.Size))
	}
	return writeOData(c, r, render.AppendTail(body, link))
}

// query is the query for a page.
func (r *entityRequest) query(page odata.Page) (eventlog.EntityQuery, error) {
	q := eventlog.EntityQuery{
		Feed: r.feed.ID, First: r.feed.FloorSequence + 1, Last: page.Head,
		// Not every query speaks of $1, and each argument must have a type.
		Where: "$1::text IS NOT NULL", Args: []any{r.root}, Limit: page.Limit(r.Query), Count: r.Query.Count && page.Last == nil,
	}
	columns := odata.Columns{
		odata.Sequence:          "e.sequence",
		odata.ResourceName:      "e.resource_name",
		odata.ResourceRecordKey: "e.resource_key",
		odata.ResourceRecordURL: odata.RecordURLColumn("e.resource_url", "$1::text", "e.resource_name", "e.resource_key"),
		odata.EventType:         "e.event_type",
		odata.FeedTypes:         "(ARRAY(SELECT jsonb_array_elements_text(e.extras::jsonb -> 'feedTypes')))",
		odata.Timestamp:         "e.recorded_at",
	}
	var err error
	if f := r.Query.Filter; f != nil {
		condition, err := f.Where(columns, &q.Args)
		if err != nil {
			return q, err
		}
		q.Where += " AND " + condition
		bounds := f.Bounds(odata.Sequence)
		q.First, q.Last = max(q.First, bounds.First), min(q.Last, bounds.Last)
		q.Record, _ = f.Required(odata.ResourceRecordKey)
	}
	if q.Order, err = r.Query.Order.SQL(columns); err != nil {
		return q, err
	}
	if page.Last == nil {
		q.Skip = r.Query.Skip
		return q, nil
	}
	q.After, err = r.Query.Order.After(columns, page.Last, &q.Args)
	return q, err
}

// readEntities asks the log when it is its turn.
func (s *Server) readEntities(c *gin.Context, q eventlog.EntityQuery) (found []event.Event, more bool, total int64, err error) {
	ctx := c.Request.Context()
	// Whoever waits must have time for a query left.
	waiting, cancel := context.WithTimeout(ctx, s.config.DatabaseMax-s.config.EntityQueryMax)
	defer cancel()
	if err := s.entityQueries.Acquire(waiting, 1); err != nil {
		if ctx.Err() != nil {
			return nil, false, 0, err // the client went away
		}
		return nil, false, 0, &Problem{Code: CodeBusy, RetryAfter: time.Second, Detail: "Too many queries are under way. Try again later.", cause: err}
	}
	defer s.entityQueries.Release(1)
	q.Max = s.config.EntityQueryMax
	return s.config.Log.EntityEvents(ctx, q)
}

// countEntities answers with a number alone (OData-Protocol 11.2.10).
func (s *Server) countEntities(c *gin.Context, r *entityRequest) error {
	q, err := r.query(odata.FirstPage(r.feed.Head, 0, 1, 1))
	if err != nil {
		return err
	}
	q.Count, q.Limit = true, 0
	_, _, total, err := s.readEntities(c, q)
	if err != nil {
		return err
	}
	return writeOData(c, r, strconv.AppendInt(nil, total, 10))
}

func (s *Server) getEntity(c *gin.Context, r *entityRequest) error {
	q := eventlog.EntityQuery{
		Feed: r.feed.ID, First: max(r.feed.FloorSequence+1, r.Resource.Key), Last: r.Resource.Key, Order: "e.sequence", Limit: 1,
	}
	found, _, _, err := s.readEntities(c, q)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return notFound("key", fmt.Sprintf("No EntityEvent has the key %d, or it is no longer kept", r.Resource.Key))
	}
	render := r.renderer()
	return writeOData(c, r, render.AppendEntity(nil, r.row(&found[0])))
}

func (r *entityRequest) renderer() odata.Renderer {
	return odata.Renderer{Type: odata.EntityEvent(), Root: r.root, Format: r.Format, Select: r.Query.Select}
}

// row is an event as an entity. Without a URL of its own, its record is served
// here.
func (r *entityRequest) row(e *event.Event) odata.Row {
	return odata.EventRow(e, r.root+odata.RecordPath(e.ResourceName, e.ResourceRecordKey))
}
