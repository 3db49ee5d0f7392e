package store

// rangesAbove cuts ranges (from, to, from, to, rising) to what is above a
// sequence.
func rangesAbove(ranges []int64, sequence int64) []int64 {
	if len(ranges) > 0 && ranges[0] > sequence {
		return ranges
	}
	above := []int64{}
	for i := 0; i+1 < len(ranges); i += 2 {
		if ranges[i+1] > sequence {
			above = append(above, max(ranges[i], sequence+1), ranges[i+1])
		}
	}
	return above
}

// countRanges is how many numbers lie in ranges.
func countRanges(ranges []int64) int64 {
	var n int64
	for i := 0; i+1 < len(ranges); i += 2 {
		n += ranges[i+1] - ranges[i] + 1
	}
	return n
}

// withSequence adds one number to ranges; what touches becomes one range.
func withSequence(ranges []int64, sequence int64) []int64 {
	added := []int64{}
	from, to, placed := sequence, sequence, false
	for i := 0; i+1 < len(ranges); i += 2 {
		switch {
		case ranges[i+1] < from-1:
			added = append(added, ranges[i], ranges[i+1])
		case ranges[i] > to+1:
			if !placed {
				added, placed = append(added, from, to), true
			}
			added = append(added, ranges[i], ranges[i+1])
		default:
			from, to = min(from, ranges[i]), max(to, ranges[i+1])
		}
	}
	if !placed {
		added = append(added, from, to)
	}
	return added
}

// mergeRanges is all that lies in one of two lists of ranges, as few ranges as can
// be. A range whose end is below its beginning has nothing in it.
func mergeRanges(a, b []int64) []int64 {
	merged := []int64{}
	for len(a) > 0 || len(b) > 0 {
		if len(a) == 0 || len(b) > 0 && b[0] < a[0] {
			a, b = b, a
		}
		from, to := a[0], a[1]
		a = a[2:]
		switch last := len(merged) - 1; {
		case to < from:
		case last > 0 && from <= merged[last]+1:
			merged[last] = max(merged[last], to)
		default:
			merged = append(merged, from, to)
		}
	}
	return merged
}

// withoutSequences takes rising numbers out of ranges.
func withoutSequences(ranges, sequences []int64) []int64 {
	left := []int64{}
	for i := 0; i+1 < len(ranges); i += 2 {
		from, to := ranges[i], ranges[i+1]
		for len(sequences) > 0 && sequences[0] <= to {
			if n := sequences[0]; n >= from {
				if n > from {
					left = append(left, from, n-1)
				}
				from = n + 1
			}
			sequences = sequences[1:]
		}
		if from <= to {
			left = append(left, from, to)
		}
	}
	return left
}

// rangesOf are rising numbers as ranges.
func rangesOf(sequences []int64) []int64 {
	ranges := []int64{}
	for _, n := range sequences {
		if last := len(ranges) - 1; last > 0 && ranges[last] == n-1 {
			ranges[last] = n
		} else {
			ranges = append(ranges, n, n)
		}
	}
	return ranges
}
