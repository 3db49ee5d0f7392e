package api

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/semaphore"

	"postroad/event"
)

const (
	// publishBytesMax bounds a body that is one event or an array, after
	// decompression.
	publishBytesMax = 64 << 20
	// documentBytesMax bounds every other body.
	documentBytesMax = 1 << 20
	// freeBodyBytes of a body count towards no limit on memory.
	freeBodyBytes = 64 << 10
	// uploadBytesDefault bounds the bodies held in memory at once.
	uploadBytesDefault = 256 << 20
)

// errUploadCut is a body that ended early: the connection was lost, or nothing
// came for too long, or gzip stopped in the middle.
var errUploadCut = errors.New("api: upload cut")

// bodyReader reads a request's body with a deadline for each read, and tells
// the faults of the connection from the end of the body.
type bodyReader struct {
	body    io.Reader
	control *http.ResponseController
	idle    time.Duration // between two reads
	done    bool
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.done {
		return 0, io.EOF
	}
	_ = r.control.SetReadDeadline(time.Now().Add(r.idle))
	n, err := r.body.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		// What runs on from here, a long poll or a commit, is not reading.
		r.done = true
		_ = r.control.SetReadDeadline(time.Time{})
		return n, io.EOF
	}
	return n, fmt.Errorf("%w: %w", errUploadCut, err)
}

// gunzip tells what is wrong with a compressed body.
type gunzip struct{ reader *gzip.Reader }

func (g gunzip) Read(p []byte) (int, error) {
	n, err := g.reader.Read(p)
	return n, gzipError(err)
}

func gzipError(err error) error {
	switch {
	case err == nil || err == io.EOF || errors.Is(err, errUploadCut): //nolint:errorlint // io.EOF is returned bare, and io.Reader wants it so
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: gzip ends early", errUploadCut)
	}
	return &Problem{Code: CodeMalformed, Detail: "The body is not gzip, as Content-Encoding says it is.", cause: err}
}

// openBody returns the body, decompressed where it is gzip.
func (s *Server) openBody(c *gin.Context) (io.Reader, error) {
	raw := &bodyReader{body: c.Request.Body, control: http.NewResponseController(c.Writer), idle: s.config.BodyIdle}
	switch encoding := strings.ToLower(strings.TrimSpace(c.Request.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		return raw, nil
	case "gzip", "x-gzip":
		reader, err := gzip.NewReader(raw)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, gzipError(err)
		}
		return gunzip{reader}, nil
	default:
		return nil, &Problem{
			Code: CodeUnsupportedMedia, Detail: "Content-Encoding must be gzip, or be left out.",
			Errors: []Fault{{Header: "Content-Encoding", Detail: "must be gzip, or be left out"}},
			Header: map[string]string{"Accept-Encoding": "gzip"},
		}
	}
}

// mediaType is the body's type without parameters; a character set other than
// UTF-8 is refused.
func mediaType(r *http.Request) (string, error) {
	header := r.Header.Get("Content-Type")
	switch header {
	case contentTypeJSON, contentTypeNDJSON:
		return header, nil
	}
	media, parameters, err := mime.ParseMediaType(header)
	if err != nil {
		return "", nil // what is no media type is none that is supported
	}
	if charset := parameters["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", unsupportedMedia("must be in UTF-8")
	}
	return media, nil
}

func unsupportedMedia(detail string) *Problem {
	return &Problem{Code: CodeUnsupportedMedia, Detail: sentence("Content-Type", detail), Errors: []Fault{{Header: "Content-Type", Detail: detail}}}
}

// readWhole reads a body of at most limit bytes into memory of its own. Above
// freeBodyBytes it takes what it holds from budget, and release gives it back.
func readWhole(r io.Reader, contentLength, limit int64, budget *semaphore.Weighted) (body []byte, release func(), err error) {
	taken := int64(0)
	release = func() { budget.Release(taken) }
	defer func() {
		if err != nil {
			release()
			release = func() {}
		}
	}()
	size := int64(4 << 10)
	if contentLength > 0 {
		size = min(contentLength, freeBodyBytes) + 1 // room to see the end in the same read
	}
	body = make([]byte, 0, size)
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, release, &http.MaxBytesError{Limit: limit}
		}
		if errors.Is(err, io.EOF) {
			return body, release, nil
		}
		if err != nil {
			return nil, release, err
		}
		if len(body) < cap(body) {
			continue
		}
		more := min(int64(cap(body)), limit+1-int64(cap(body)))
		if int64(cap(body))+more > freeBodyBytes {
			if !budget.TryAcquire(more) {
				return nil, release, &Problem{Code: CodeBusy, RetryAfter: time.Second, Detail: "Too many large uploads are under way; nothing was stored. Send it again later."}
			}
			taken += more
		}
		grown := make([]byte, len(body), int64(cap(body))+more)
		copy(grown, body)
		body = grown
	}
}

