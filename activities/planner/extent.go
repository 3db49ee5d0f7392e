package planner

// Bytes is about how many bytes the events hold that were offered and are not
// dealt with (event.Event.Size).
func (p *Plan) Bytes() int { return p.window.bytes }

// Passed is how many events of the stream this plan has dealt with: those that
// waited behind a held key were, when they were set aside.
func (p *Plan) Passed() int { return p.dealt - p.unheld }
