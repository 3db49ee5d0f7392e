package main

import "testing"

// TestProfilesAreForThisMachine: nobody else may look into the process.
func TestProfilesAreForThisMachine(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{"": true, "127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false, ":0": false} {
		s, err := listenProfile(t.Context(), address)
		if (err == nil) != want {
			t.Errorf("%q: error %v", address, err)
		}
		if err == nil {
			s.stop(t.Context())
		}
	}
}
