package event

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PartitionsMax bounds Partition.Count.
const PartitionsMax = 256

// Partition is one of the Count parts that records are divided into by their
// names and keys: all events of a record are in the same part, so several
// consumers can share a feed, a part each, and none sees a record's events out of
// order. The zero value has every record.
type Partition struct {
	// Index counts from 0, and Count is from 1 to PartitionsMax; both 0: no parts.
	Index, Count int
}

// ParsePartition reads "i/n", i from 0 and below n, n from 1 to PartitionsMax:
// decimal digits without sign or leading zeros.
func ParsePartition(text string) (Partition, error) {
	index, count, ok := strings.Cut(text, "/")
	i, errIndex := strconv.Atoi(index)
	n, errCount := strconv.Atoi(count)
	p := Partition{Index: i, Count: n}
	if !ok || errIndex != nil || errCount != nil || p.String() != text {
		return Partition{}, errors.New("must be i/n, as 0/8 is the first of eight parts")
	}
	if n < 1 || n > PartitionsMax || i < 0 || i >= n {
		return Partition{}, fmt.Errorf("must be i/n with n from 1 to %d and i from 0 to n-1", PartitionsMax)
	}
	return p, nil
}

// String returns "i/n"; "" where there are no parts.
func (p Partition) String() string {
	if p.Count == 0 {
		return ""
	}
	return strconv.Itoa(p.Index) + "/" + strconv.Itoa(p.Count)
}

// Has reports whether a record's events are in this part: those whose
// PartitionHash modulo Count is Index.
func (p Partition) Has(resourceName, resourceRecordKey string) bool {
	return p.Count == 0 || PartitionHash(resourceName, resourceRecordKey)%uint64(p.Count) == uint64(p.Index)
}

// PartitionHash is the 64-bit FNV-1a hash of the bytes of resourceName, a zero
// byte, and the bytes of resourceRecordKey, all in UTF-8. It stays as it is, so
// that others may compute it: of "Property" and "235021" it is
// 0x37617868e7a8cf53.
func PartitionHash(resourceName, resourceRecordKey string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(resourceName) {
		h = (h ^ uint64(resourceName[i])) * fnvPrime
	}
	h *= fnvPrime // the zero byte
	for i := range len(resourceRecordKey) {
		h = (h ^ uint64(resourceRecordKey[i])) * fnvPrime
	}
	return h
}

const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)
