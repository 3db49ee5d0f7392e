package bench

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"postroad/internal/apiclient"
)

// TestCrowdBook: what is wrong at one of several lanes shows in their sum.
func TestCrowdBook(t *testing.T) {
	t.Parallel()
	const lanes, events = 3, 4
	for name, c := range map[string]struct {
		// sequences are those that arrive at lane 1; the others get all in order.
		sequences []int64
		want      string
	}{
		"good":         {[]int64{1, 2, 3, 4}, ""},
		"lost":         {[]int64{1, 2, 3}, "up to 3 of 4"},
		"skipped":      {[]int64{1, 3, 4}, "skipped"},
		"repeated":     {[]int64{1, 2, 2, 3, 4}, "repeated"},
		"none at all":  {nil, "up to 0 of 4"},
		"out of order": {[]int64{1, 3, 2, 4}, "repeated"},
		"one too many": {[]int64{1, 2, 3, 4, 5}, "13 of 12"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := NewReceiver()
			server := httptest.NewServer(receiver)
			defer server.Close()
			for i := range lanes {
				sequences := []int64{1, 2, 3, 4}
				if i == 1 {
					sequences = c.sequences
				}
				for _, sequence := range sequences {
					header := http.Header{headerSequence: {strconv.FormatInt(sequence, 10)}}
					receiver.lane("c/"+strconv.Itoa(i)).note(header, bodyBytes)
				}
			}
			crew := crowd{measurement: &measurement{run: &run{sink: &apiclient.Client{URL: server.URL}}}, name: "c", size: lanes}
			got, err := crew.report(t.Context(), 0, lanes)
			if err != nil || got.FirstAt == 0 || got.LastAt < got.FirstAt {
				t.Fatalf("report %+v, %v", got, err)
			}
			var r Result
			r.judgeCrowd(got, lanes, events)
			wantFault(t, r, c.want)
		})
	}
}
