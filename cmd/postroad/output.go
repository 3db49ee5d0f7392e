package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postroad/internal/apiclient"
)

const contentTypeMergePatch = "application/merge-patch+json"

// listPageMax is the most a list route gives at once.
const listPageMax = 1000

// listAll reads all pages of a list.
func listAll[T any](ctx context.Context, c *apiclient.Client, path, member string, query url.Values) ([]T, []json.RawMessage, error) {
	items, raw := []T{}, []json.RawMessage{}
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", strconv.Itoa(listPageMax))
	for {
		var page map[string]json.RawMessage
		if _, err := c.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path + "?" + query.Encode()}, &page); err != nil {
			return nil, nil, err
		}
		var list []json.RawMessage
		if err := json.Unmarshal(page[member], &list); err != nil {
			return nil, nil, fmt.Errorf("read the list of %s: %w", member, err)
		}
		for _, text := range list {
			var item T
			if err := json.Unmarshal(text, &item); err != nil {
				return nil, nil, fmt.Errorf("read the list of %s: %w", member, err)
			}
			items, raw = append(items, item), append(raw, text)
		}
		var token string
		if next := page["nextPageToken"]; next != nil {
			if err := json.Unmarshal(next, &token); err != nil {
				return nil, nil, fmt.Errorf("read the list of %s: %w", member, err)
			}
		}
		if token == "" {
			return items, raw, nil
		}
		query.Set("pageToken", token)
	}
}

// done says that something without a document is done.
func (p *program) done(text string, document any) error {
	if p.json {
		return p.encode(document)
	}
	p.printf("%s\n", text)
	return nil
}

// table lines text up in columns.
type table struct{ w *tabwriter.Writer }

func (p *program) table(head ...string) *table {
	t := &table{tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// printable keeps what others wrote from moving the reader's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// thousands writes 12525 as 12,525.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// count writes "1 event" or "298 events".
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return thousands(n) + " " + what + "s"
}

// ago writes how long ago something was, in the unit that says most.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
