package odata_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"postroad/api/odata"
	"postroad/event"
)

// TestRecordPath: the path of a record leads back to it.
func TestRecordPath(t *testing.T) {
	t.Parallel()
	for _, key := range append([]string{"a/b", "'", "''", "a'/'b", "?#%+&", "%2F", "(", ")", "(x)'", " ", "$count"}, texts[:13]...) {
		path := odata.RecordPath("X/Y Z", key)
		r, err := odata.ParsePath(entityEvent, path)
		if err != nil || r.Kind != odata.Record || r.Name != "X/Y Z" || r.RecordKey != key {
			t.Errorf("%q: %s leads to %+v, %v", key, path, r, err)
		}
	}
}

// TestRecordURLColumn: SQL and Go make the same URL of a record.
func TestRecordURLColumn(t *testing.T) {
	t.Parallel()
	var list []event.Event
	for i, text := range append([]string{"a/b?c#d", "100%", "&=+;,:@$()*!", "~-._", "\u00e9\U0001F600", "\x01"}, texts...) {
		list = append(list, event.Event{Sequence: int64(i + 1), ResourceName: text, ResourceRecordKey: "'" + text, RecordedAt: noon})
	}
	list = append(list, event.Event{Sequence: 100, ResourceName: "A", ResourceRecordKey: "1", ResourceRecordURL: "its own", RecordedAt: noon})
	conn := logOf(t, list)
	column := odata.RecordURLColumn("e.resource_url", "$1::text", "e.resource_name", "e.resource_key")
	rows, _ := conn.Query(context.Background(), "SELECT "+column+" FROM events e ORDER BY e.sequence", "http://h/")
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	for i := range list {
		row := odata.EventRow(&list[i], "http://h/"+odata.RecordPath(list[i].ResourceName, list[i].ResourceRecordKey))
		if want := row(entityEvent.Property(odata.ResourceRecordURL)); got[i] != want {
			t.Errorf("%q: in SQL %s, in Go %s", list[i].ResourceName, got[i], want)
		}
	}
}
