package odata

import "net/http"

// Request is all that a GET or HEAD below the service root asks for.
type Request struct {
	// Version is that of the answer, of refusals too.
	Version  Version
	Resource Resource
	Query    *Query
	Format   Format
	// PageSize is the page size the client prefers; 0: none.
	PageSize int64
}

// ParseRequest reads a request: the part of the path below the service root and
// the query as they came, with their percent-encoding, and the headers. The
// request is never nil; with an error (*Error) only its version counts.
func ParseRequest(t *EntityType, rawPath, rawQuery string, h http.Header) (*Request, error) {
	r := &Request{Version: V401, PageSize: PageSize(h.Values("Prefer"))}
	version, err := NegotiateVersion(h)
	if err != nil {
		return r, err
	}
	r.Version = version
	if r.Resource, err = ParsePath(t, rawPath); err != nil {
		return r, err
	}
	if r.Query, err = ParseQuery(t, r.Resource.Kind, rawQuery); err != nil {
		return r, err
	}
	r.Format, err = NegotiateFormat(r.Resource.Kind, r.Query.Format, h.Values("Accept"))
	return r, err
}
