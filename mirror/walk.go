package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"postroad/event"
)

// idlePagesMax is how many pages in a row may bring nothing new.
const idlePagesMax = 100

// walk reads the source's events above a sequence, in order, page by page: along
// nextLinks where they lead, else by asking for what is above the last one.
type walk struct {
	m *Mirror
	// last is the highest sequence that was read.
	last int64
	// next is the link to follow; "": ask anew.
	next string
	// began is when the request was made that all pages since may go back to: a
	// server may serve the pages behind nextLinks from one snapshot.
	began time.Time
	// before are the records of the page before: some servers' pages overlap.
	before map[int64]event.Key
	// idle counts pages without anything new.
	idle int
}

func (m *Mirror) walk(after int64) *walk { return &walk{m: m, last: after} }

// page reads the next page. ended says that there was nothing above the last
// one.
func (w *walk) page(ctx context.Context) (events []event.Event, ended bool, err error) {
	for {
		asked := w.next == ""
		var p page
		var address string
		if asked {
			w.began = time.Now()
			p, address, err = w.m.ask(ctx, w.last)
		} else {
			address = w.next
			p, err = w.m.fetch(ctx, address)
		}
		if !asked && expired(err) {
			w.next = ""
			continue
		}
		if err != nil {
			return nil, false, err
		}
		from := w.last
		if events, err = w.fresh(address, p.events, asked); err != nil {
			return nil, false, err
		}
		w.next = w.m.follow(address, p.next)
		switch {
		case len(events) > 0:
			w.idle = 0
			return events, false, nil
		case p.next == "" && asked:
			return nil, true, w.m.stuck(address, from, p.events)
		}
		// A page without anything new, but with a link; or the end of the links, which
		// is the end only if the source has nothing above either.
		if w.idle++; w.idle > idlePagesMax {
			return nil, false, &Fault{URL: address, Reason: fmt.Sprintf("%d pages in a row brought nothing new: its nextLink leads nowhere", idlePagesMax)}
		}
	}
}

// expired reports that a nextLink no longer leads anywhere; to ask anew does.
func expired(err error) bool {
	var fault *Fault
	return errors.As(err, &fault) && slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone}, fault.Status)
}

// fresh returns what is above the last one, after checking that the order is
// that of the sequences. What was read before may come again.
func (w *walk) fresh(address string, events []event.Event, asked bool) ([]event.Event, error) {
	from, records := w.last, make(map[int64]event.Key, len(events))
	var kept []event.Event
	for i := range events {
		e := &events[i]
		known, again := records[e.Sequence]
		if !again {
			known, again = w.before[e.Sequence]
		}
		switch {
		case again && known != e.Key():
			return nil, &Fault{
				URL: address, Record: place(i, e.Sequence),
				Reason: fmt.Sprintf("is %s %s here and was %s %s: a sequence stays with its record", e.ResourceName, e.ResourceRecordKey, known.ResourceName, known.ResourceRecordKey),
			}
		case again, e.Sequence <= from && asked: // a server that takes gt for ge, or reads no $filter
		case e.Sequence <= w.last:
			return nil, &Fault{
				URL: address, Record: place(i, e.Sequence),
				Reason: fmt.Sprintf("follows %d: the server does not order by EntityEventSequence", w.last),
			}
		default:
			records[e.Sequence] = e.Key()
			w.last = e.Sequence
			kept = append(kept, *e)
		}
	}
	if len(kept) > 0 {
		w.before = records
	}
	return kept, nil
}

// stuck tells the source's end from a server that reads no $filter, which would
// answer with its first page for ever.
func (m *Mirror) stuck(address string, after int64, events []event.Event) error {
	for i := range events {
		if events[i].Sequence < after {
			return &Fault{
				URL: address, Record: place(i, events[i].Sequence),
				Reason: fmt.Sprintf("is not above %d: the server does not read $filter", after),
			}
		}
	}
	return nil
}

// options are the query options that the source takes.
type options struct {
	known             bool // an answer came with them
	noTop, noOrder    bool
	noProbe, toldLink bool
}

// ask asks for what is above a sequence. Options that the source refuses are
// left out from then on: the answers are checked for their order in any case.
func (m *Mirror) ask(ctx context.Context, after int64) (page, string, error) {
	first, address := m.options, ""
	for {
		query := "$filter=EntityEventSequence%20gt%20" + strconv.FormatInt(after, 10)
		if !m.options.noOrder {
			query += "&$orderby=EntityEventSequence%20asc"
		}
		if !m.options.noTop {
			query += "&$top=" + strconv.Itoa(m.config.PageSize)
		}
		address = m.resource + "?" + query
		p, err := m.fetch(ctx, address)
		var fault *Fault
		refused := errors.As(err, &fault) && (fault.Status == http.StatusBadRequest || fault.Status == http.StatusNotImplemented)
		switch {
		case err == nil:
			m.options.known = true
			return p, address, nil
		case !refused || m.options.known || m.options.noTop && m.options.noOrder:
			m.options = first
			return page{}, address, err
		case !m.options.noTop:
			m.options.noTop = true
		case !m.options.noOrder:
			m.options.noTop, m.options.noOrder = first.noTop, true
		}
	}
}

// follow returns the absolute address of a nextLink that may be followed; "": it
// may not, or there is none, and what is above the last sequence is asked for.
// The token goes to the source only. A link with $skip counts rows, and one that
// is removed meanwhile would shift another past us.
func (m *Mirror) follow(address, link string) string {
	if link == "" {
		return ""
	}
	base, err := url.Parse(address)
	if err != nil {
		return ""
	}
	next, err := base.Parse(link)
	switch {
	case err != nil:
	case next.Scheme == m.root.Scheme && next.Host == m.root.Host && next.User == nil:
		if next.Query().Has("$skip") || next.Query().Has("skip") || next.String() == address {
			return ""
		}
		return next.String()
	}
	if !m.options.toldLink {
		m.options.toldLink = true
		m.config.Logger.Warn("nextLink not followed: it leads away from the source", "url", address, "next_link", link)
	}
	return ""
}

// sourceHead asks for the highest sequence there is; 0: the source would not say.
// That is no fault: to sort all it has may be too much for it. It is asked again
// after the next recheck.
func (m *Mirror) sourceHead(ctx context.Context) (int64, error) {
	if m.options.noProbe {
		return 0, nil
	}
	p, err := m.fetch(ctx, m.resource+"?$orderby=EntityEventSequence%20desc&$top=1")
	if err != nil && !asked(err) && ctx.Err() == nil {
		m.options.noProbe = true
		m.config.Logger.Debug("source does not tell its highest sequence", "error", err)
		return 0, nil
	}
	head := int64(0)
	for i := range p.events {
		head = max(head, p.events[i].Sequence)
	}
	return head, err
}
