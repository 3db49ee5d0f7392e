package delivery

import "testing"

// The whole policy, status by status: what is not named here is a record
// failure.
func TestClassify(t *testing.T) {
	t.Parallel()
	endpoint := map[int]bool{401: true, 403: true, 404: true, 405: true, 408: true, 425: true, 429: true, 502: true, 503: true, 504: true}
	for status := range 1000 {
		for _, asked := range []bool{false, true} {
			want := ClassRecord
			switch {
			case status < 200:
				want = ClassEndpoint
			case status < 300:
				want = ClassSuccess
			case status == 410:
				want = ClassGone
			case asked && (status == 429 || status == 503):
				want = ClassAsked
			case endpoint[status]:
				want = ClassEndpoint
			}
			if got := Classify(status, asked); got != want {
				t.Errorf("Classify(%d, %v) = %v, want %v", status, asked, got, want)
			}
		}
	}
	for class := ClassSuccess; class <= ClassCanceled; class++ {
		if class.String() == "" {
			t.Errorf("class %d has no name", class)
		}
	}
}
