package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	appendSQL  = `SELECT * FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`
	appendName = "append_events"
)

// The types of append_events' arguments, and of the elements of those that are
// arrays.
var (
	appendTypes = []uint32{
		pgtype.Int8OID, pgtype.BoolOID, pgtype.IntervalOID, pgtype.Int4ArrayOID, pgtype.Int8ArrayOID, pgtype.TextArrayOID, pgtype.ByteaArrayOID,
		pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID,
	}
	binaryFormat = []int16{pgtype.BinaryFormatCode}
)

// callAppend calls append_events with arguments in PostgreSQL's binary form. pgx
// would look for the way to encode each string of each array anew, and copy each
// body once more.
func callAppend(ctx context.Context, conn *pgx.Conn, arguments [][]byte) ([]verdict, error) {
	var reader *pgconn.ResultReader
	switch conn.Config().DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec:
		statement, err := conn.Prepare(ctx, appendName, appendSQL) // once per connection
		if err != nil {
			return nil, err
		}
		reader = conn.PgConn().ExecStatement(ctx, statement, arguments, binaryFormat, binaryFormat)
	default: // a pooler's sessions keep no statements
		reader = conn.PgConn().ExecParams(ctx, appendSQL, arguments, appendTypes, binaryFormat, binaryFormat)
	}
	var verdicts []verdict
	var malformed error
	for reader.NextRow() {
		v, err := readVerdict(reader.Values())
		if err != nil {
			malformed = err
		}
		verdicts = append(verdicts, v)
	}
	if _, err := reader.Close(); err != nil {
		return nil, err
	}
	return verdicts, malformed
}

// verdict is one row of append_events.
type verdict struct {
	request   int
	kind      string
	at        int
	head      int64
	accepted  int
	sequences []int64
}

var errVerdict = errors.New("a row of append_events is not as expected")

func readVerdict(row [][]byte) (v verdict, err error) {
	const columns, arrayHeader, element = 6, 20, 4 + 8
	if len(row) != columns || len(row[0]) != 4 || len(row[2]) != 4 || len(row[3]) != 8 || len(row[4]) != 4 {
		return v, errVerdict
	}
	v = verdict{
		request: int(int32(binary.BigEndian.Uint32(row[0]))), kind: string(row[1]), at: int(int32(binary.BigEndian.Uint32(row[2]))),
		head: int64(binary.BigEndian.Uint64(row[3])), accepted: int(int32(binary.BigEndian.Uint32(row[4]))),
	}
	if len(row[5]) < arrayHeader {
		return v, nil // NULL, or an array without elements
	}
	elements := row[5][arrayHeader:]
	if len(elements)%element != 0 {
		return v, errVerdict
	}
	v.sequences = make([]int64, 0, len(elements)/element)
	for ; len(elements) > 0; elements = elements[element:] {
		v.sequences = append(v.sequences, int64(binary.BigEndian.Uint64(elements[4:])))
	}
	return v, nil
}

// arguments are those of append_events: after the first three, one array per
// member over the events of all requests. An array is NULL where every event
// lacks the member.
type arguments struct {
	buffer []byte
	ends   []int // of each argument in the buffer; -1: NULL
}

// bufferKept bounds the buffer that a writer keeps for its next group.
const bufferKept = 1 << 20

// values returns the arguments as they are sent.
func (a *arguments) values() [][]byte {
	values := make([][]byte, len(a.ends))
	from := 0
	for i, end := range a.ends {
		if end >= 0 {
			values[i] = a.buffer[from:end:end]
			from = end
		}
	}
	return values
}

// shrink lets go of what a group needed more than most do.
func (a *arguments) shrink() {
	if cap(a.buffer) > bufferKept {
		a.buffer = nil
	}
}

func (a *arguments) end() { a.ends = append(a.ends, len(a.buffer)) }

func (a *arguments) null() { a.ends = append(a.ends, -1) }

func (a *arguments) number(n int64) { a.buffer = binary.BigEndian.AppendUint64(a.buffer, uint64(n)) }

func (a *arguments) word(n int) { a.buffer = binary.BigEndian.AppendUint32(a.buffer, uint32(n)) }

// array begins an array of n elements, of which any may be NULL.
func (a *arguments) array(elementType uint32, n int) {
	a.word(1) // dimensions
	a.word(1) // NULLs are possible
	a.word(int(elementType))
	a.word(n)
	a.word(1) // the first index
}

// absent is the length of an element that is NULL.
const absent = -1

// texts appends an array of what member says of each event; unless every event
// has the member, an empty one is NULL.
func texts[T string | []byte](a *arguments, b *batch, elementType uint32, required bool, member func(r *request, i int) T) {
	from, known := len(a.buffer), required
	a.array(elementType, b.events)
	for _, r := range b.requests {
		for i := range r.events {
			text := member(r, i)
			if len(text) == 0 && !required {
				a.word(absent)
				continue
			}
			known = true
			a.word(len(text))
			a.buffer = append(a.buffer, text...)
		}
	}
	if known {
		a.end()
		return
	}
	a.buffer = a.buffer[:from]
	a.null()
}

// encode makes the arguments of the batch, in the order of append_events.
func (a *arguments) encode(b *batch, keep time.Duration) {
	a.buffer, a.ends = a.buffer[:0], a.ends[:0]
	a.number(b.key.feed)
	a.end()
	supplied := byte(0)
	if b.key.supplied {
		supplied = 1
	}
	a.buffer = append(a.buffer, supplied)
	a.end()
	a.number(keep.Microseconds())
	a.number(0) // days and months
	a.end()

	a.array(pgtype.Int4OID, len(b.requests))
	for _, r := range b.requests {
		a.word(4)
		a.word(len(r.events))
	}
	a.end()
	if b.key.supplied {
		a.array(pgtype.Int8OID, b.events)
		for _, r := range b.requests {
			for i := range r.events {
				a.word(8)
				a.number(r.events[i].Sequence)
			}
		}
		a.end()
	} else {
		a.null()
	}
	texts(a, b, pgtype.TextOID, false, func(r *request, i int) string { return r.events[i].IdempotencyKey })
	texts(a, b, pgtype.ByteaOID, false, (*request).hash)
	texts(a, b, pgtype.TextOID, true, func(r *request, i int) string { return r.events[i].ResourceName })
	texts(a, b, pgtype.TextOID, true, func(r *request, i int) string { return r.events[i].ResourceRecordKey })
	texts(a, b, pgtype.TextOID, false, func(r *request, i int) string { return r.events[i].ResourceRecordURL })
	texts(a, b, pgtype.TextOID, false, func(r *request, i int) string { return r.events[i].EventType })
	texts(a, b, pgtype.TextOID, false, func(r *request, i int) string { return r.events[i].OccurredAt })
	texts(a, b, pgtype.TextOID, false, (*request).rare)
	texts(a, b, pgtype.TextOID, false, func(r *request, i int) []byte { return r.events[i].Data })
}
