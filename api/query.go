package api

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
)

// Bounds of lists.
const (
	pageDefault = 100
	pageMax     = 1000
)

// query reads the query strictly: a parameter that is not allowed here, or
// stands twice, is refused by name. A typing error must not select everything.
func query(c *gin.Context, allowed ...string) (url.Values, error) {
	raw := c.Request.URL.RawQuery
	if raw == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &Problem{Code: CodeInvalidParameter, Detail: "The query string cannot be read.", cause: err}
	}
	for _, name := range slices.Sorted(mapsKeys(values)) {
		shown := shownName(name)
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			return nil, invalidParameter(shown, "is not known: this route takes no query parameters")
		case !slices.Contains(allowed, name):
			return nil, invalidParameter(shown, "is not known; this route takes "+strings.Join(allowed, ", "))
		case len(values[name]) > 1:
			return nil, invalidParameter(shown, "must not appear twice")
		case !utf8.ValidString(values.Get(name)) || strings.ContainsRune(values.Get(name), 0):
			return nil, invalidParameter(shown, "must be valid UTF-8 without NUL")
		}
	}
	return values, nil
}

func mapsKeys(values url.Values) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range values {
			if !yield(name) {
				return
			}
		}
	}
}

// shownName makes a name that the client made up fit to be shown.
func shownName(name string) string {
	const shownMax = 100
	if len(name) > shownMax {
		name = name[:shownMax] + "..."
	}
	return strings.ToValidUTF8(name, "\ufffd")
}

// integer reads a whole number within bounds; fallback where it is absent.
func integer(values url.Values, name string, fallback, low, high int64) (int64, error) {
	raw, ok := values[name]
	if !ok {
		return fallback, nil
	}
	n, err := strconv.ParseInt(raw[0], 10, 64)
	if err != nil || n < low || n > high {
		return 0, invalidParameter(name, fmt.Sprintf("must be a whole number from %d to %d", low, high))
	}
	return n, nil
}

// flag reads true or false; absent is false.
func flag(values url.Values, name string) (bool, error) {
	switch values.Get(name) {
	case "":
		if _, given := values[name]; !given {
			return false, nil
		}
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, invalidParameter(name, "must be true or false")
}

// page is which part of a list is asked for.
type page struct {
	after string // the last key of the part before
	limit int
}

func pageOf(values url.Values) (page, error) {
	limit, err := integer(values, "limit", pageDefault, 1, pageMax)
	if err != nil {
		return page{}, err
	}
	token, ok := values["pageToken"]
	if !ok {
		return page{limit: int(limit)}, nil
	}
	after, ok := readPageToken(token[0])
	if !ok {
		return page{}, wrongPageToken()
	}
	return page{after: after, limit: int(limit)}, nil
}

// cut returns what a page shows of a list, and the token of the next part; "":
// there is none. The list was asked for with one more than the page shows, and has
// never more than most (0: no bound): the last page of that length may be followed
// by an empty one.
func cut[T any](p page, list []T, most int, key func(T) string) (shown []T, nextPageToken string) {
	if len(list) <= p.limit && (most == 0 || len(list) < most) {
		return list, ""
	}
	return list[:p.limit], pageToken(key(list[p.limit-1]))
}

// numbered is the key of what is listed by a number.
func numbered(n int64) string { return strconv.FormatInt(n, 10) }

func wrongPageToken() *Problem {
	return invalidParameter("pageToken", "must be a nextPageToken as it was returned")
}

const pageTokenPrefix = "1:" // the token's form, should it ever change

func pageToken(last string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(pageTokenPrefix + last))
}

func readPageToken(token string) (after string, ok bool) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", false
	}
	after, ok = strings.CutPrefix(string(text), pageTokenPrefix)
	return after, ok && after != "" && utf8.ValidString(after) && !strings.ContainsRune(after, 0)
}
