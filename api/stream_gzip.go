package api

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// gzipTailBytes is how much of what was sent a piece is compressed against.
const gzipTailBytes = 4 << 10

// gzipStream compresses pieces of a stream, each readable as soon as it is there.
// It keeps no more than the tail of what was sent: a compressor as in compress/gzip
// holds 800 KB, for each of thousands of streams that mostly wait.
type gzipStream struct {
	begun bool
	tail  []byte
	sum   uint32
	size  uint32
}

// gzipHead is the header (RFC 1952) without name and time; the system is unknown.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// squeezed are where compressed pieces wait to be written whole.
var squeezed = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (g *gzipStream) write(w io.Writer, piece []byte) error { return g.put(w, piece, false) }

// close writes the end. What was not closed is known to be cut.
func (g *gzipStream) close(w io.Writer) error { return g.put(w, nil, true) }

func (g *gzipStream) put(w io.Writer, piece []byte, last bool) error {
	b, _ := squeezed.Get().(*bytes.Buffer)
	defer squeezed.Put(b)
	b.Reset()
	if !g.begun {
		g.begun = true
		b.WriteString(gzipHead)
	}
	g.sum = crc32.Update(g.sum, crc32.IEEETable, piece)
	g.size += uint32(len(piece)) //nolint:gosec // a piece is short, and the format counts modulo 2^32
	if err := flate.StatelessDeflate(b, piece, last, g.tail); err != nil {
		return err
	}
	if last {
		b.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, g.sum), g.size))
	}
	g.keep(piece)
	_, err := w.Write(b.Bytes())
	return err
}

// keep moves the tail on.
func (g *gzipStream) keep(piece []byte) {
	if g.tail == nil {
		g.tail = make([]byte, 0, gzipTailBytes)
	}
	piece = piece[max(0, len(piece)-gzipTailBytes):]
	stay := min(len(g.tail), gzipTailBytes-len(piece))
	copy(g.tail[:stay], g.tail[len(g.tail)-stay:])
	g.tail = append(g.tail[:stay], piece...)
}
