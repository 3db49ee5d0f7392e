package activities

// Draining reports whether a run of the subscriber has been told to drain.
func (a *Activities) Draining(subscriber string) bool {
	for _, r := range a.runs.of(subscriber) {
		r.mu.Lock()
		draining := r.draining
		r.mu.Unlock()
		if draining {
			return true
		}
	}
	return false
}

// Known reports whether a run of the subscriber holds its lease and hears of
// controls.
func (a *Activities) Known(subscriber string) bool { return len(a.runs.of(subscriber)) > 0 }

// Sitting is how many sit a wait out.
func (a *Activities) Sitting() int { return int(a.runs.sitting.Load()) }
