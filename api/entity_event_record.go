package api

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/gin-gonic/gin"

	"postroad/event"
)

// getRecord answers with the data of the newest event of a record, byte for byte as
// it was published. A record whose newest event deletes it, or carries no data, is
// not there: RCP-27's consumer then removes its copy.
func (s *Server) getRecord(c *gin.Context, r *entityRequest) error {
	record := event.Key{ResourceName: r.Resource.Name, ResourceRecordKey: r.Resource.RecordKey}
	for before := int64(0); ; {
		page, err := s.config.Log.RecordEvents(c.Request.Context(), r.feed.ID, record, before, 1)
		if err != nil {
			return feedError(r.feed.Name, err)
		}
		if len(page.Events) > 0 {
			e := page.Events[0]
			if deletes(e.EventType) || len(e.Data) == 0 || string(e.Data) == "null" {
				return notFound("key", fmt.Sprintf("The newest event of this record, %d, says that it was deleted, or carries no data", e.Sequence))
			}
			return writeOData(c, r, e.Data)
		}
		if before = page.Before; before == 0 {
			return notFound("key", "No event of this feed is of this record")
		}
	}
}

// deletes reports whether an event type says that the record is gone: its last word
// is delete, deleted, remove or removed. Words end at whatever is no letter, and
// where a capital follows a small letter: record.deleted, ListingRemoved,
// OPEN_HOUSE_DELETE.
func deletes(eventType string) bool {
	words := strings.FieldsFunc(eventType, func(c rune) bool { return !unicode.IsLetter(c) })
	if len(words) == 0 {
		return false
	}
	last := words[len(words)-1]
	for i := len(last) - 1; i > 0; i-- {
		if 'A' <= last[i] && last[i] <= 'Z' && 'a' <= last[i-1] && last[i-1] <= 'z' {
			last = last[i:]
			break
		}
	}
	switch strings.ToLower(last) {
	case "delete", "deleted", "remove", "removed":
		return true
	}
	return false
}
