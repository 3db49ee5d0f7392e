package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// AttemptRows are attempts laid out as PostgreSQL's binary COPY takes them: made
// once, when the attempt is over, and without a pointer in them, so that a long
// queue costs the collector nothing. The zero value holds none.
type AttemptRows struct {
	data  []byte
	count int
}

// Len is how many attempts there are.
func (r *AttemptRows) Len() int { return r.count }

// Bytes is how much they take up.
func (r *AttemptRows) Bytes() int { return len(r.data) }

// Reset takes all of them out and keeps the memory.
func (r *AttemptRows) Reset() { r.data, r.count = r.data[:0], 0 }

// What frames the rows of a binary COPY (PostgreSQL, COPY, Binary Format): a
// signature, flags and the length of an extension; at the end a row of -1 columns.
const (
	copyHead = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTail = "\xff\xff"
)

// copyAttempts names the columns in the order in which AppendAttempt writes them.
const copyAttempts = `COPY attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, status,
	duration_us, request_bytes, error, response, retry_after, sequences, replay, compacted) FROM STDIN (FORMAT binary)`

const attemptColumns = 16

// postgresEpoch is where PostgreSQL counts microseconds from, in those of Unix.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// Append adds an attempt as AppendAttempt laid it out.
func (r *AttemptRows) Append(row []byte) {
	if r.count == 0 {
		r.data = append(r.data[:0], copyHead...)
	}
	r.count++
	r.data = append(r.data, row...)
}

// AppendAttempt lays an attempt out as a row; its ID is drawn when it is stored.
// Bytes that PostgreSQL cannot store as text are replaced.
func AppendAttempt(b []byte, a *Attempt) []byte {
	b = binary.BigEndian.AppendUint16(b, attemptColumns)
	b = appendText(b, a.Subscriber)
	b = appendInt8(b, a.StartedAt.UnixMicro()-postgresEpoch)
	b = appendInt8(b, a.FirstSequence)
	b = appendInt8(b, a.LastSequence)
	b = appendInt4(b, a.EventCount)
	b = appendInt4(b, a.Attempt)
	b = appendText(b, a.Class)
	if a.Status == nil {
		b = appendNull(b)
	} else {
		b = appendInt4(b, *a.Status)
	}
	b = appendInt8(b, a.Duration.Microseconds())
	b = appendInt4(b, a.RequestBytes)
	for _, text := range [...]string{a.Error, a.Response, a.RetryAfter} {
		if text == "" {
			b = appendNull(b)
		} else {
			b = appendText(b, text)
		}
	}
	b = appendSequences(b, a.Sequences)
	if a.Replay == 0 {
		b = appendNull(b)
	} else {
		b = appendInt8(b, a.Replay)
	}
	if a.Compacted == 0 {
		b = appendNull(b)
	} else {
		b = appendInt4(b, a.Compacted)
	}
	return b
}

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func appendInt4(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(n)) //nolint:gosec // small, by what they count
}

func appendInt8(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(n)) //nolint:gosec // two's complement is what is asked for
}

func appendText(b []byte, s string) []byte {
	if !isStorable(s) {
		s = *storable(s)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...) //nolint:gosec // far below 4 GiB
}

// appendSequences appends a bigint[] of one dimension; nil: NULL.
func appendSequences(b []byte, sequences []int64) []byte {
	if sequences == nil {
		return appendNull(b)
	}
	const head, element = 20, 12
	n := len(sequences)
	b = binary.BigEndian.AppendUint32(b, uint32(head+element*n)) //nolint:gosec // at most a batch
	for _, word := range [...]int{1, 0, pgtype.Int8OID, n, 1} {  // dimensions, NULLs, type, length, lower bound
		b = binary.BigEndian.AppendUint32(b, uint32(word)) //nolint:gosec // at most a batch
	}
	for _, sequence := range sequences {
		b = appendInt8(b, sequence)
	}
	return b
}

// InsertAttempts stores attempts: all or none.
func (s *Store) InsertAttempts(ctx context.Context, attempts []Attempt) error {
	var rows AttemptRows
	var row []byte
	for i := range attempts {
		row = AppendAttempt(row[:0], &attempts[i])
		rows.Append(row)
	}
	return s.InsertAttemptRows(ctx, &rows)
}

// InsertAttemptRows stores attempts in one COPY: all or none. The rows stay as
// they are.
func (s *Store) InsertAttemptRows(ctx context.Context, rows *AttemptRows) error {
	if rows.count == 0 {
		return nil
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("insert %d attempts: %w", rows.count, err)
	}
	defer conn.Release()
	// A COPY on its way into the default partition fails where the day's own one
	// is made in front of it; the next COPY finds that.
	const triesMax = 4
	for range triesMax {
		whole := io.MultiReader(bytes.NewReader(rows.data), strings.NewReader(copyTail))
		_, err = conn.Conn().PgConn().CopyFrom(ctx, whole, copyAttempts)
		if !hasCode(err, sqlstateCheckViolation) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("insert %d attempts: %w", rows.count, err)
	}
	return nil
}
