package event_test

import (
	"fmt"
	"hash/fnv"
	"testing"

	"postroad/event"
)

// TestPartitionHash: others compute the hash too, so it is what it always was.
func TestPartitionHash(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name, key string
		want      uint64
	}{
		{"Property", "1", 0xf596d0fb0a390bcb},
		{"Property", "235021", 0x37617868e7a8cf53},
		{"Media", "235021", 0xf3ee116deab59c6e},
		{"Member", "é/ü", 0x44db3c0e0248b5c1},
		{"", "", 0xaf63bd4c8601b7df},
	} {
		standard := fnv.New64a()
		fmt.Fprintf(standard, "%s\x00%s", v.name, v.key)
		if got := event.PartitionHash(v.name, v.key); got != v.want || got != standard.Sum64() {
			t.Errorf("%s %s: %#x, want %#x, and the standard library's %#x", v.name, v.key, got, v.want, standard.Sum64())
		}
	}
}

// TestPartition: every record is in exactly one part, and the parts are about
// alike in size.
func TestPartition(t *testing.T) {
	t.Parallel()
	const records = 8_000
	for _, count := range []int{1, 2, 3, 8, event.PartitionsMax} {
		sizes := make([]int, count)
		for n := range records {
			key, found := fmt.Sprint(n), 0
			for i := range count {
				p, err := event.ParsePartition(fmt.Sprintf("%d/%d", i, count))
				if err != nil {
					t.Fatal(err)
				}
				if p.Has("Property", key) {
					found++
					sizes[i]++
				}
			}
			if found != 1 {
				t.Fatalf("record %s is in %d of %d parts", key, found, count)
			}
			if !(event.Partition{}).Has("Property", key) {
				t.Fatal("the zero value lacks a record")
			}
		}
		for i, size := range sizes {
			if mean := records / count; size < mean/3 || size > 3*mean {
				t.Errorf("part %d/%d has %d of %d records", i, count, size, records)
			}
		}
	}
}

func TestParsePartition(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0/1", "7/8", "255/256"} {
		p, err := event.ParsePartition(text)
		if err != nil || p.String() != text {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/8", "8/8", "-1/8", "0/0", "0/257", "+1/8", "01/8", "1/08", "1/8/", "1 /8", "a/b", "1/9223372036854775808"} {
		if p, err := event.ParsePartition(text); err == nil {
			t.Errorf("%q is read as %v", text, p)
		}
	}
	if text := (event.Partition{}).String(); text != "" {
		t.Errorf("no parts are %q", text)
	}
}