// readDocument reads a small JSON body. Without a body it returns nil.
func (s *Server) readDocument(c *gin.Context, mediaTypes ...string) ([]byte, error) {
	if c.Request.ContentLength == 0 {
		return nil, nil
	}
	media, err := mediaType(c.Request)
	if err != nil {
		return nil, err
	}
	known := media == contentTypeJSON
	for _, other := range mediaTypes {
		known = known || media == other
	}
	if !known {
		return nil, unsupportedMedia("must be " + strings.Join(append([]string{contentTypeJSON}, mediaTypes...), " or "))
	}
	reader, err := s.openBody(c)
	if err != nil {
		return nil, err
	}
	body, release, err := readWhole(reader, c.Request.ContentLength, documentBytesMax, s.uploads)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	release() // small, and about to be decoded
	return body, nil
}

// decodeDocument reads a small document strictly: unknown, repeated or
// wrongly typed members are refused by name. Names are case-sensitive, null is
// the same as absent.
func decodeDocument(text []byte, into any) error {
	if len(strings.TrimSpace(string(text))) == 0 {
		return &malformedError{"", "must be a JSON object"}
	}
	if kind := jsontext.Value(text).Kind(); kind != '{' {
		return wrongDocumentKind(text, kind)
	}
	err := json.Unmarshal(text, into, json.RejectUnknownMembers(true))
	if err == nil {
		if hasEscapedNUL(text) {
			return event.FieldErrors{{Pointer: pointerOfNUL(text), Detail: "must not contain NUL (\\u0000)"}}
		}
		return nil
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		pointer := strings.ToValidUTF8(string(semantic.JSONPointer), "\ufffd")
		return event.FieldErrors{{Pointer: pointer, Detail: semanticDetail(semantic)}}
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) && errors.Is(syntax.Err, jsontext.ErrDuplicateName) {
		return event.FieldErrors{{Pointer: string(syntax.JSONPointer), Detail: "must not appear twice"}}
	}
	return malformedJSON(text, err)
}

func wrongDocumentKind(text []byte, kind jsontext.Kind) error {
	if !jsontext.Value(text).IsValid() {
		return &malformedError{"", "must be a JSON object"}
	}
	return event.FieldErrors{{Pointer: "", Detail: "must be a JSON object, not " + kindName(kind)}}
}

// semanticDetail says what would have been right where JSON did not fit.
func semanticDetail(e *json.SemanticError) string {
	switch {
	case errors.Is(e.Err, json.ErrUnknownName):
		return "is not a member of this document"
	case e.GoType == nil:
		return "must not be " + kindName(e.JSONKind)
	case e.Err != nil && ownNotation[e.GoType]:
		return e.Err.Error()
	}
	want := wantedKind(e.GoType)
	if e.JSONKind == '0' && want == wholeNumber {
		return "must be " + wholeNumber + " within bounds"
	}
	return "must be " + want + ", not " + kindName(e.JSONKind)
}

// ownNotation are the types whose own errors say it best.
var ownNotation = map[reflect.Type]bool{
	reflect.TypeFor[event.Duration](): true, reflect.TypeFor[event.Start](): true, reflect.TypeFor[*event.Start](): true,
	reflect.TypeFor[event.Count](): true, reflect.TypeFor[*event.Count](): true,
}

const wholeNumber = "a whole number"

// wantedKind names what a Go type is in JSON.
func wantedKind(t reflect.Type) string {
	if t == reflect.TypeFor[event.Duration]() {
		return "a duration such as 15s"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Int, reflect.Int64:
		return wholeNumber
	case reflect.Slice:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	default:
		return "of another type"
	}
}
