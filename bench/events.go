package bench

import (
	"fmt"
	"hash/fnv"
	"io"
	"strings"
)

// bodyBytes is the length of a generated event's data, and so of a request's
// body in the raw format.
const bodyBytes = 500

// paths and verbs give generated events the shape of a real stream: the history
// of a Go repository, a few records changing often and most of them seldom.
var (
	folders = []string{"internal", "client", "worker", "workflow", "converter", "test", "activity", "contrib/opentelemetry"}
	names   = []string{"internal_worker", "client", "session", "interceptor", "headers", "error", "version", "workflow_testsuite"}
	types   = []string{"record.created", "record.updated", "record.updated", "record.updated", "record.deleted"}
)

// eventData is the data of event i: the same for the same i, so that the floor
// sends the bytes that the product delivers.
func eventData(i int) []byte {
	hash := fnv.New64a()
	fmt.Fprint(hash, i)
	n := hash.Sum64()
	head := fmt.Sprintf(`{"commit":"%016x%016x","blob":"%016x","path":%q,"n":%d,"message":"`, n, n*31, n*131, recordKey(i), i)
	const tail = `"}`
	const words = "Change what the worker does when a session ends before its activities. "
	fill := bodyBytes - len(head) - len(tail)
	return []byte(head + strings.Repeat(words, fill/len(words)+1)[:fill] + tail)
}

func recordKey(i int) string {
	return folders[i%len(folders)] + "/" + names[(i/7)%len(names)] + fmt.Sprintf("_%d.go", i%397)
}

// appendEvent appends event i as one line of NDJSON.
func appendEvent(b []byte, i int) []byte {
	b = fmt.Appendf(b, `{"resourceName":"File","resourceRecordKey":%q,"eventType":%q,"occurredAt":"2024-05-06T07:08:09Z","data":`,
		recordKey(i), types[i%len(types)])
	b = append(b, eventData(i)...)
	return append(b, '}', '\n')
}

// stream reads as the NDJSON of the first n events, which line appends by their
// index.
type stream struct {
	line    func(b []byte, i int) []byte
	n, next int
	buffer  []byte
	unread  []byte
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.unread) == 0 {
		if s.next == s.n {
			return 0, io.EOF
		}
		s.buffer = s.buffer[:0]
		for ; s.next < s.n && len(s.buffer) < 32<<10; s.next++ {
			s.buffer = s.line(s.buffer, s.next)
		}
		s.unread = s.buffer
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}
