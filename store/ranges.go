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
